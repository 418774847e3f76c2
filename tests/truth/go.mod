module oomwatch.example/truth

go 1.24
