// Sixteen bytes that keep the 64 KiB they were cut from.
package main

import (
	"time"

	"oomwatch.example/leaks/rig"
)

var headers [][]byte

func main() {
	rig.Run(10*time.Millisecond, func(leak bool) {
		header := readHeader()
		if !leak {
			header = append([]byte(nil), header...)
			headers = headers[:0]
		}
		headers = append(headers, header)
	})
}

func readHeader() []byte {
	message := make([]byte, 64<<10)
	rig.Touch(message)
	return message[:16]
}
