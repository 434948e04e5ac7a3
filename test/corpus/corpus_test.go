package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"enisle/internal/app"
	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

type blob struct{ *bytes.Reader }

func (b blob) Close() error { return nil }
func (b blob) Size() int64  { return b.Reader.Size() }

// What the real libraries write passes, every file of it.
func TestHonestFilesPass(t *testing.T) {
	f, err := os.Open("benign/manifest.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r := inspect.Runner{Scanners: app.Scanners()}
	files, bad := 0, 0
	for lines := bufio.NewScanner(f); lines.Scan(); files++ {
		var row struct{ File, What, Sha256 string }
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join("benign", row.File))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != row.Sha256 {
			t.Errorf("%s is another file", row.File)
		}
		a := artifact.Artifact{Ref: artifact.Ref{Kind: "model", Name: "m"}, Files: []artifact.File{{Path: row.File, Size: int64(len(b)), Digest: artifact.Sum(b)}}}
		rep, err := r.Inspect(context.Background(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) { return blob{bytes.NewReader(b)}, nil }, func(int64) {})
		if err != nil {
			t.Fatal(err)
		}
		if found := rep.Of(inspect.Refuse); len(found) > 0 {
			bad++
			t.Errorf("%s (%s): %s %s: %s", row.File, row.What, found[0].Rule, found[0].File, found[0].Detail)
		}
	}
	if files < 1500 {
		t.Errorf("only %d files", files)
	}
	t.Logf("%d files, %d refused", files, bad)
}

// What the real libraries write for an attacker is refused, every file of it
// (hostile.py).
func TestHostileFilesAreRefused(t *testing.T) {
	files, err := filepath.Glob("../../internal/judge/inspect/*/testdata/*.*")
	if err != nil || len(files) < 25 {
		t.Fatal(err, files)
	}
	r := inspect.Runner{Scanners: app.Scanners()}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		a := artifact.Artifact{Ref: artifact.Ref{Kind: "model", Name: "m"}, Files: []artifact.File{{Path: filepath.Base(file), Size: int64(len(b)), Digest: artifact.Sum(b)}}}
		rep, err := r.Inspect(context.Background(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) { return blob{bytes.NewReader(b)}, nil }, func(int64) {})
		if err != nil {
			t.Fatal(err)
		}
		if len(rep.Of(inspect.Refuse)) == 0 {
			t.Errorf("%s passes: %+v", file, rep.Findings)
		}
	}
}
