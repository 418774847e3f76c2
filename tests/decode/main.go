// Command decode reads bodies as oomwatch sent them with Datadog's own types and prints what they read as JSON, one line a
// file. The file's name tells what is in it: it holds "series" or "sketches".
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/DataDog/agent-payload/v5/gogen"
	"github.com/klauspost/compress/zstd"
)

func main() {
	out := json.NewEncoder(os.Stdout)
	for _, file := range os.Args[1:] {
		read, err := decode(file)
		if err == nil {
			err = out.Encode(read)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "decode %s: %v\n", file, err)
			os.Exit(1)
		}
	}
}

func decode(file string) (any, error) {
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	reader, err := zstd.NewReader(nil)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	plain, err := reader.DecodeAll(body, nil)
	if err != nil {
		return nil, err
	}
	name := filepath.Base(file)
	switch {
	case strings.Contains(name, "series"):
		var payload gogen.MetricPayload
		err = payload.Unmarshal(plain)
		return payload.Series, err
	case strings.Contains(name, "sketches"):
		var payload gogen.SketchPayload
		err = payload.Unmarshal(plain)
		return payload.Sketches, err
	}
	return nil, fmt.Errorf("the name tells neither series nor sketches")
}
