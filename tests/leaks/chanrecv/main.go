// Subscribers of a topic that is never closed.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

func main() {
	rig.Run(10*time.Millisecond, func(leak bool) {
		topic := make(chan string)
		subscribe(topic)
		if !leak {
			close(topic)
		}
	})
}

func subscribe(topic chan string) {
	go func() {
		backlog := make([]byte, 64<<10)
		rig.Touch(backlog)
		for message := range topic {
			copy(backlog, message)
		}
	}()
}
