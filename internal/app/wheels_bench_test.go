package app

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/vuln"
	"enisle/internal/judge/vuln/vulntest"
)

// benchWheels is how many are inspected.
const benchWheels = 10_000

type benchBlob struct {
	*os.File
	size int64
}

func (b benchBlob) Size() int64 { return b.size }

// BenchmarkWheels inspects 10,000 wheels with 4 to 256 KB of text and matches them against
// 20,000 advisories.
func BenchmarkWheels(b *testing.B) {
	dir := b.TempDir()
	var all []artifact.Artifact
	var total int64
	keep := func(content []byte) artifact.Digest {
		d := artifact.Sum(content)
		if err := os.WriteFile(filepath.Join(dir, d.Hex()), content, 0o600); err != nil {
			b.Fatal(err)
		}
		return d
	}
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("def class return import self value None True for in if else name data list dict string number result error")
	for i := range benchWheels {
		name, version := fmt.Sprintf("requests_utils%d", i), fmt.Sprintf("%d.%d.%d", r.IntN(6), r.IntN(9), r.IntN(20))
		var body strings.Builder
		for n := 4_000 << r.IntN(7); body.Len() < n; {
			body.WriteString(words[r.IntN(len(words))])
			body.WriteByte(" \n"[r.IntN(2)])
			fmt.Fprint(&body, r.IntN(1<<30))
		}
		file, content, err := ecosystemtest.Wheel(name, version, "License-Expression: MIT\n", ecosystemtest.Member{Name: name + "/body.py", Content: body.String()})
		if err != nil {
			b.Fatal(err)
		}
		total += int64(len(content))
		all = append(all, artifact.Artifact{Ref: artifact.Ref{Kind: "pypi", Name: strings.ReplaceAll(name, "_", "-"), Version: version}, Files: []artifact.File{{Path: file, Size: int64(len(content)), Digest: keep(content)}}})
	}
	ecosystems, err := vulntest.Ecosystems()
	if err != nil {
		b.Fatal(err)
	}
	var in, out bytes.Buffer
	if err := vulntest.Export(&in, ecosystems[0], 20_000, time.Now(), r); err != nil {
		b.Fatal(err)
	}
	if _, err := vuln.Build(context.Background(), "PyPI", bytes.NewReader(in.Bytes()), int64(in.Len()), &out); err != nil {
		b.Fatal(err)
	}
	data := artifact.Artifact{Ref: artifact.Ref{Kind: "vulndb", Name: "osv"}, Files: []artifact.File{{Path: "PyPI.osv", Size: int64(out.Len()), Digest: keep(out.Bytes())}}}
	open := func(d artifact.Digest) (inspect.Blob, error) {
		f, err := os.Open(filepath.Join(dir, d.Hex()))
		if err != nil {
			return nil, err
		}
		st, err := f.Stat()
		return benchBlob{f, st.Size()}, err
	}
	b.SetBytes(total)
	for b.Loop() {
		child := &confined{limits: inspect.Limits{Time: time.Minute}}
		i := inspector{&inspect.Runner{Scanners: Scanners(), Limits: child.limits, Elsewhere: child.file}, child, crossing.MalwareSettings{}}
		rep, err := i.Inspect(context.Background(), all, open, func(int64) {})
		if err != nil {
			b.Fatal(err)
		}
		looked, err := i.Lookup(context.Background(), rep, data, open)
		if err != nil {
			b.Fatal(err)
		}
		if bad := rep.Of(inspect.Refuse); len(bad) > 0 || len(looked.Findings) < 10 {
			b.Fatalf("%d vulnerabilities, %+v", len(looked.Findings), bad)
		}
		b.ReportMetric(float64(len(looked.Findings)), "vulnerabilities")
		if err := child.end(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(benchWheels/b.Elapsed().Seconds()*float64(b.N), "wheels/s")
}
