// Command judge runs the scanners over files as inspect does, without a site: every
// entry of a directory is one model, a file or a directory of files. It prints a line
// of JSON for each, with what refuses it.
//
//	go run ./test/judge [-kind model] DIR
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"enisle/internal/app"
	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

type blob struct {
	*os.File
	size int64
}

func (b blob) Size() int64 { return b.size }

// verdict is what is said of one model.
type verdict struct {
	Name    string   `json:"name"`
	Refused bool     `json:"refused"`
	Why     []string `json:"why,omitempty"`  // of refusals
	Warn    []string `json:"warn,omitempty"` // of warnings
}

func main() {
	kind := flag.String("kind", "model", "kind of the artifacts")
	flag.Parse()
	entries, err := os.ReadDir(flag.Arg(0))
	out := json.NewEncoder(os.Stdout)
	for _, e := range entries {
		var v verdict
		if v, err = judge(*kind, filepath.Join(flag.Arg(0), e.Name())); err == nil {
			err = out.Encode(v)
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func judge(kind, root string) (v verdict, err error) {
	v.Name = filepath.Base(root)
	a := artifact.Artifact{Ref: artifact.Ref{Kind: kind, Name: "m"}}
	at := map[artifact.Digest]string{}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if rel == "." {
			rel = filepath.Base(p)
		}
		sum := artifact.Sum(b)
		at[sum] = p
		a.Files = append(a.Files, artifact.File{Path: filepath.ToSlash(rel), Size: int64(len(b)), Digest: sum})
		return err
	})
	if err != nil {
		return v, err
	}
	r := inspect.Runner{Scanners: app.Scanners()}
	rep, err := r.Inspect(context.Background(), []artifact.Artifact{a}, func(d artifact.Digest) (inspect.Blob, error) {
		f, err := os.Open(at[d])
		if err != nil {
			return nil, err
		}
		st, err := f.Stat()
		return blob{f, st.Size()}, err
	}, func(int64) {})
	for _, f := range rep.Findings {
		line := f.Scanner + " " + f.Rule + ": " + f.File + ": " + f.Detail
		switch f.Severity {
		case inspect.Refuse:
			v.Why = append(v.Why, line)
		case inspect.Warn:
			v.Warn = append(v.Warn, line)
		case inspect.Info:
		}
	}
	v.Refused = len(v.Why) > 0
	return v, err
}
