// An app whose own pages are charged to its cgroup: it maps a file and reads all over it, as a program runs all over its code,
// sends StatsD, serves pprof and takes anonymous memory until the kernel has only the mapped pages left to take back.
//
//	frozen FILE freeze|copy|scan|idle FILE_MIB GROW_MIB
//
// It says where its pprof is and begins when it is told where StatsD goes. The other modes are healthy and only look alike.
package main

import (
	"fmt"
	"hash/crc32"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const page = 4096

// What was read: without a use of it nothing would be read.
var sum atomic.Int64

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func mapped(name string, mib, protection int) []byte {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for n := range mib {
		block[0] = byte(n)
		if _, err := file.Write(block); err != nil {
			log.Fatal(err)
		}
	}
	if err := file.Sync(); err != nil {
		log.Fatal(err)
	}
	pages, err := syscall.Mmap(int(file.Fd()), 0, mib<<20, protection, syscall.MAP_PRIVATE)
	if err != nil {
		log.Fatal(err)
	}
	// No reading ahead: code is run here and there.
	if err := syscall.Madvise(pages, syscall.MADV_RANDOM); err != nil {
		log.Fatal(err)
	}
	return pages
}

// work does a job: reads the pages of its code, and says so.
func work(pages []byte, say func()) {
	for {
		for at := 0; at < len(pages); at += page {
			sum.Add(int64(pages[at]))
		}
		say()
		time.Sleep(10 * time.Millisecond)
	}
}

// scan is a healthy database: it reads all over a mapped file that is larger than the limit, and answers all the time.
func scan(pages []byte, say func()) {
	for n := 0; ; n++ {
		sum.Add(int64(pages[rand.IntN(len(pages)/page)*page]))
		if n%16 == 0 {
			say()
		}
	}
}

// copies is healthy too: it reads a large file over and over, which fills the limit with page cache.
func copies(name string, say func()) {
	block := make([]byte, 1<<20)
	for {
		file, err := os.Open(name)
		if err != nil {
			log.Fatal(err)
		}
		for {
			n, err := file.Read(block)
			if err != nil {
				break
			}
			crc32.ChecksumIEEE(block[:n])
			say()
		}
		file.Close()
	}
}

// grow takes anonymous memory off Go's heap: nothing of it is ever collected, and no collection comes in between.
func grow(mib int) {
	taken, err := syscall.Mmap(-1, 0, mib<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		log.Fatal(err)
	}
	for at := 0; at < len(taken); at += page {
		taken[at] = 1
		if at%(1<<20) == 0 {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func main() {
	name, mode := os.Args[1], os.Args[2]
	protection := syscall.PROT_READ
	if mode == "freeze" {
		// The kernel keeps pages that are run for longer.
		protection |= syscall.PROT_EXEC
	}
	pages := mapped(name, number(os.Args[3]), protection)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(listener, nil)) }()
	fmt.Printf("pprof=http://%s/debug/pprof\n", listener.Addr())
	var address string
	fmt.Scanln(&address)
	out, err := net.Dial("udp", address)
	if err != nil {
		log.Fatal(err)
	}
	say := func() { fmt.Fprint(out, "app.jobs:1|c") }
	switch mode {
	case "copy":
		go copies(name, say)
	case "scan":
		go scan(pages, say)
	case "idle":
		// It works for as long as makes it known as one that speaks, and then has nothing to say.
		for range 160 {
			say()
			time.Sleep(50 * time.Millisecond)
		}
		go scan(pages, func() {})
	default:
		for range 2 {
			go work(pages, say)
		}
		// Time to be known as one that speaks.
		time.Sleep(8 * time.Second)
		grow(number(os.Args[4]))
	}
	select {}
}
