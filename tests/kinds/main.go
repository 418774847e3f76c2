// Writes one profile of each kind that net/http/pprof serves into the folder that it is given: heap, allocs, block, mutex, goroutine,
// and goroutineleak where the toolchain has it.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"
)

var kept [][]byte

func main() {
	runtime.MemProfileRate = 4096
	runtime.SetBlockProfileRate(1)
	runtime.SetMutexProfileFraction(1)
	for range 200 {
		remember()
		waste()
	}
	contend()
	for range 7 {
		abandon()
	}
	runtime.GC()
	runtime.GC()
	for _, profile := range pprof.Profiles() {
		write(profile)
	}
}

func write(profile *pprof.Profile) {
	file, err := os.Create(filepath.Join(os.Args[1], profile.Name()))
	if err == nil {
		err = profile.WriteTo(file, 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	file.Close()
}

//go:noinline
func remember() { kept = append(kept, make([]byte, 16<<10)) }

var sink []byte

// Allocates more than is kept, so that allocs and heap tell different stories.
//
//go:noinline
func waste() { sink = make([]byte, 64<<10) }

func contend() {
	var mutex sync.Mutex
	var done sync.WaitGroup
	for range 4 {
		done.Add(1)
		go func() {
			defer done.Done()
			for range 5 {
				hold(&mutex)
			}
		}()
	}
	done.Wait()
}

//go:noinline
func hold(mutex *sync.Mutex) {
	mutex.Lock()
	time.Sleep(time.Millisecond)
	mutex.Unlock()
}

// Leaves a goroutine behind that nobody can ever wake.
func abandon() {
	answer := make(chan int)
	go func() { answer <- 1 }()
	runtime.Gosched()
}
