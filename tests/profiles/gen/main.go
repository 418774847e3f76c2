// Command gen writes heap and goroutine profiles of several shapes, each before and after, into the folder it is given.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"example.com/shop/cache"
	"example.org/metrics/statsd"
)

var (
	out     string
	clients []*statsd.Client
	kept    [][]byte
	texts   []string
	tree    *node
)

type node struct {
	left, right *node
	load        [4096]byte
}

type grower struct{ pages [][]byte }

//go:noinline
func (g *grower) grow(n int) { g.pages = append(g.pages, make([]byte, n)) }

//go:noinline
func handleJob(n int) {
	for range n {
		clients = append(clients, statsd.New())
	}
}

// small is inlined into its caller, and so is what it calls.
func small(n int) []byte { return smaller(n) }

func smaller(n int) []byte { return make([]byte, n) }

//go:noinline
func inlined(n int) {
	for range n {
		kept = append(kept, small(64<<10))
	}
}

//go:noinline
func stdlib(n int) {
	for range n {
		var b bytes.Buffer
		b.Grow(32 << 10)
		b.WriteString("x")
		kept = append(kept, b.Bytes())
		texts = append(texts, strings.Repeat("y", 16<<10))
	}
}

type store interface {
	Size() int
	Put([]byte) (int, error)
}

type shelf struct{ all [][]byte }

func (s *shelf) Size() int { return len(s.all) }

func (s *shelf) Put(b []byte) (int, error) {
	s.all = append(s.all, b)
	return len(b), nil
}

// fill is instantiated for an interface, whose methods then stand in its name.
//
//go:noinline
func fill[S store](s S, n int) {
	for range n {
		s.Put(make([]byte, 16<<10))
	}
}

func plant(depth int) *node {
	if depth == 0 {
		return nil
	}
	return &node{left: plant(depth - 1), right: plant(depth - 1)}
}

func main() {
	// The default is the subject of the noise floor; a finer one makes many more rows to compare.
	if rate := os.Getenv("GEN_RATE"); rate != "" {
		fmt.Sscan(rate, &runtime.MemProfileRate)
	}
	out = os.Args[1]
	g := &grower{}
	numbers, words := &cache.Cache[int]{}, &cache.Cache[string]{}
	grow := g.grow
	closure := func(n int) {
		func() { kept = append(kept, make([]byte, n)) }()
	}

	shape("leak", func() { handleJob(20) }, func() { handleJob(200) })
	shape("closure", func() { closure(1 << 20) }, func() {
		for range 30 {
			closure(1 << 20)
		}
	})
	shape("generics", func() { numbers.Put(1 << 10) }, func() {
		for range 40 {
			numbers.Put(1 << 16)
			words.Put(1 << 14)
		}
	})
	shape("inlined", func() { inlined(3) }, func() { inlined(300) })
	shape("stdlib", func() { stdlib(10) }, func() { stdlib(400) })
	shape("method", func() { grow(1 << 18) }, func() {
		for range 100 {
			grow(1 << 18)
		}
	})
	shape("recursion", func() { tree = plant(5) }, func() { tree = plant(12) })
	shape("shrink", func() {
		for range 50 {
			words.Put(1 << 15)
		}
	}, func() {
		words.Drop()
		g.pages = nil
		inlined(100)
	})
	var full store = &shelf{}
	shape("constrained", func() { fill(full, 3) }, func() { fill(full, 500) })
	same := "same"
	write(same + "-base")
	copyFile(same+"-base", same+"-now")
	runtime.KeepAlive(clients)
	runtime.KeepAlive(kept)
	runtime.KeepAlive(texts)
	runtime.KeepAlive(tree)
	runtime.KeepAlive(numbers)
	runtime.KeepAlive(full)
}

func shape(name string, before, after func()) {
	before()
	write(name + "-base")
	after()
	write(name + "-now")
}

// write collects first, because a heap profile is as of the last collection, and lets new goroutines reach their wait.
func write(name string) {
	time.Sleep(20 * time.Millisecond)
	runtime.GC()
	runtime.GC()
	for _, kind := range []string{"heap", "goroutine"} {
		file, err := os.Create(filepath.Join(out, name+"."+kind))
		check(err)
		check(pprof.Lookup(kind).WriteTo(file, 0))
		check(file.Close())
	}
}

func copyFile(from, to string) {
	for _, kind := range []string{".heap", ".goroutine"} {
		data, err := os.ReadFile(filepath.Join(out, from+kind))
		check(err)
		check(os.WriteFile(filepath.Join(out, to+kind), data, 0o600))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
