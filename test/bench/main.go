// Command bench measures enisle beside what the machine can do, in one run, and
// prints ratios: machines differ and are noisy, ratios less so.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	bin := flag.String("enisle", "bin/enisle", "the program to measure")
	size := flag.Int64("size", 8<<30, "bytes of the large file")
	rounds := flag.Int("rounds", 3, "rounds; medians are printed")
	files := flag.Int("files", 100_000, "small files of the largest set")
	dir := flag.String("dir", "", "where to work; default: a temporary directory")
	flag.Parse()
	if err := run(*bin, *dir, *size, *rounds, *files); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var cryptoReader = rand.NewChaCha8([32]byte([]byte(time.Now().Format("2006-01-02 15:04:05.000000000 -0700"))[:32]))

func blocks(st os.FileInfo) int64 { return st.Sys().(*syscall.Stat_t).Blocks * 512 }

// measure is what one command took.
type measure struct {
	wall    time.Duration
	rss     int64 // bytes, at most
	written int64 // bytes that reached the block layer
	grown   int64 // bytes of disk it took at most, where that was asked for
}

func run(bin, dir string, size int64, rounds, files int) (err error) {
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if dir, err = os.MkdirTemp(dir, "enisle-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{bin: bin, dir: dir, size: size}
	if err := b.setUp(); err != nil {
		return err
	}
	all := map[string][]measure{}
	for n := range rounds {
		if err := b.round(n, all); err != nil {
			return err
		}
	}
	b.print(all, rounds)
	if err := os.RemoveAll(b.path("payload")); err != nil {
		return err
	}
	if len(all["hauler save"]) == 0 {
		fmt.Println("\nhauler is not installed here: not compared")
	}
	return errors.Join(b.unchanged(min(size, 2<<30)), b.compression(1<<30), b.scale(files))
}

type bench struct {
	bin, dir string
	size     int64
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) cmd(args ...string) *exec.Cmd {
	c := exec.Command(b.bin, args...)
	c.Dir = b.dir
	return c
}

func (b *bench) must(args ...string) error {
	if out, err := b.cmd(args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// setUp makes the payload and a low site that holds it.
func (b *bench) setUp() error {
	if err := randomFile(b.path("payload"), b.size); err != nil {
		return err
	}
	const request = "name: bench\nbring:\n  files: [ {path: payload, as: model/payload} ]\n"
	if err := os.WriteFile(b.path("enisle.yaml"), []byte(request), 0o600); err != nil {
		return err
	}
	if err := b.pairUp(); err != nil {
		return err
	}
	return b.must("-C", "low", "collect", "-q")
}

// time runs a command from cold caches, as far as that can be had.
func (b *bench) time(c *exec.Cmd) (measure, error) {
	settle()
	began := time.Now()
	out, err := c.CombinedOutput()
	if err != nil {
		return measure{}, fmt.Errorf("%v: %w: %s", c.Args, err, out)
	}
	u := c.ProcessState.SysUsage().(*syscall.Rusage)
	return measure{wall: time.Since(began), rss: u.Maxrss << 10, written: u.Oublock * 512}, nil
}

// settle writes everything back first, and drops caches where that is allowed,
// so that every command begins alike.
func settle() {
	syscall.Sync()
	// Not allowed to everybody; then all commands run warm, which is fair too.
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200)
}

// step is one command that is measured.
type step struct {
	name, grows string // grows is where what it writes stands
	cmd         *exec.Cmd
}

// hauler are the steps of the peer that does most nearly the same.
func (b *bench) hauler() []step {
	at := func(args ...string) *exec.Cmd { return exec.Command("hauler", append([]string{"store"}, args...)...) }
	return []step{
		{"hauler save", "none", exec.Command("sh", "-c", "rm -rf h h2 haul.tar.zst && hauler store add file payload -s h && hauler store save -f haul.tar.zst -s h")},
		{"hauler load", "none", at("load", "-f", "haul.tar.zst", "-s", "h2")},
	}
}

func (b *bench) round(n int, all map[string][]measure) error {
	media := fmt.Sprintf("media-%d", n)
	steps := []step{
		{"cp + fsync", "none", exec.Command("sh", "-c", "cp payload copy && sync copy")},
		{"pack", ".", b.cmd("-C", "low", "pack", "--to", media, "-q")},
		{"cp + cold read", "none", exec.Command("sh", "-c", "cp payload copy2 && sync copy2 && dd if=copy2 of=/dev/null bs=4M iflag=direct 2>/dev/null && rm copy2")},
		{"pack, read back", "none", b.cmd("-C", "low", "pack", "--to", media+"-proven", "--read-back", "-q")},
		{"sha256sum", "none", exec.Command("sh", "-c", "sha256sum "+media+"/volume-*")},
		{"verify", "none", b.cmd("verify", media, "--site", "high", "-q")},
		{"cp + fsync 2", "none", exec.Command("sh", "-c", "cp "+media+"/volume-* copies/ && sync copies/* && rm copies/*")},
		{"import", "high", b.cmd("-C", "high", "import", media, "-q")},
	}
	if err := os.MkdirAll(b.path("copies"), 0o755); err != nil {
		return err
	}
	// Hauler is measured where it is installed (hauler.dev/go/hauler/v2).
	if _, err := exec.LookPath("hauler"); err == nil {
		steps = append(steps, b.hauler()...)
	}
	for _, s := range steps {
		s.cmd.Dir = b.dir
		var m measure
		grown, err := b.growth(s.grows, func() (err error) { m, err = b.time(s.cmd); return err })
		m.grown = grown
		if err != nil {
			return err
		}
		all[s.name] = append(all[s.name], m)
		// What is not needed again makes room: a medium of any size is on disk six times.
		for _, f := range []string{"copy", media + "-proven"} {
			if err := os.RemoveAll(b.path(f)); err != nil {
				return err
			}
		}
	}
	// The next round imports the same content again: let it begin empty.
	blobs, err := filepath.Glob(b.path("high/quarantine/sha256/*"))
	if err != nil {
		return err
	}
	for _, f := range append(blobs, b.path(media), b.path("copies")) {
		if err := os.RemoveAll(f); err != nil {
			return err
		}
	}
	return nil
}

func median(all []measure, of func(measure) float64) float64 {
	v := make([]float64, 0, len(all))
	for _, m := range all {
		v = append(v, of(m))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func (b *bench) print(all map[string][]measure, rounds int) {
	wall := func(name string) float64 {
		return median(all[name], func(m measure) float64 { return m.wall.Seconds() })
	}
	fmt.Printf("%d bytes, medians of %d rounds\n\n%-16s %8s %9s %9s %9s %9s  %s\n", b.size, rounds, "", "seconds", "MB/s", "RSS MiB", "written", "disk", "ratio of speed")
	for _, row := range []struct{ name, peer string }{{"cp + fsync", ""}, {"pack", "cp + fsync"}, {"cp + cold read", ""}, {"pack, read back", "cp + cold read"}, {"cp + fsync 2", ""}, {"import", "cp + fsync 2"}, {"sha256sum", ""}, {"verify", "sha256sum"}, {"hauler save", "pack"}, {"hauler load", "import"}} {
		if len(all[row.name]) == 0 {
			continue
		}
		s := wall(row.name)
		rss := median(all[row.name], func(m measure) float64 { return float64(m.rss) }) / (1 << 20)
		written := median(all[row.name], func(m measure) float64 { return float64(m.written) }) / float64(b.size)
		disk := ""
		if grown := median(all[row.name], func(m measure) float64 { return float64(m.grown) }); grown > 0 {
			disk = fmt.Sprintf("%.3fx", grown/float64(b.size))
		}
		ratio := ""
		if row.peer != "" {
			ratio = fmt.Sprintf("%.2f of %s", wall(row.peer)/s, row.peer)
		}
		fmt.Printf("%-16s %8.2f %9.0f %9.0f %8.3fx %9s  %s\n", row.name, s, float64(b.size)/1e6/s, rss, written, disk, ratio)
	}
}
