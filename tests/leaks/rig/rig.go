// Package rig is what every program of the suite has beside its one mistake: a pprof port, a healthy holder of memory, and work at a
// steady pace that begins to go wrong when told.
//
// The healthy holder is the largest function of the heap before the mistake begins: who names by size, not by growth, names it.
package rig

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"sync/atomic"
	"time"
)

const healthyBytes = 24 << 20

var (
	healthy [][]byte
	leaking atomic.Bool
)

// Run serves /debug/pprof/ on a free port, prints its address, and calls work every pace until the process is ended. work is told
// whether the mistake is to be made by now: after a POST to /leak.
func Run(pace time.Duration, work func(leak bool)) {
	for range healthyBytes >> 16 {
		page := make([]byte, 1<<16)
		Touch(page)
		healthy = append(healthy, page)
	}
	http.HandleFunc("POST /leak", func(http.ResponseWriter, *http.Request) { leaking.Store(true) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("pprof=http://%s/debug/pprof\n", listener.Addr())
	go http.Serve(listener, nil)
	for range time.Tick(pace) {
		work(leaking.Load())
	}
}

// Touch makes every page of b resident, as data that somebody wrote would be.
func Touch(b []byte) {
	for at := 0; at < len(b); at += 4096 {
		b[at] = 1
	}
}
