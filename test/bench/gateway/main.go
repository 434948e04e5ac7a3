// Command gateway measures what a call costs that goes through the gateway of an island,
// with keys, quotas, the rules of the guard and record on, and with its classifier as well,
// beside Go's bare httputil.ReverseProxy and, where it can be installed, LiteLLM: all in
// front of the same engine, on loopback, in one run.
// What is printed are medians and ratios: CPU of the server for a call and for a chunk of
// a stream, added latency, and the memory of many open streams. Added latency stands beside
// that of a relay that copies bytes from one connection to the other and reads nothing of
// them: less than it no program between two sockets adds on this machine. Servers are asked
// in short turns, of another order each time, and each is compared with the engine in the
// same turn: a machine that is shared has good and bad moments.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"enisle/test/bench/rig"
)

const litellm = "litellm[proxy]==1.81.9"

func main() {
	bin := flag.String("enisle", "bin/enisle", "the program to measure")
	rounds := flag.Int("rounds", 5, "rounds; medians are printed")
	open := flag.Int("open", 5000, "streams that are open at once")
	other := flag.Bool("litellm", true, "measure LiteLLM as well, if it can be installed")
	role := flag.String("role", "", "engine, proxy or copy: what the bench starts itself as")
	listen := flag.String("listen", "", "address of the role")
	to := flag.String("to", "", "address behind the proxy")
	flag.Parse()
	var err error
	switch *role {
	case "engine":
		err = http.ListenAndServe(*listen, http.HandlerFunc(engine))
	case "proxy":
		p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: *to})
		p.FlushInterval = -1
		p.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
		err = http.ListenAndServe(*listen, p)
	case "copy":
		err = relay(*listen, *to)
	default:
		err = run(*bin, *rounds, *open, *other)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-gateway:", err)
		os.Exit(1)
	}
}

// relay copies bytes between its clients and an address, both ways.
func relay(listen, to string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		in, err := l.Accept()
		if err != nil {
			return err
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			_ = in.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				defer func() { _, _ = in.Close(), out.Close() }()
				b := make([]byte, 32<<10) // io.Copy would splice in the kernel
				for {
					n, err := way[0].Read(b)
					if err != nil {
						return
					}
					if _, err := way[1].Write(b[:n]); err != nil {
						return
					}
				}
			}()
		}
	}
}

// rulesOnly is the standard policy of the guard without its classifier.
const rulesOnly = `format: enisle-guard-policy/1
name: rules
default: {mode: block, canary: true, spotlight: delimit, rules: {classifier: "off"}}
`

// answer is about what a model says: 1,200 characters.
var answer = strings.Repeat("The island has one bridge, and two people hold its keys. ", 21) // constant

// engine answers like vLLM, at once, or in max_tokens chunks with seed milliseconds
// between them.
func engine(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/health", "/metrics":
		return
	case "/v1/models":
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"m","object":"model"}]}`)
		return
	}
	var q struct {
		Stream bool `json:"stream"`
		Max    int  `json:"max_tokens"`
		Seed   int  `json:"seed"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !q.Stream {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],"usage":{"prompt_tokens":250,"completion_tokens":240,"total_tokens":490}}`, answer)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	for n := range q.Max {
		_, _ = io.WriteString(w, `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" bridge `+strconv.Itoa(n)+`"},"finish_reason":null}]}`+"\n\n")
		_ = rc.Flush()
		if q.Seed > 0 {
			select {
			case <-time.After(time.Duration(q.Seed) * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	}
	_, _ = io.WriteString(w, `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":250,"completion_tokens":200,"total_tokens":450}}`+"\n\ndata: [DONE]\n\n")
}

// server is one of those that are measured.
type server struct {
	name, at, key string
	cmd           *exec.Cmd
	failed        int // calls
}

// maxFailed is how many calls of a server may fail; every one is printed.
const maxFailed = 5

func run(bin string, rounds, open int, other bool) (err error) {
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "enisle-bench-gateway-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	all, stop, err := start(dir, bin, other)
	defer stop()
	if err != nil {
		return err
	}
	return measure(all, rounds, open)
}

func start(dir, bin string, other bool) (all []*server, stop func(), err error) {
	var running []*exec.Cmd
	stop = func() {
		for _, c := range slices.Backward(running) {
			_ = c.Process.Signal(os.Interrupt)
			_ = c.Wait() // it was told to end
		}
	}
	begin := func(name string, args ...string) (*exec.Cmd, error) {
		c := exec.Command(name, args...)
		c.Dir, c.Stderr = dir, os.Stderr
		if err := c.Start(); err != nil {
			return nil, err
		}
		running = append(running, c)
		return c, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, stop, err
	}
	ports, err := rig.Free(6)
	if err != nil {
		return nil, stop, err
	}
	behind, err := begin(self, "-role", "engine", "-listen", ports[0])
	if err != nil {
		return nil, stop, err
	}
	proxy, err := begin(self, "-role", "proxy", "-listen", ports[1], "-to", ports[0])
	if err != nil {
		return nil, stop, err
	}
	copies, err := begin(self, "-role", "copy", "-listen", ports[5], "-to", ports[0])
	if err != nil {
		return nil, stop, err
	}
	key, err := island(dir, bin, ports[0])
	if err != nil {
		return nil, stop, err
	}
	if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(rulesOnly), 0o600); err != nil {
		return nil, stop, err
	}
	own, err := begin(bin, "-C", "high", "serve", "--listen", ports[2], "--guard-policy", "rules.yaml", "-q")
	if err != nil {
		return nil, stop, err
	}
	standard, err := begin(bin, "-C", "high", "serve", "--listen", ports[4], "-q")
	if err != nil {
		return nil, stop, err
	}
	all = []*server{
		{name: itself, at: ports[0], key: "none", cmd: behind},
		{name: "bytes copied", at: ports[5], key: "none", cmd: copies},
		{name: "ReverseProxy", at: ports[1], key: "none", cmd: proxy},
		{name: "enisle", at: ports[2], key: key, cmd: own},
		{name: "and classifier", at: ports[4], key: key, cmd: standard},
	}
	if other {
		if l, err := lite(dir, ports[0], ports[3], begin); err != nil {
			fmt.Println("LiteLLM is left out:", err)
		} else {
			all = append(all, &server{name: "LiteLLM", at: ports[3], key: "sk-bench", cmd: l})
		}
	}
	for _, s := range all {
		if err := ready(s); err != nil {
			return nil, stop, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return all, stop, nil
}

// island makes one with a model that the engine serves, and a user with a quota.
func island(dir, bin, engineAt string) (key string, err error) {
	const header = `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`
	weights := append([]byte{byte(len(header)), 0, 0, 0, 0, 0, 0, 0}, header+"w"...)
	if err := os.WriteFile(filepath.Join(dir, "m.safetensors"), weights, 0o600); err != nil {
		return "", err
	}
	if err := rig.Cross(dir, bin, "name: bench\nbring:\n  files: [ {path: m.safetensors, as: model/m} ]\n",
		"-C high engine allow e --kind vllm --parallel 10000 --address "+engineAt+" --model m=model/m"); err != nil {
		return "", err
	}
	add := exec.Command(bin, "-C", "high", "user", "add", "ada", "--tokens", "1000000000000", "-q")
	add.Dir = dir
	if out, err := add.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	c := exec.Command(bin, "-C", "high", "user", "key", "ada", "-q")
	c.Dir = dir
	out, err := c.Output()
	return strings.TrimSpace(string(out)), err
}

// lite installs and starts LiteLLM with one worker: with two it dies here.
func lite(dir, engineAt, listen string, begin func(string, ...string) (*exec.Cmd, error)) (*exec.Cmd, error) {
	venv, err := filepath.Abs(".cache/venv-litellm")
	if err != nil {
		return nil, err
	}
	program := filepath.Join(venv, "bin", "litellm")
	if _, err := os.Stat(program); err != nil {
		if out, err := exec.Command("python3", "-m", "venv", "--clear", venv).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
		if out, err := exec.Command(filepath.Join(venv, "bin", "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:", litellm).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("it cannot be installed: %w: %.300s", err, out)
		}
	}
	conf := "model_list:\n  - model_name: m\n    litellm_params: {model: openai/m, api_base: \"http://" + engineAt + "/v1\", api_key: none}\ngeneral_settings: {master_key: sk-bench}\n"
	if err := os.WriteFile(filepath.Join(dir, "lite.yaml"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	_, port, _ := strings.Cut(listen, ":")
	return begin(program, "--config", "lite.yaml", "--host", "127.0.0.1", "--port", port, "--num_workers", "1")
}

// prompt is a request of 1,000 characters.
func prompt(stream bool, chunks, pause int) []byte {
	b, err := json.Marshal(map[string]any{
		"model": "m", "stream": stream, "max_tokens": max(chunks, 1), "seed": pause, "temperature": 0.2,
		"messages": []map[string]string{{"role": "system", "content": "You answer briefly."}, {"role": "user", "content": strings.Repeat("What holds the bridge, and who may cross? ", 24)}},
	})
	if err != nil {
		panic(err) // strings and numbers; cannot fail
	}
	return b
}

func (s *server) ask(c *http.Client, body []byte) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+s.at+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.key)
	return c.Do(req)
}

// call makes one call and reads the answer to its end.
func (s *server) call(c *http.Client, body []byte) error {
	resp, err := s.ask(c, body)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d: %.300s", resp.StatusCode, b)
	}
	if err == nil && !bytes.Contains(b, []byte("bridge")) {
		err = fmt.Errorf("it answers %.300s", b)
	}
	return err
}

func client() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConns: 10_000, MaxIdleConnsPerHost: 10_000}}
}

func ready(s *server) (err error) {
	for range 600 {
		if err = s.call(client(), prompt(false, 0, 0)); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// load makes n calls, c at a time, and returns how long they took, and the CPU of the
// server.
func (s *server) load(n, c int, body []byte) (wall, cpu time.Duration, err error) {
	cl := client()
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	var mu sync.Mutex
	var wg sync.WaitGroup
	before := rig.CPU(s.cmd.Process.Pid)
	began := time.Now()
	for range c {
		wg.Go(func() {
			for range work {
				e := s.call(cl, body)
				if e == nil {
					continue
				}
				mu.Lock()
				if s.failed++; s.failed > maxFailed {
					err = e
				}
				mu.Unlock()
				fmt.Fprintf(os.Stderr, "%s: a call failed: %v\n", s.name, e)
			}
		})
	}
	wg.Wait()
	wall = time.Since(began)
	after := rig.CPU(s.cmd.Process.Pid)
	cl.CloseIdleConnections()
	return wall, after - before, err
}

// openStreams holds many streams open and prints what they take.
func openStreams(s *server, n int) error {
	cl, body := client(), prompt(true, 60, 1000)
	before := rig.Memory(s.cmd.Process.Pid)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	begun := 0
	all := make([]*http.Response, n)
	slots := make(chan struct{}, 64)
	for i := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			resp, err := s.ask(cl, body)
			if err == nil {
				_, err = bufio.NewReaderSize(resp.Body, 256).ReadString('\n')
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			all[i], begun = resp, begun+1
		})
	}
	wg.Wait()
	time.Sleep(2 * time.Second)
	held := rig.Memory(s.cmd.Process.Pid)
	for _, r := range all {
		if r != nil {
			_ = r.Body.Close() // they are left
		}
	}
	if failed != nil {
		return fmt.Errorf("open streams: %d of %d: %w", begun, n, failed)
	}
	fmt.Printf("%d open streams: %d MB (%d MB before)\n", begun, held/1e6, before/1e6)
	return nil
}
