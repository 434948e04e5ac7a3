package llamacpp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A worker must reach nobody, and whoever serves must not dial. So there is no
// address: the parent makes each connection itself, as a pair of sockets, and
// hands one end over through a control socket the child was born with.

// newControl returns the two ends of a control socket: the parent's, and the
// child's as a file to inherit.
func newControl() (*net.UnixConn, *os.File, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	ours, err := adopt(pair[0])
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("control socket: %w", err), theirs.Close())
	}
	return ours, theirs, nil
}

// adopt makes a connection of a descriptor and closes the descriptor.
func adopt(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a Unix socket"), conn.Close())
	}
	return c, nil
}

// handOver makes a connection to whoever reads the other end of control.
func handOver(ctx context.Context, control *net.UnixConn) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("connection: %w", err)
	}
	conn, err := adopt(pair[0])
	if err != nil {
		return nil, errors.Join(err, syscall.Close(pair[1]))
	}
	_, _, err = control.WriteMsgUnix([]byte{0}, syscall.UnixRights(pair[1]), nil)
	if err := errors.Join(err, syscall.Close(pair[1])); err != nil {
		return nil, errors.Join(fmt.Errorf("hand over a connection: %w", err), conn.Close())
	}
	return conn, nil
}

// Listener takes the connections that the parent hands over.
type Listener struct {
	control *net.UnixConn
	once    sync.Once
	err     error // of closing
}

var _ net.Listener = (*Listener)(nil)

// Listen makes a listener of the control socket with descriptor fd, which it
// owns from then on.
func Listen(fd int) (*Listener, error) {
	unix.CloseOnExec(fd)
	c, err := adopt(fd)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &Listener{control: c}, nil
}

// Accept waits for the next connection; io.EOF means that the parent is gone.
func (l *Listener) Accept() (net.Conn, error) {
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := l.control.ReadMsgUnix(buf, oob)
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.EOF
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("control message: not one: %w", err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("control message: not one descriptor: %w", err)
	}
	return adopt(fds[0])
}

// Close stops accepting.
func (l *Listener) Close() error {
	l.once.Do(func() { l.err = l.control.Close() })
	return l.err
}

// Addr returns an address without meaning.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: "handed-over", Net: "unix"} }
