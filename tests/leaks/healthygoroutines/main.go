// Healthy: a goroutine for each request, some hundreds at once, all of which end.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

func main() {
	rig.Run(10*time.Millisecond, func(load bool) {
		n := 2
		if load {
			n = 20
		}
		for range n {
			go request()
		}
	})
}

func request() {
	body := make([]byte, 16<<10)
	rig.Touch(body)
	time.Sleep(200 * time.Millisecond)
	body[0] = 0
}
