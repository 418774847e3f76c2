// Writes two large heap profiles of one process, base and now: large FOLDER BYTES. Each inflates to about so many bytes.
//
// The stacks are real ones. It type-checks the standard library from source, with every allocation sampled, and keeps what it
// learns; few programs have as many stacks of as many functions.
package main

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
)

// What a record takes, about; the labels stay below.
const perRecord = 68

var kept []*types.Info

func main() {
	runtime.MemProfileRate = 1
	bytes, err := strconv.Atoi(os.Args[2])
	must(err)
	records := bytes / perRecord
	set := token.NewFileSet()
	source := importer.ForCompiler(set, "source", nil)
	wanted := []string{"base", "now"}
	sizes := []int{records * 9 / 10, records}
	must(filepath.WalkDir(filepath.Join(runtime.GOROOT(), "src"), func(dir string, entry os.DirEntry, err error) error {
		if err != nil || !entry.IsDir() || strings.Contains(dir, "testdata") || strings.Contains(dir, "/cmd") {
			return err
		}
		check(set, source, dir)
		if n, _ := runtime.MemProfile(nil, true); len(wanted) > 0 && n >= sizes[0] {
			fmt.Printf("%s: %d records\n", wanted[0], n)
			write(filepath.Join(os.Args[1], wanted[0]))
			wanted, sizes = wanted[1:], sizes[1:]
		}
		if len(wanted) == 0 {
			return filepath.SkipAll
		}
		return nil
	}))
	if len(wanted) > 0 {
		n, _ := runtime.MemProfile(nil, true)
		must(fmt.Errorf("the standard library gave %d records, not %d", n, records))
	}
	runtime.KeepAlive(kept)
}

func check(set *token.FileSet, source types.Importer, dir string) {
	packages, _ := parser.ParseDir(set, dir, func(file os.FileInfo) bool {
		return !strings.HasSuffix(file.Name(), "_test.go")
	}, 0)
	for name, found := range packages {
		var files []*ast.File
		for _, file := range found.Files {
			files = append(files, file)
		}
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
		config := types.Config{Importer: source, FakeImportC: true, Error: func(error) {}}
		// Files of other systems contradict one another, which is as good as any work.
		config.Check(name, set, files, info)
		kept = append(kept, info)
	}
}

func write(path string) {
	runtime.GC()
	file, err := os.Create(path)
	must(err)
	must(pprof.Lookup("heap").WriteTo(file, 0))
	must(file.Close())
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
