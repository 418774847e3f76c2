module oomwatch/zoo

go 1.24
