// Package statsd stands for a metrics client that somebody else wrote: a buffer and two goroutines for each client.
package statsd

import "time"

type Client struct {
	buffer []byte
	stop   chan struct{}
}

func New() *Client {
	c := &Client{buffer: newStatsdBuffer(), stop: make(chan struct{})}
	go c.watch()
	go c.flush()
	return c
}

//go:noinline
func newStatsdBuffer() []byte { return make([]byte, 256<<10) }

func (c *Client) watch() { <-c.stop }

func (c *Client) flush() {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	select {
	case <-tick.C:
	case <-c.stop:
	}
}
