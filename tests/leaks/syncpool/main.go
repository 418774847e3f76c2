// A pooled buffer whose bytes are handed to a cache: it can never be put back, and the pool makes a new one each time.
package main

import (
	"bytes"
	"sync"
	"time"

	"oomwatch.example/leaks/rig"
)

var (
	buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}
	pages   = map[int][]byte{}
	chunk   = bytes.Repeat([]byte("<li>item</li>\n"), 4096)
)

func main() {
	page := 0
	rig.Run(10*time.Millisecond, func(leak bool) {
		if leak {
			page++
			pages[page] = render(page).Bytes()
		} else {
			buffers.Put(render(page))
		}
	})
}

func render(page int) *bytes.Buffer {
	buffer := buffers.Get().(*bytes.Buffer)
	buffer.Reset()
	buffer.WriteByte(byte(page))
	buffer.Write(chunk)
	return buffer
}
