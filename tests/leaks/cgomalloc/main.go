// Memory of a C library that is not freed: no Go profile can show it.
package main

/*
#include <stdlib.h>
#include <string.h>
static void *decode(size_t n) { void *image = malloc(n); if (image) memset(image, 1, n); return image; }
*/
import "C"

import (
	"time"
	"unsafe"

	"oomwatch.example/leaks/rig"
)

func main() {
	rig.Run(10*time.Millisecond, func(leak bool) {
		image := decode()
		if !leak {
			C.free(image)
		}
	})
}

func decode() unsafe.Pointer { return C.decode(64 << 10) }
