// A context for each request, made from one that lives as long as the process, and never cancelled: the parent keeps them all.
package main

import (
	"context"
	"time"

	"oomwatch.example/leaks/rig"
)

type requestKey struct{}

func main() {
	server, stop := context.WithCancel(context.Background())
	defer stop()
	rig.Run(10*time.Millisecond, func(leak bool) {
		cancel := handle(server)
		if !leak {
			cancel()
		}
	})
}

func handle(server context.Context) context.CancelFunc {
	request := make([]byte, 64<<10)
	rig.Touch(request)
	scope, cancel := context.WithTimeout(context.WithValue(server, requestKey{}, request), time.Hour)
	_ = scope.Value(requestKey{})
	return cancel
}
