// Healthy: much garbage, nothing kept. The collector's sawtooth is all there is to see.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

var last []byte

func main() {
	rig.Run(10*time.Millisecond, func(bool) { last = work() })
}

func work() []byte {
	made := make([]byte, 512<<10)
	rig.Touch(made)
	return made
}
