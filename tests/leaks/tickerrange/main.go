// A heartbeat for each connection, ranging over a ticker that nobody stops.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

func main() {
	rig.Run(10*time.Millisecond, func(leak bool) {
		if leak {
			connect()
		}
	})
}

func connect() { go heartbeat(time.NewTicker(time.Second)) }

func heartbeat(ticker *time.Ticker) {
	frame := make([]byte, 64<<10)
	rig.Touch(frame)
	for range ticker.C {
		frame[0]++
	}
}
