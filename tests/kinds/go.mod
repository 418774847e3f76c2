module oomwatch.example/kinds

go 1.24
