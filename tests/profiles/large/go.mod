module oomwatch.example/large

go 1.24
