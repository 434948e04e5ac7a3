package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// pairUp makes a low and a high site that trust each other, in a directory of the
// bench's own.
func (b *bench) pairUp() error {
	if err := b.must("-C", "low", "init", "--side", "low"); err != nil {
		return err
	}
	if err := b.must("-C", "high", "init", "--side", "high"); err != nil {
		return err
	}
	for _, p := range [][2]string{{"high", "low"}, {"low", "high"}} {
		out, err := b.cmd("-C", p[0], "identity", "-q").Output()
		if err != nil {
			return err
		}
		if err := os.WriteFile(b.path("id"), out, 0o600); err != nil {
			return err
		}
		if err := b.must("-C", p[1], "pair", "id"); err != nil {
			return err
		}
	}
	return nil
}

// fresh returns a bench in a directory of its own below this one's.
func (b *bench) fresh(name, request string) (*bench, error) {
	n := &bench{bin: b.bin, dir: b.path(name), size: b.size}
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return nil, err
	}
	return n, errors.Join(os.WriteFile(n.path("enisle.yaml"), []byte("name: bench\nbring:\n  files: [ "+request+" ]\n"), 0o600), n.pairUp())
}

func (b *bench) bytes(dir string) (n int64) {
	_ = filepath.WalkDir(b.path(dir), func(_ string, d fs.DirEntry, err error) error {
		if st, e := d.Info(); err == nil && e == nil && d.Type().IsRegular() {
			n += st.Size()
		}
		return nil
	})
	return n
}

// unchanged packs and imports a set of which nothing is new.
func (b *bench) unchanged(size int64) error {
	n, err := b.fresh("unchanged", "{path: payload, as: model/payload}")
	if err != nil {
		return err
	}
	if err := randomFile(n.path("payload"), size); err != nil {
		return err
	}
	for _, c := range []string{"-C low collect -q", "-C low pack --to one -q", "-C high import one -q", "-C high receipt -q --to r.json", "-C low receipt add r.json -q"} {
		if err := n.must(strings.Fields(c)...); err != nil {
			return err
		}
	}
	pack, err := n.time(n.cmd("-C", "low", "pack", "--to", "two", "-q"))
	if err != nil {
		return err
	}
	imp, err := n.time(n.cmd("-C", "high", "import", "two", "-q"))
	fmt.Printf("\nunchanged set of %d bytes: %d bytes (%.4f %%), pack %.2f s, import %.2f s\n", size, n.bytes("two"), 100*float64(n.bytes("two"))/float64(size), pack.wall.Seconds(), imp.wall.Seconds())
	return errors.Join(err, os.RemoveAll(n.dir))
}

// compression packs bf16 weights of a normal distribution.
func (b *bench) compression(size int64) error {
	n, err := b.fresh("weights", "{path: weights, as: model/weights}")
	if err != nil {
		return err
	}
	if err := weights(n.path("weights"), size); err != nil {
		return err
	}
	if err := n.must("-C", "low", "collect", "-q"); err != nil {
		return err
	}
	m, err := n.time(n.cmd("-C", "low", "pack", "--to", "one", "--compress", "-q"))
	if err != nil {
		return err
	}
	in, err := n.time(n.cmd("-C", "high", "import", "one", "-q"))
	fmt.Printf("bf16 weights, sigma 0.02, %d bytes: %.3f of the size, pack %.0f MB/s, import %.0f MB/s, sealing included\n(go test -bench Encode ./internal/carry/planes: the compression alone, on one core)\n",
		size, float64(n.bytes("one"))/float64(size), float64(size)/1e6/m.wall.Seconds(), float64(size)/1e6/in.wall.Seconds())
	return errors.Join(err, os.RemoveAll(n.dir))
}

func weights(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var b []byte
	for range 8 << 20 {
		b = binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(float32(rng.NormFloat64()*0.02))>>16))
	}
	for done := int64(0); done < size && err == nil; done += int64(len(b)) {
		_, err = f.Write(b[:min(int64(len(b)), size-done)])
	}
	return errors.Join(err, f.Close())
}

// scale packs and imports more and more small files, in artifacts of 1,000.
func (b *bench) scale(most int) error {
	fmt.Printf("\nsmall files   collect       pack     import   ms per file\n")
	for files := 100; files <= most; files *= 10 {
		var request []string
		for d := 0; d*1000 < files; d++ {
			request = append(request, fmt.Sprintf("{path: d/%04d, as: files/%04d}", d, d))
		}
		n, err := b.fresh("scale", strings.Join(request, ", "))
		if err != nil {
			return err
		}
		for i := range files {
			dir := n.path(fmt.Sprintf("d/%04d", i/1000))
			if i%1000 == 0 {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return err
				}
			}
			if err := os.WriteFile(fmt.Sprintf("%s/%03d.txt", dir, i%1000), []byte(strings.Repeat(fmt.Sprintf("file %d\n", i), 100)), 0o600); err != nil {
				return err
			}
		}
		var took []float64
		for _, c := range []string{"-C low collect -q", "-C low pack --to one -q", "-C high import one -q"} {
			m, err := n.time(n.cmd(strings.Fields(c)...))
			if err != nil {
				return err
			}
			took = append(took, m.wall.Seconds()*1000/float64(files))
		}
		fmt.Printf("%11d %9.3f %10.3f %10.3f\n", files, took[0], took[1], took[2])
		if err := os.RemoveAll(n.dir); err != nil {
			return err
		}
	}
	return nil
}

// growth is how much the files of a directory grew to at most while do ran, in
// bytes of disk.
func (b *bench) growth(dir string, do func() error) (int64, error) {
	used := func() (n int64) {
		_ = filepath.WalkDir(b.path(dir), func(at string, d fs.DirEntry, _ error) error {
			if st, err := os.Lstat(at); err == nil && st.Mode().IsRegular() {
				n += blocks(st)
			}
			return nil
		})
		return n
	}
	began, peak := used(), int64(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				peak = max(peak, used())
			}
		}
	}()
	err := do()
	close(stop)
	<-done
	return max(peak, used()) - began, err
}

func randomFile(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, cryptoReader, size)
	return errors.Join(err, f.Sync(), f.Close())
}
