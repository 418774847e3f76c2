// Healthy: a cache with a bound, full after some seconds of load.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

// Pages so large that a sampled heap tells their sum: of small ones that come and go it is some mebibytes off, up and down.
const (
	bound = 6
	size  = 2 << 20
)

var (
	cache [bound][]byte
	calls int
)

func main() {
	rig.Run(20*time.Millisecond, func(load bool) {
		if load {
			fill()
		}
	})
}

// A page every 400 ms.
func fill() {
	calls++
	if calls%20 != 0 {
		return
	}
	page := make([]byte, size)
	rig.Touch(page)
	cache[calls/20%bound] = page
}
