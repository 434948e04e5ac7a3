// Package disk writes large files past the page cache where the file system
// allows it, and reads them back from the medium: on a machine with few cores the
// copy into the cache and its write-back cost more than everything else that is
// done with the data, and what comes from the cache proves nothing.
package disk

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	block  = 4096    // bytes; every file system in use takes direct writes in these
	buffer = 4 << 20 // bytes; one direct write
)

// Forget drops what the page cache holds of a file, so that the next read comes
// from the medium. What has not been written back yet stays.
func Forget(f *os.File) error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// Free returns how many bytes a user may still write beside a path.
func Free(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Appender writes the end of a file, in large direct writes. At most 4 MiB are
// held back until Finish. It is for one goroutine.
type Appender struct {
	f      *os.File
	direct bool
	buf    []byte // aligned in memory to block
	n      int    // bytes of buf that are used
	at     int64  // where buf belongs in the file; a multiple of block
}

// Append returns an Appender that goes on at an offset of f and cuts off what
// stands behind it. f must be open for reading and writing.
func Append(f *os.File, at int64) (*Appender, error) {
	if err := f.Truncate(at); err != nil {
		return nil, err
	}
	a := &Appender{f: f, buf: aligned(), n: int(at % block), at: at - at%block}
	if a.n > 0 {
		if _, err := f.ReadAt(a.buf[:a.n], a.at); err != nil {
			return nil, fmt.Errorf("read back: %w", err)
		}
	}
	a.direct = setDirect(f, true) == nil
	return a, nil
}

// aligned returns a buffer whose first byte has an address that direct writes
// may begin at.
func aligned() []byte {
	b := make([]byte, buffer+block)
	skip := -uintptr(unsafe.Pointer(&b[0])) % block
	return b[skip : skip+buffer : skip+buffer]
}

func setDirect(f *os.File, on bool) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	flags &^= unix.O_DIRECT
	if on {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags)
	return err
}

// Size returns the size that the file will have.
func (a *Appender) Size() int64 { return a.at + int64(a.n) }

// Write appends p.
func (a *Appender) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n := copy(a.buf[a.n:], p[done:])
		a.n, done = a.n+n, done+n
		if a.n < len(a.buf) {
			break
		}
		if err := a.flush(); err != nil {
			return done, err
		}
		a.at, a.n = a.at+int64(a.n), 0
	}
	return done, nil
}

func (a *Appender) flush() error {
	_, err := a.f.WriteAt(a.buf[:a.n], a.at)
	if a.direct && errors.Is(err, unix.EINVAL) {
		// The file system takes no direct writes after all, or not the rest of
		// one that was cut short; the ordinary way also says why.
		if err := a.indirect(); err != nil {
			return err
		}
		_, err = a.f.WriteAt(a.buf[:a.n], a.at)
	}
	return err
}

func (a *Appender) indirect() error {
	a.direct = false
	return setDirect(a.f, false)
}

// Finish writes what was held back, writes first over the first bytes of the
// file, and makes all durable. The file stays open.
func (a *Appender) Finish(first []byte) error {
	if err := a.indirect(); err != nil {
		return err
	}
	if err := a.flush(); err != nil {
		return err
	}
	if _, err := a.f.WriteAt(first, 0); err != nil {
		return err
	}
	return a.f.Sync()
}
