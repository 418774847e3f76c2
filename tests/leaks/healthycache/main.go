// Healthy: a cache with a bound, full after some seconds of load.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

const bound = 320

var (
	cache [bound][]byte
	next  int
)

func main() {
	rig.Run(20*time.Millisecond, func(load bool) {
		if load {
			fill()
		}
	})
}

func fill() {
	page := make([]byte, 64<<10)
	rig.Touch(page)
	cache[next%bound] = page
	next++
}
