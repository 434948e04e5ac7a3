package http1

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"enisle/internal/socket"
)

// leftovers are connections that are net/http's, as a listener.
type leftovers struct {
	addr net.Addr
	next chan *leftover
	over chan struct{}
	once sync.Once
}

// Accept returns the next.
func (l *leftovers) Accept() (net.Conn, error) {
	select {
	case c := <-l.next:
		if s, ok := c.Conn.(*socket.Conn); ok {
			c.Conn = s.Conn
		}
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			return &leftoverTCP{tcp, c}, nil
		}
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}

// give leaves a connection to whoever accepts, and reports whether somebody did.
func (l *leftovers) give(c *leftover) bool {
	select {
	case l.next <- c:
		return true
	case <-l.over:
		return false
	}
}

// Close ends Accept.
func (l *leftovers) Close() error {
	l.once.Do(func() { close(l.over) })
	return nil
}

// Addr is where connections come to.
func (l *leftovers) Addr() net.Addr { return l.addr }

// leftover is a connection of which some was read.
type leftover struct {
	net.Conn
	read []byte
	tls  *tls.ConnectionState
	base context.Context // of its requests
}

// Read returns what was read, and then the rest.
func (c *leftover) Read(b []byte) (int, error) {
	if len(c.read) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.read)
	if c.read = c.read[n:]; len(c.read) == 0 {
		c.read = nil
	}
	return n, nil
}

// CloseWrite tells the client that nothing more comes.
func (c *leftover) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *leftover) origin() *leftover { return c }

// leftoverTCP is one that files are sent over without being copied.
type leftoverTCP struct {
	*net.TCPConn
	l *leftover
}

// Read returns what was read, and then the rest.
func (c *leftoverTCP) Read(b []byte) (int, error) { return c.l.Read(b) }

func (c *leftoverTCP) origin() *leftover { return c.l }
