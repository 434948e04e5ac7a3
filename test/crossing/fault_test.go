package crossing_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// faults are the calls that a disk may fail, each with an error that it may give.
var faults = [][2]string{ // constant
	{"pwrite64", "ENOSPC"},
	{"pwrite64", "EIO"},
	{"write", "ENOSPC"},
	{"fsync", "EIO"},
	{"fdatasync", "EIO"},
	{"syncfs", "EIO"},
	{"renameat", "EIO"},
	{"renameat", "ENOSPC"},
	{"ftruncate", "EIO"},
	{"fallocate", "ENOSPC"},
	{"mkdirat", "ENOSPC"},
	{"pread64", "EIO"},
}

// A disk that is full or broken fails one call of pack or import, each in turn:
// the run says so, or did not need it; the rerun finishes, and ends where an
// undisturbed run ends. To soak, every call of every kind, else a few.
func TestADiskThatFailsAtAnyCall(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skipf("strace is not here: %v", err)
	}
	most := 3
	if os.Getenv("ENISLE_SOAK") != "" {
		most = 1 << 20
	}
	bin := program(t)
	w := newWorld(t)
	w.request("faults", 9<<20)
	w.collect()
	for _, verb := range []string{"pack", "import"} {
		args := map[string][]string{
			"pack":   {"-C", "low", "pack", "--to", "media", "--media", "4MB", "--parity", "20%", "--spare", "1", "-q"},
			"import": {"-C", "high", "import", "media", "-q"},
		}[verb]
		before := w.save()
		w.run(bin, args)
		want := w.save()
		for _, f := range faults {
			hit := 0
			w.restore(before)
			count := w.calls(bin, args, f[0])
			step := max(1, count/most)
			for n := 1; n <= count; n += step {
				w.restore(before)
				fired, unheard, out, err := w.failing(bin, args, f[0], f[1], n)
				if !fired {
					continue
				}
				hit++
				what := fmt.Sprintf("%s, %s of call %d of %s", verb, f[1], n, f[0])
				// A call of Go's own runtime, to wake itself, was hit: like a kill.
				killed := bytes.Contains(out, []byte("netpollBreak"))
				if err != nil && !killed && !unheard && !bytes.Contains(out, []byte("enisle: ")) {
					t.Errorf("%s: %v: %s", what, err, out)
				}
				if !killed && (bytes.Contains(out, []byte("panic")) || bytes.Contains(out, []byte("fatal error"))) {
					t.Fatalf("%s: %s", what, out)
				}
				w.run(bin, args)
				w.compare(what, want, nil)
				if t.Failed() {
					return
				}
			}
			t.Logf("%s: %s failed with %s at %d of %d calls", verb, f[0], f[1], hit, count)
		}
		w.restore(before)
		w.run(bin, args)
	}
}

// calls counts the calls of one kind that the busiest thread of a run makes.
func (w *world) calls(bin string, args []string, call string) int {
	w.t.Helper()
	_, trace, _ := w.traced(bin, args, "trace="+call)
	most, by := 0, map[string]int{}
	for _, line := range strings.Split(trace, "\n") {
		if pid, _, ok := strings.Cut(line, " "); ok && strings.Contains(line, call+"(") {
			by[pid]++
			most = max(most, by[pid])
		}
	}
	return most
}

// failing runs with one call of each thread failing, and reports whether it came to that,
// and whether it was the one that would have said so.
func (w *world) failing(bin string, args []string, call, with string, n int) (fired, unheard bool, out []byte, err error) {
	w.t.Helper()
	out, trace, err := w.traced(bin, args, fmt.Sprintf("inject=%s:error=%s:when=%d", call, with, n))
	for line := range strings.Lines(trace) {
		fired = fired || strings.Contains(line, "(INJECTED)")
		unheard = unheard || strings.Contains(line, "(INJECTED)") && strings.Contains(line, " write(2,")
	}
	return fired, unheard, out, err
}

func (w *world) traced(bin string, args []string, expression string) (out []byte, trace string, err error) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "trace")
	cmd := exec.Command("strace", append([]string{"-f", "-qq", "-s", "0", "-o", file, "-e", expression, bin}, args...)...)
	cmd.Dir = w.dir
	out, err = cmd.CombinedOutput()
	b, rerr := os.ReadFile(file)
	w.must(rerr)
	return out, string(b), err
}
