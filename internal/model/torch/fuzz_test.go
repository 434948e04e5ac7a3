package torch_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"enisle/internal/model/torch"
)

// Whatever is read can be copied, and comes to the bytes that its shape gives.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/t24-*.p*")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := read(t, b)
		if err != nil {
			return
		}
		check(t, c)
	})
}

// FuzzPickle is FuzzRead without the need to guess an archive.
func FuzzPickle(f *testing.F) {
	f.Add(pickled(dict(text("w"), floats())))
	f.Add(pickled(dict(text("a"), floats(), text("n"), array("f4", ">", numbers(2), "01234567"))))
	f.Add(pickled(name("torch._utils", "_rebuild_parameter") + "(" + floats() + "\x88" + hooks + "tR"))
	f.Fuzz(func(t *testing.T, pickle string) {
		c, err := read(t, archived(t, file{name: "a/data.pkl", body: pickle}, file{name: "a/data/0", body: "0123456789abcdef"}))
		if err != nil {
			return
		}
		check(t, c)
	})
}

func check(t *testing.T, c *torch.Checkpoint) {
	t.Helper()
	for _, x := range c.Tensors {
		if x.Size() > 1<<24 {
			continue
		}
		n := countWriter(0)
		if err := x.Copy(t.Context(), &n); err != nil {
			t.Errorf("%s: %v", x.Name, err)
		}
		if int64(n) != x.Size() {
			t.Errorf("%s: %d bytes of %d", x.Name, n, x.Size())
		}
	}
}

type countWriter int64

func (c *countWriter) Write(b []byte) (int, error) {
	*c += countWriter(len(b))
	return len(b), nil
}

var _ io.Writer = (*countWriter)(nil)
