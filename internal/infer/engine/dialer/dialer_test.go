package dialer

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo answers each line with a prefix.
func echo(t *testing.T, network, address, prefix string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					fmt.Fprint(c, prefix, line)
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestConnectionsAreHandedIn(t *testing.T) {
	tcp := echo(t, "tcp", "127.0.0.1:0", "tcp ")
	sock := echo(t, "unix", filepath.Join(t.TempDir(), "s"), "unix ")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()
	inside, outside, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() {
		over <- Run(t.Context(), int(outside.Fd()), map[string]string{"a": tcp, "b": "unix:" + sock, "c": nobody})
	}()
	c := NewClient(inside)
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			name, want := "a", "tcp "
			if i%2 == 1 {
				name, want = "b", "unix "
			}
			conn, err := c.Dial(t.Context(), name)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%d\n", i)
			if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != fmt.Sprintf("%s%d\n", want, i) {
				t.Errorf("%q, %v", line, err)
			}
		})
	}
	wg.Wait()
	if _, err := c.Dial(t.Context(), "c"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("an address where nobody listens: %v", err)
	}
	for _, name := range []string{"d", "", tcp, strings.Repeat("x", 900)} {
		if conn, err := c.Dial(t.Context(), name); err == nil || !strings.Contains(err.Error(), "no such engine") {
			t.Errorf("%.20q: %v, %v", name, conn, err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Dial(gone, "a"); err == nil {
		t.Error("a call that was given up is answered")
	}
	_ = outside.Close()
	_ = inside.Close()
	select {
	case <-over:
	case <-time.After(time.Second): // a thread may sit in the receive of a closed descriptor
	}
}

func TestTheHelperIsGone(t *testing.T) {
	inside, outside, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(inside)
	waits := make(chan error)
	go func() { _, err := c.Dial(t.Context(), "a"); waits <- err }()
	time.Sleep(20 * time.Millisecond)
	_ = outside.Close()
	if err := <-waits; err == nil {
		t.Error("who waited has a connection")
	}
	if _, err := c.Dial(t.Context(), "a"); err == nil {
		t.Error("who comes later has one")
	}
}
