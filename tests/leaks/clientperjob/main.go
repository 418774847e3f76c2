// A DogStatsD client for each job, flushed and never closed.
package main

import (
	"net"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"oomwatch.example/leaks/rig"
)

var address string

func main() {
	sink, _ := net.ListenPacket("udp", "127.0.0.1:0")
	go func() {
		for buffer := make([]byte, 8192); ; {
			sink.ReadFrom(buffer)
		}
	}()
	address = sink.LocalAddr().String()
	shared, _ := statsd.New(address)
	rig.Run(120*time.Millisecond, func(leak bool) {
		if leak {
			handleJob()
		} else {
			shared.Incr("jobs", nil, 1)
		}
	})
}

func handleJob() {
	client, err := statsd.New(address)
	if err == nil {
		client.Incr("jobs", nil, 1)
		client.Flush()
	}
}
