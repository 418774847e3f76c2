module oomwatch.example/leaks

go 1.24.0

require (
	github.com/DataDog/datadog-go/v5 v5.9.1
	github.com/proullon/ramsql v0.1.4
)

require (
	github.com/Microsoft/go-winio v0.5.0 // indirect
	golang.org/x/exp v0.0.0-20230713183714-613f0c0eb8a1 // indirect
	golang.org/x/sys v0.7.0 // indirect
)
