// A fan-out whose failing part returns without Done: whoever gathers waits for ever.
package main

import (
	"sync"
	"time"

	"oomwatch.example/leaks/rig"
)

func main() {
	rig.Run(10*time.Millisecond, func(leak bool) { go gather(leak) })
}

func gather(fails bool) {
	var parts sync.WaitGroup
	report := make([]byte, 64<<10)
	rig.Touch(report)
	for part := range 4 {
		parts.Add(1)
		go fetch(&parts, report[part:], fails && part == 3)
	}
	parts.Wait()
	report[0] = 0
}

func fetch(parts *sync.WaitGroup, into []byte, fails bool) {
	if fails {
		return
	}
	into[0]++
	parts.Done()
}
