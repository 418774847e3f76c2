// An audit trail that is appended to and never written out.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

type entry struct {
	at   time.Time
	text [1000]byte
}

var trail []entry

func main() {
	rig.Run(10*time.Millisecond, func(leak bool) {
		if !leak {
			trail = trail[:0]
		}
		for range 40 {
			audit("logged in")
		}
	})
}

func audit(text string) {
	line := entry{at: time.Now()}
	copy(line.text[:], text)
	trail = append(trail, line)
}
