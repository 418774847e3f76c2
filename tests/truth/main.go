// Keeps what it is told to keep: POST /keep?mib=N brings its live heap to N MiB, every page of it written; POST /park?count=N
// starts goroutines that wait for ever, POST /leak?count=N goroutines that nobody can wake any more. It serves net/http/pprof, and prints where.
package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"strconv"
	"sync"
)

const chunk = 64 << 10

var (
	mu   sync.Mutex
	live [][]byte
)

func main() {
	http.HandleFunc("POST /keep", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		for wanted := number(r, "mib") << 20 / chunk; len(live) < wanted; {
			live = append(live, row())
		}
	})
	http.HandleFunc("POST /park", func(w http.ResponseWriter, r *http.Request) {
		for range number(r, "count") {
			go park()
		}
	})
	http.HandleFunc("POST /leak", func(w http.ResponseWriter, r *http.Request) {
		for range number(r, "count") {
			go leak(make(chan struct{}))
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("pprof=http://%s/debug/pprof\n", listener.Addr())
	http.Serve(listener, nil)
}

func number(r *http.Request, name string) int {
	n, _ := strconv.Atoi(r.URL.Query().Get(name))
	return n
}

// row makes a little garbage beside what is kept, as work does.
func row() []byte {
	for range 4 {
		touch(make([]byte, 4<<10))
	}
	return touch(make([]byte, chunk))
}

func touch(b []byte) []byte {
	for at := 0; at < len(b); at += 4096 {
		b[at] = 1
	}
	return b
}

func park() { select {} }

func leak(c chan struct{}) { <-c }
