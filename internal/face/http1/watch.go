package http1

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher sees that clients leave, for all connections by one descriptor: net/http has a
// goroutine of its own wait for that in each request.
type watcher struct {
	file *os.File // of epoll
	raw  syscall.RawConn

	mu    sync.Mutex
	last  uint64
	conns map[uint64]*conn // guarded by mu
}

const maxEvents = 64 // that are read at once

func newWatcher() (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for Go to wait for it
		return nil, errors.Join(fmt.Errorf("epoll: %w", err), unix.Close(fd))
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "epoll"), conns: map[uint64]*conn{}}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, w.file.Close())
	}
	return w, nil
}

// add begins to watch a connection by the socket under it.
func (w *watcher) add(c *conn, under net.Conn) error {
	sc, ok := under.(syscall.Conn)
	if !ok {
		return errors.New("it is no socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.last++
	c.id = w.last
	w.conns[c.id] = c
	w.mu.Unlock()
	ev := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(uint32(c.id)), Pad: int32(uint32(c.id >> 32))} //nolint:gosec // both halves, as they are
	if cerr := raw.Control(func(fd uintptr) {
		err = w.control(unix.EPOLL_CTL_ADD, int(fd), &ev) //nolint:gosec // descriptors are small
	}); err == nil {
		err = cerr
	}
	if err != nil {
		w.remove(c)
	}
	return err
}

func (w *watcher) control(op, fd int, ev *unix.EpollEvent) (err error) {
	if cerr := w.raw.Control(func(epoll uintptr) { err = unix.EpollCtl(int(epoll), op, fd, ev) }); err == nil {
		err = cerr
	}
	return err
}

// remove ends that. The kernel ends it as well, when the connection is closed; what it
// says until then is about nobody.
func (w *watcher) remove(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c.id)
}

// run tells connections that their clients have left, until close.
func (w *watcher) run() {
	var events [maxEvents]unix.EpollEvent
	for {
		n, err := 0, error(nil)
		rerr := w.raw.Read(func(fd uintptr) bool {
			n, err = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
		if rerr != nil || err != nil {
			return // it was closed
		}
		for _, ev := range events[:n] {
			w.mu.Lock()
			c := w.conns[uint64(uint32(ev.Fd))|uint64(uint32(ev.Pad))<<32] //nolint:gosec // both halves, as they are
			w.mu.Unlock()
			if c != nil {
				c.left()
			}
		}
	}
}

func (w *watcher) close() { _ = w.file.Close() } // whoever closed it before did the same
