// Command probe stands for an engine's server that somebody has taken over: started with
// llama-server's arguments, it answers a chat with what came of trying what the last
// message says, one try a line, from inside of its confinement.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// tries are what can be tried, each with one argument.
var tries = map[string]func(string) error{
	"read":    func(p string) error { _, err := os.ReadFile(p); return err },
	"list":    func(p string) error { _, err := os.ReadDir(p); return err },
	"write":   func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) },
	"link":    func(p string) error { return os.Symlink("/dev/null", p) },
	"exec":    func(p string) error { return exec.Command(p).Run() },
	"tcp":     func(a string) error { return dial("tcp", a) },
	"udp":     func(a string) error { return dial("udp", a) },
	"unix":    func(a string) error { return dial("unix", a) },
	"listen":  func(a string) error { l, err := net.Listen("tcp", a); return closed(l, err) },
	"signal":  func(string) error { return syscall.Kill(os.Getppid(), 0) },
	"leave":   func(string) error { _, err := syscall.Setsid(); return err },
	"unshare": func(string) error { return syscall.Unshare(syscall.CLONE_NEWUSER) },
	"weights": func(string) error { return os.WriteFile(weights(), []byte("x"), 0o600) },
	"mine":    func(string) error { _, err := os.ReadFile(weights()); return err },
	"eat": func(string) error {
		b := make([]byte, 4<<30)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return nil
	},
	"crash": func(string) error { return syscall.Kill(os.Getpid(), syscall.SIGKILL) },
}

func dial(network, address string) error {
	c, err := net.DialTimeout(network, address, 2*time.Second)
	if err == nil {
		_, err = c.Write([]byte("x"))
		_ = c.Close()
	}
	return err
}

func closed(l net.Listener, err error) error {
	if err != nil {
		return err
	}
	return l.Close()
}

func flag(name string) string {
	for i, a := range os.Args {
		if a == name {
			return os.Args[i+1]
		}
	}
	return ""
}

func weights() string { return flag("-m") }

func main() {
	l, err := net.Listen("unix", flag("--host"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("probe: listening")
	http.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"data":[{"id":%q}]}`, flag("--alias"))
	})
	http.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Messages []struct{ Content string } }
		_ = json.NewDecoder(r.Body).Decode(&q) // the gateway has read it
		var out strings.Builder
		for line := range strings.Lines(q.Messages[len(q.Messages)-1].Content) {
			what, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
			fmt.Printf("asked to %s\n", what)
			fmt.Fprintf(&out, "%s %s: ", what, arg)
			if try := tries[what]; try == nil {
				out.WriteString("not known\n")
			} else if err := try(arg); err != nil {
				fmt.Fprintf(&out, "refused: %v\n", err)
			} else {
				out.WriteString("DONE\n")
			}
		}
		content, _ := json.Marshal(out.String())
		fmt.Fprintf(w, `{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":%s},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`, content)
	})
	fmt.Fprintln(os.Stderr, http.Serve(l, nil)) //nolint:gosec // for a test
}
