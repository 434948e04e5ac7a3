// Package dialer is the one way from what serves to engines elsewhere: a small process
// outside its network namespace that holds a list of addresses, connects to one of them
// when it is asked by name, and hands the connected socket in. It reads nothing of what
// is said over the sockets.
package dialer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	timeout    = 10 * time.Second
	maxMessage = 1 << 10
	maxDials   = 256 // at a time
	headSize   = 5   // 4 bytes that tell answers apart, 1 that says whether it went well
)

// Pair returns the end of what serves and that of the helper, as files to inherit.
func Pair() (inside, outside *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("dialer: %w", err)
	}
	return os.NewFile(uintptr(pair[0]), "dialer"), os.NewFile(uintptr(pair[1]), "dialer"), nil
}

// Run is the helper: it answers what comes over descriptor fd until the other end is
// closed. addresses are HOST:PORT or unix:/PATH, by name.
func Run(ctx context.Context, fd int, addresses map[string]string) error {
	var mu sync.Mutex
	slots := make(chan struct{}, maxDials)
	buf := make([]byte, maxMessage)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("dialer: %w", err)
		case n < 4:
			return nil // the other end is closed, or does not keep to the form
		}
		id, name := [4]byte(buf[:4]), string(buf[4:n])
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			conn, err := dial(ctx, addresses, name)
			mu.Lock()
			defer mu.Unlock()
			answer(fd, id, conn, err)
		}()
	}
}

func dial(ctx context.Context, addresses map[string]string, name string) (net.Conn, error) {
	address, ok := addresses[name]
	if !ok {
		return nil, errors.New("no such engine is allowed")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	network := "tcp"
	if p, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", p
	}
	d := net.Dialer{KeepAlive: 30 * time.Second}
	d.SetMultipathTCP(false) // Landlock and seccomp inside know nothing of it
	return d.DialContext(ctx, network, address)
}

// answer sends a connection, or why there is none.
func answer(fd int, id [4]byte, conn net.Conn, err error) {
	message := append(id[:], 1)
	var rights []byte
	if err == nil {
		defer func() { _ = conn.Close() }() // the other end has its own
		var f *os.File
		if f, err = file(conn); err == nil {
			defer func() { _ = f.Close() }() // a copy
			rights = unix.UnixRights(int(f.Fd()))
			message[4] = 0
		}
	}
	if err != nil {
		message = append(message, err.Error()[:min(len(err.Error()), maxMessage-headSize)]...)
	}
	// If what serves is gone, so is the helper at its next reading.
	_ = unix.Sendmsg(fd, message, rights, nil, 0)
}

func file(conn net.Conn) (*os.File, error) {
	f, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.New("not a socket")
	}
	return f.File()
}

// Client asks the helper. It is safe for concurrent use.
type Client struct {
	end *os.File

	mu      sync.Mutex
	next    uint32
	waiting map[uint32]chan reply
	err     error // after which nobody is answered
}

type reply struct {
	conn net.Conn
	err  error
}

// NewClient returns the client at the inside end of a pair, which it owns.
func NewClient(end *os.File) *Client {
	c := &Client{end: end, waiting: map[uint32]chan reply{}}
	go c.read(int(end.Fd()))
	return c
}

// Dial returns a connection to the engine that the helper knows by a name.
func (c *Client) Dial(ctx context.Context, name string) (net.Conn, error) {
	got := make(chan reply, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.err
	}
	c.next++
	id := c.next
	c.waiting[id] = got
	c.mu.Unlock()
	// Without the lock: the helper may be too busy to read, and it is busy until its
	// answers are taken.
	err := unix.Send(int(c.end.Fd()), append(binary.LittleEndian.AppendUint32(nil, id), name...), 0)
	if err != nil {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		return nil, fmt.Errorf("dialer: %w", err)
	}
	select {
	case r := <-got:
		return r.conn, r.err
	case <-ctx.Done():
	}
	go func() { // what comes later is closed
		if r := <-got; r.conn != nil {
			_ = r.conn.Close()
		}
	}()
	return nil, ctx.Err()
}

// read takes answers until the helper is gone.
func (c *Client) read(fd int) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n < headSize {
			c.lost(errors.Join(errors.New("dialer: the helper is gone"), err))
			return
		}
		var r reply
		if buf[4] == 0 {
			r.conn, r.err = received(oob[:oobn])
		} else {
			r.err = fmt.Errorf("dialer: %s", buf[headSize:n])
		}
		id := binary.LittleEndian.Uint32(buf)
		c.mu.Lock()
		got := c.waiting[id]
		delete(c.waiting, id)
		c.mu.Unlock()
		if got != nil {
			got <- r
		} else if r.conn != nil {
			_ = r.conn.Close()
		}
	}
}

func (c *Client) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for id, got := range c.waiting {
		got <- reply{err: err}
		delete(c.waiting, id)
	}
}

func received(oob []byte) (net.Conn, error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("dialer: no connection came"), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("dialer: not one connection came"), err)
	}
	f := os.NewFile(uintptr(fds[0]), "engine")
	conn, err := net.FileConn(f)
	return conn, errors.Join(err, f.Close())
}
