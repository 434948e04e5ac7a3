package socket_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"enisle/internal/socket"
)

// pair returns both ends of a connection over a listener.
func pair(t *testing.T, network, at string) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	got := make(chan net.Conn, 1)
	go func() {
		c, err := socket.Listener{Listener: l}.Accept()
		if err != nil {
			close(got)
			return
		}
		got <- c
	}()
	nc, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, b = socket.Of(nc), <-got
	for _, c := range []net.Conn{a, b} {
		if _, ok := c.(*socket.Conn); !ok {
			t.Fatalf("%T is none of ours", c)
		}
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func networks(t *testing.T, test func(t *testing.T, network, at string)) {
	t.Helper()
	t.Run("tcp", func(t *testing.T) { test(t, "tcp", "127.0.0.1:0") })
	t.Run("unix", func(t *testing.T) { test(t, "unix", filepath.Join(t.TempDir(), "s")) })
}

// What is promised of any net.Conn holds of these.
func TestConn(t *testing.T) {
	networks(t, func(t *testing.T, network, at string) {
		nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
			_ = os.Remove(at) // of the pair before
			a, b = pair(t, network, at)
			return a, b, func() { _, _ = a.Close(), b.Close() }, nil
		})
	})
}

// More than the kernel holds is written while the other side reads slowly.
func TestMuch(t *testing.T) {
	networks(t, func(t *testing.T, network, at string) {
		a, b := pair(t, network, at)
		want := make([]byte, 24<<20)
		_, _ = rand.Read(want)
		failed := make(chan error, 1)
		go func() {
			n, err := a.Write(want)
			if err == nil && n != len(want) {
				err = io.ErrShortWrite
			}
			failed <- errors.Join(err, a.Close())
		}()
		time.Sleep(20 * time.Millisecond)
		got, err := io.ReadAll(b)
		if err := errors.Join(err, <-failed); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Error("something else came than was sent")
		}
	})
}

// Errors are as net has them.
func TestErrors(t *testing.T) {
	networks(t, func(t *testing.T, network, at string) {
		a, b := pair(t, network, at)
		if err := a.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := a.Read(make([]byte, 1))
		var op *net.OpError
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &op) || op.Op != "read" || op.Net != network || !op.Timeout() {
			t.Errorf("too late: %v", err)
		}
		late(t, a, b)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read of a closed one: %v", err)
		}
		if _, err := b.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write to a closed one: %v", err)
		}
		err = nil
		for range 100 { // the first is taken by the kernel
			if _, err = a.Write(make([]byte, 1)); err != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write to one that has left: %v", err)
		}
	})
}

// late has b write more than the kernel holds, and its time run out once a
// has the first byte of it.
func late(t *testing.T, a, b net.Conn) {
	t.Helper()
	type result struct {
		n   int
		err error
	}
	wrote := make(chan result, 1)
	go func() {
		n, err := b.Write(make([]byte, 32<<20))
		wrote <- result{n, err}
	}()
	if err := a.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := b.SetWriteDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := <-wrote; got.n <= 0 || got.n >= 32<<20 || !errors.Is(got.err, os.ErrDeadlineExceeded) {
		t.Errorf("of a write that nobody reads %d bytes: %v", got.n, got.err)
	}
}

// A read that waits ends when the connection is closed here.
func TestCloseWhileItReads(t *testing.T) {
	networks(t, func(t *testing.T, network, at string) {
		a, _ := pair(t, network, at)
		failed := make(chan error, 1)
		go func() {
			_, err := a.Read(make([]byte, 1))
			failed <- err
		}()
		time.Sleep(20 * time.Millisecond)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("it ends with %v", err)
		}
	})
}

func TestQuiet(t *testing.T) {
	networks(t, func(t *testing.T, network, at string) {
		a, b := pair(t, network, at)
		c, _ := a.(*socket.Conn)
		if !c.Quiet() {
			t.Error("a new connection is not quiet")
		}
		if _, err := b.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		for n := 0; c.Quiet(); n++ {
			if n == 1000 {
				t.Fatal("one that has something to say is quiet")
			}
			time.Sleep(time.Millisecond)
		}
		if n, err := a.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if !c.Quiet() {
			t.Error("one that has said all is not quiet")
		}
		half, ok := b.(interface{ CloseWrite() error })
		if !ok || half.CloseWrite() != nil {
			t.Fatal("one half of it cannot be closed")
		}
		if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes at the end: %v", n, err)
		}
		if c.Quiet() {
			t.Error("one whose other side has ended is quiet")
		}
		if err := a.Close(); err != nil || c.Quiet() {
			t.Error("a closed one is quiet", err)
		}
	})
}

// What is no stream over a socket stays what it is.
func TestOthers(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if socket.Of(a) != a {
		t.Error("a pipe in memory is made a socket")
	}
	u, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	if socket.Of(u) != net.Conn(u) {
		t.Error("messages are made a stream")
	}
}

// BenchmarkRoundTrip sends 1,000 bytes there and back.
func BenchmarkRoundTrip(b *testing.B) {
	for name, of := range map[string]func(net.Conn) net.Conn{"socket": socket.Of, "net": func(c net.Conn) net.Conn { return c }} {
		b.Run(name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.Copy(struct{ io.Writer }{of(c)}, struct{ io.Reader }{of(c)})
			}()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			c = of(c)
			buf := make([]byte, 1000)
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
