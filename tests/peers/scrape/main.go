// Command scrape reads exposition text as Prometheus does, with its own parser: FORMAT ("text" or "openmetrics") and a file.
// It prints one JSON object a series. What the parser refuses ends it with 1.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

func main() {
	if err := read(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "scrape: %v\n", err)
		os.Exit(1)
	}
}

func read(format, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	kind := "text/plain; version=0.0.4"
	if format == "openmetrics" {
		kind = "application/openmetrics-text; version=1.0.0"
	}
	parser, err := textparse.New(text, kind, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var series labels.Labels
		parser.Labels(&series)
		_, _, value := parser.Series()
		if err := out.Encode(map[string]any{"labels": series.Map(), "value": fmt.Sprint(value)}); err != nil {
			return err
		}
	}
}
