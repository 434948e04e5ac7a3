// Command mirror measures what serving costs, beside nginx with static files and the
// registry of the distribution project, in one run: seconds of CPU for a GiB of a large
// blob, requests a second and CPU for each of a small document, and memory.
//
// It needs nginx and wrk (Debian packages) and fetches the registry from the module proxy.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"enisle/test/bench/rig"
)

const registryModule = "github.com/distribution/distribution/v3/cmd/registry@v3.1.2"

func main() {
	bin := flag.String("enisle", "bin/enisle", "the program to measure")
	size := flag.Int64("size", 1<<30, "bytes of the large blob")
	rounds := flag.Int("rounds", 3, "rounds; medians are printed")
	flag.Parse()
	if err := run(*bin, *size, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench-mirror:", err)
		os.Exit(1)
	}
}

// server is one of those that are measured.
type server struct {
	name           string
	cmd            *exec.Cmd
	blob, manifest string // addresses
}

func run(bin string, size int64, rounds int) (err error) {
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	for _, program := range []string{"nginx", "wrk"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: apt-get install nginx-light wrk", program)
		}
	}
	dir, err := os.MkdirTemp("", "enisle-bench-mirror-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's workers are another user
		return err
	}
	all, stop, err := start(dir, bin, size)
	defer stop()
	if err != nil {
		return err
	}
	return measure(all, size, rounds)
}

// start makes the content, brings it to the three servers, and starts them.
func start(dir, bin string, size int64) (all []*server, stop func(), err error) {
	var running []*exec.Cmd
	stop = func() {
		for _, c := range running {
			_ = c.Process.Signal(os.Interrupt)
			_ = c.Wait() // it was told to end
		}
	}
	begin := func(c *exec.Cmd) error {
		c.Dir = dir
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			return err
		}
		running = append(running, c)
		return nil
	}
	registry, err := install(registryModule)
	if err != nil {
		return nil, stop, err
	}
	layer := filepath.Join(dir, "layer.tar")
	digest, total, err := makeLayer(layer, size)
	if err != nil {
		return nil, stop, err
	}
	ports, err := rig.Free(3)
	if err != nil {
		return nil, stop, err
	}
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}, cache: {blobdescriptor: inmemory}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), ports[0])
	if err := os.WriteFile(filepath.Join(dir, "registry.yml"), []byte(conf), 0o600); err != nil {
		return nil, stop, err
	}
	dist := exec.Command(registry, "serve", "registry.yml")
	dist.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := begin(dist); err != nil {
		return nil, stop, err
	}
	manifest, mdigest, err := push(ports[0], layer, digest, total)
	if err != nil {
		return nil, stop, err
	}
	if err := rig.Cross(dir, bin, "name: bench\ntarget: {os: linux, arch: amd64}\nbring:\n  oci: [ \""+ports[0]+"/bench/app:1\" ]\n"); err != nil {
		return nil, stop, err
	}
	own := exec.Command(bin, "-C", "high", "serve", "--listen", ports[1], "-q")
	if err := begin(own); err != nil {
		return nil, stop, err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o644); err != nil {
		return nil, stop, err
	}
	text := fmt.Sprintf("worker_processes 2;\ndaemon off;\npid %[1]s/nginx.pid;\nerror_log /dev/null;\nevents {}\nhttp { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; server { listen %[2]s; root %[1]s; } }\n", dir, ports[2])
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(text), 0o600); err != nil {
		return nil, stop, err
	}
	if err := os.Chmod(layer, 0o644); err != nil {
		return nil, stop, err
	}
	static := exec.Command("nginx", "-c", filepath.Join(dir, "nginx.conf"), "-e", os.DevNull)
	if err := begin(static); err != nil {
		return nil, stop, err
	}
	at := func(port, name string) (blob, manifest string) {
		return "http://" + port + "/v2/" + name + "/blobs/" + digest, "http://" + port + "/v2/" + name + "/manifests/" + mdigest
	}
	d := &server{name: "distribution", cmd: dist}
	d.blob, d.manifest = at(ports[0], "bench/app")
	e := &server{name: "enisle", cmd: own}
	e.blob, e.manifest = at(ports[1], "bench/app")
	n := &server{"nginx", static, "http://" + ports[2] + "/layer.tar", "http://" + ports[2] + "/manifest.json"}
	all = []*server{e, n, d}
	for _, s := range all {
		if err := rig.Answers(s.manifest); err != nil {
			return nil, stop, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return all, stop, nil
}

func install(module string) (string, error) {
	path, version, _ := strings.Cut(module, "@")
	bin, err := filepath.Abs(filepath.Join(".cache", "tools", filepath.Base(path)+"-"+version))
	if err != nil {
		return "", err
	}
	program := filepath.Join(bin, filepath.Base(path))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	cmd := exec.Command("go", "install", module)
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s cannot be fetched: %w: %s", path, err, out)
	}
	return program, nil
}

// makeLayer writes a tar with one file of random bytes.
func makeLayer(name string, size int64) (digest string, total int64, err error) {
	f, err := os.Create(name)
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	t := tar.NewWriter(io.MultiWriter(f, h))
	err = t.WriteHeader(&tar.Header{Name: "data.bin", Mode: 0o644, Size: size, Typeflag: tar.TypeReg})
	if err == nil {
		_, err = io.CopyN(t, rand.NewChaCha8([32]byte{1}), size)
	}
	err = errors.Join(err, t.Close())
	st, serr := f.Stat()
	if err = errors.Join(err, serr, f.Close()); err != nil {
		return "", 0, err
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), st.Size(), nil
}

// push uploads an image of one layer and returns its manifest.
func push(host, layer, digest string, total int64) (manifest []byte, name string, err error) {
	base := "http://" + host + "/v2/bench/app/"
	if err := rig.Answers("http://" + host + "/v2/"); err != nil {
		return nil, "", err
	}
	config := []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["` + digest + `"]}}`)
	cdigest := fmt.Sprintf("sha256:%x", sha256.Sum256(config))
	blob := func(digest string, body io.Reader, n int64) error {
		res, err := http.Post(base+"blobs/uploads/", "", nil)
		if err != nil {
			return err
		}
		_ = res.Body.Close() // nothing is read from it
		to := res.Header.Get("Location")
		if strings.HasPrefix(to, "/") {
			to = "http://" + host + to
		}
		return put(to+"&digest="+digest, "application/octet-stream", body, n)
	}
	f, err := os.Open(layer)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = f.Close() }() // only read from
	if err := errors.Join(blob(digest, f, total), blob(cdigest, bytes.NewReader(config), int64(len(config)))); err != nil {
		return nil, "", err
	}
	manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		cdigest, len(config), digest, total)
	return manifest, fmt.Sprintf("sha256:%x", sha256.Sum256(manifest)), put(base+"manifests/1", "application/vnd.oci.image.manifest.v1+json", bytes.NewReader(manifest), int64(len(manifest)))
}

func put(to, kind string, body io.Reader, n int64) error {
	req, err := http.NewRequest(http.MethodPut, to, body)
	if err != nil {
		return err
	}
	req.ContentLength = n
	req.Header.Set("Content-Type", kind)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close() // nothing is read from it
	if res.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s: %s", to, res.Status)
	}
	return nil
}

var perSecond = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)

func measure(all []*server, size int64, rounds int) error {
	type sums struct {
		cpu, wall []float64 // seconds a GiB
		rate, us  []float64 // requests a second, CPU microseconds each
		memory    int64
	}
	got := map[string]*sums{}
	for range rounds {
		for _, s := range all {
			g := got[s.name]
			if g == nil {
				g = &sums{}
				got[s.name] = g
			}
			before := rig.CPU(s.cmd.Process.Pid)
			began := time.Now()
			n, err := fetch(s.blob)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			wall := time.Since(began)
			after, memory := rig.CPU(s.cmd.Process.Pid), rig.Memory(s.cmd.Process.Pid)
			gib := float64(n) / (1 << 30)
			g.cpu, g.wall = append(g.cpu, (after-before).Seconds()/gib), append(g.wall, wall.Seconds()/gib)
			before = after
			out, err := exec.Command("wrk", "-t2", "-c32", "-d4s", "-H", "Accept: application/vnd.oci.image.manifest.v1+json", s.manifest).CombinedOutput()
			m := perSecond.FindSubmatch(out)
			if err != nil || m == nil || bytes.Contains(out, []byte("Non-2xx")) {
				return fmt.Errorf("%s: wrk: %w: %s", s.name, err, out)
			}
			rate, err := strconv.ParseFloat(string(m[1]), 64)
			if err != nil {
				return err
			}
			after = rig.CPU(s.cmd.Process.Pid)
			g.rate, g.us = append(g.rate, rate), append(g.us, (after-before).Seconds()*1e6/(rate*4))
			g.memory = max(g.memory, memory, rig.Memory(s.cmd.Process.Pid))
		}
	}
	fmt.Printf("a blob of %d MiB and its manifest, %d rounds, medians\n\n%-14s %14s %14s %12s %14s %10s\n", size>>20, rounds, "", "CPU s/GiB", "wall s/GiB", "requests/s", "CPU µs each", "MB")
	for _, s := range all {
		g := got[s.name]
		fmt.Printf("%-14s %14.3f %14.3f %12.0f %14.1f %10d\n", s.name, rig.Median(g.cpu), rig.Median(g.wall), rig.Median(g.rate), rig.Median(g.us), g.memory/1e6)
	}
	e, n, d := got["enisle"], got["nginx"], got["distribution"]
	fmt.Printf("\nlarge blobs, bytes a CPU second: %.2f of nginx, %.2f of distribution\nsmall documents, requests a CPU second: %.2f of nginx, %.1f of distribution\n",
		rig.Median(n.cpu)/rig.Median(e.cpu), rig.Median(d.cpu)/rig.Median(e.cpu), rig.Median(n.us)/rig.Median(e.us), rig.Median(d.us)/rig.Median(e.us))
	return nil
}

// fetch reads all of an address. It is this process that reads, so that what is measured
// is the server alone.
func fetch(at string) (int64, error) {
	res, err := http.Get(at)
	if err != nil {
		return 0, err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{res.Body}, make([]byte, 1<<20))
	if err = errors.Join(err, res.Body.Close()); err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return n, err
}
