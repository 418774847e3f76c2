// Beast is the Go program of the zoo: a server with a cache of fixed size that makes garbage with every request, or, with
// -rate, a program that stands still for a while and then keeps all it makes. It serves net/http/pprof, as apps do.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	_ "net/http/pprof"
	"sync"
	"time"
)

const chunk = 16 << 10

var (
	mu   sync.Mutex
	live [][]byte
)

func main() {
	listen := flag.String("listen", "127.0.0.1:6060", "where to serve / and /debug/pprof")
	size := flag.Int("live", 32, "MiB that are kept from the start")
	rate := flag.Float64("rate", 0, "MiB a second that are kept for ever")
	quiet := flag.Duration("quiet", 0, "how long to stand still before")
	flag.Parse()
	for range *size << 20 / chunk {
		live = append(live, make1())
	}
	http.HandleFunc("/", serve)
	go func() { log.Fatal(http.ListenAndServe(*listen, nil)) }()
	time.Sleep(*quiet)
	if *rate > 0 {
		leak(*rate)
	}
	select {}
}

// make1 touches what it makes, because an untouched page is in nobody's memory.
func make1() []byte {
	made := make([]byte, chunk)
	for at := 0; at < chunk; at += 4096 {
		made[at] = byte(at) + 1
	}
	return made
}

// serve replaces one entry of the cache and makes ten times as much garbage.
func serve(w http.ResponseWriter, r *http.Request) {
	answer := map[string]int{}
	for range 10 {
		answer[fmt.Sprint(rand.IntN(1000))] = len(make1())
	}
	mu.Lock()
	live[rand.IntN(len(live))] = make1()
	mu.Unlock()
	time.Sleep(2 * time.Millisecond)
	_ = json.NewEncoder(w).Encode(answer)
}

// leak keeps rate MiB a second, evenly and whatever the machine is doing meanwhile.
func leak(rate float64) {
	began, kept := time.Now(), 0
	for range time.Tick(20 * time.Millisecond) {
		due := int(time.Since(began).Seconds() * rate * (1 << 20) / chunk)
		for ; kept < due; kept++ {
			hoard()
		}
	}
}

func hoard() {
	mu.Lock()
	defer mu.Unlock()
	live = append(live, make1())
}
