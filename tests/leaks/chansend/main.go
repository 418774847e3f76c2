// A query with a time limit: whoever asked has left, and the answer waits to be taken for ever.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

func main() {
	rig.Run(10*time.Millisecond, func(leak bool) {
		patience := 50 * time.Millisecond
		if leak {
			patience = time.Microsecond
		}
		query(patience)
	})
}

func query(patience time.Duration) []byte {
	answer := make(chan []byte)
	go func() {
		rows := make([]byte, 64<<10)
		rig.Touch(rows)
		time.Sleep(time.Millisecond)
		answer <- rows
	}()
	select {
	case rows := <-answer:
		return rows
	case <-time.After(patience):
		return nil
	}
}
