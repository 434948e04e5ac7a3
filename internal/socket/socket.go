// Package socket reads and writes streams over sockets at less cost than net does.
//
// Around every read and write net tells Go's scheduler that the thread may block, and
// wakes a thread of the scheduler's that looks after it for a while: that costs more than
// reading a call to a model. But the sockets of net never block. They say at once that
// there is nothing, and Go waits for more without a thread. So here the scheduler is told
// nothing; all else, waiting, deadlines and closing, is net's.
package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// maxAtOnce is how many bytes one system call copies: while it does, nothing else runs on
// its processor, and a collection of garbage waits for it.
const maxAtOnce = 256 << 10

// Conn is a stream over a socket. It is made of another connection, which does for it
// whatever is not here, and may be used beside it.
type Conn struct {
	net.Conn
	raw syscall.RawConn
	in  way
	out way
}

// Of returns a *Conn over nc, or nc itself where that is no stream over a socket of Go.
func Of(nc net.Conn) net.Conn {
	var raw syscall.RawConn
	var err error
	switch nc := nc.(type) {
	case *net.TCPConn:
		raw, err = nc.SyscallConn()
	case *net.UnixConn:
		if nc.LocalAddr().Network() != "unix" {
			return nc // it carries messages
		}
		raw, err = nc.SyscallConn()
	default:
		return nc
	}
	if err != nil {
		return nc // it is closed, and says so itself
	}
	c := &Conn{Conn: nc, raw: raw}
	c.in.over(syscall.SYS_READ, raw.Read)
	c.out.over(syscall.SYS_WRITE, raw.Write)
	return c
}

// Read reads what is there, or waits until something is.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	n, err := c.in.some(p)
	if err != nil {
		return 0, c.because("read", err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write writes all of p, or says how much of it was written until it failed.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	for n < len(p) {
		some, err := c.out.some(p[n:])
		if err != nil {
			return n, c.because("write", err)
		}
		n += some
	}
	return n, nil
}

// because returns an error as net has it.
func (c *Conn) because(op string, err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		err = os.NewSyscallError(op, errno)
	} else if of := (*net.OpError)(nil); errors.As(err, &of) {
		err = of.Err // of waiting: that it was closed, or too late
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Quiet reports whether nothing is there to be read and the other side has not closed the
// connection.
func (c *Conn) Quiet() bool {
	var b byte
	var errno syscall.Errno
	err := c.raw.Read(func(fd uintptr) bool {
		_, _, errno = syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		return true
	})
	return err == nil && errno == syscall.EAGAIN
}

// SyscallConn returns access to the socket.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// CloseWrite tells the other side that nothing more comes.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// way is one of the two of a connection.
type way struct {
	until func(func(fd uintptr) (done bool)) error // waits for the socket until done
	try   func(fd uintptr) (done bool)             // made once, and not by every call

	mu    sync.Mutex // guards what follows
	p     []byte
	n     int
	errno syscall.Errno
}

func (w *way) over(call uintptr, until func(func(uintptr) bool) error) {
	w.until = until
	w.try = func(fd uintptr) bool {
		for {
			n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(w.p))), uintptr(len(w.p)))
			switch errno {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			}
			w.n, w.errno = int(n), errno
			return true
		}
	}
}

// some reads or writes some of p, as soon as that is possible. It is called with mu.
func (w *way) some(p []byte) (int, error) {
	w.p = p[:min(len(p), maxAtOnce)]
	err := w.until(w.try)
	w.p = nil
	switch {
	case err != nil:
		return 0, err
	case w.errno != 0:
		return 0, w.errno
	}
	return w.n, nil
}

// Listener gives out connections as Of returns them.
type Listener struct{ net.Listener }

// Accept waits for the next.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Of(c), nil
}
