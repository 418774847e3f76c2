// Healthy: every few seconds a batch needs much for a moment.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

var batch [][]byte

func main() {
	step := 0
	rig.Run(20*time.Millisecond, func(load bool) {
		step++
		if load && step%200 < 50 {
			collect()
		} else {
			batch = nil
		}
	})
}

func collect() {
	part := make([]byte, 512<<10)
	rig.Touch(part)
	batch = append(batch, part)
}
