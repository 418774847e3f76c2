// A poller for each device, which nobody stops: its goroutine selects on a live ticker and on a channel that is never closed.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

type poller struct {
	done  chan struct{}
	state []byte
}

func main() {
	rig.Run(10*time.Millisecond, func(leak bool) {
		device := newPoller()
		if !leak {
			close(device.done)
		}
	})
}

func newPoller() *poller {
	p := &poller{done: make(chan struct{}), state: make([]byte, 64<<10)}
	go p.loop()
	return p
}

func (p *poller) loop() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	rig.Touch(p.state)
	for {
		select {
		case <-ticker.C:
			p.state[0]++
		case <-p.done:
			return
		}
	}
}
