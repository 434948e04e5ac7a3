package app

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"enisle/internal/infer/gateway"
)

// How many tokens users took today is a table in one file of the site, which every
// process that serves the site changes under a lock: a limit holds for all of them
// together. What is reserved when a process dies stays taken for the day.

const (
	quotaFile  = "access/quota"
	quotaSlots = 1 << 16
	quotaSlot  = 32 // bytes: 16 of the user's hash, 8 of day and tokens, 8 free
)

// openQuota opens the table.
func openQuota(dir string) (*os.File, error) {
	name := filepath.Join(dir, quotaFile)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	return f, nil
}

// quota counts tokens in the table, which is mapped into memory: a reservation is one
// atomic step on a word that all processes share. The lock is for a user's first call of
// a day alone.
type quota struct {
	file  *os.File
	table []byte

	mu    sync.Mutex     // a lock of the file is the process's, not the goroutine's
	slots map[string]int // by user, where its slot begins; guarded by mu
}

var _ gateway.Quota = (*quota)(nil)

func newQuota(f *os.File) (*quota, error) {
	const size = quotaSlots * quotaSlot
	st, err := f.Stat()
	if err == nil && st.Size() < size {
		err = f.Truncate(size)
	}
	if err != nil {
		return nil, fmt.Errorf("quota: %w", err)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("quota: %w", err)
	}
	return &quota{file: f, table: b, slots: map[string]int{}}, nil
}

// word is the eight bytes of a slot that say the day (24 bits) and the tokens taken (40).
func (q *quota) word(slot int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&q.table[slot+16])) //nolint:gosec // slots are aligned to 32 bytes, and a mapping to a page
}

const (
	tokenBits = 40
	maxTokens = 1<<tokenBits - 1
)

func packed(day, tokens int64) uint64     { return uint64(day)<<tokenBits | uint64(tokens) }
func unpacked(w uint64) (day, used int64) { return int64(w >> tokenBits), int64(w & maxTokens) }

// Reserve takes tokens if the user has them left today (UTC). A table without room has
// none left for anybody.
func (q *quota) Reserve(user string, tokens, limit int64, now time.Time) (settle func(int64), again time.Duration, ok bool) {
	day := now.UTC().Unix() / 86400
	again = time.Unix((day+1)*86400, 0).Sub(now)
	slot, err := q.slot(user)
	if err != nil || tokens < 0 || tokens > maxTokens {
		return nil, again, false
	}
	w := q.word(slot)
	for {
		old := w.Load()
		then, used := unpacked(old)
		if then > day { // that day is over
			return nil, again, false
		}
		if then < day {
			used = 0
		}
		if used+tokens > min(limit, maxTokens) {
			return nil, again, false
		}
		if w.CompareAndSwap(old, packed(day, used+tokens)) {
			break
		}
	}
	return func(used int64) {
		for {
			old := w.Load()
			then, all := unpacked(old)
			if then != day || w.CompareAndSwap(old, packed(day, min(max(all-tokens+used, 0), maxTokens))) {
				return
			}
		}
	}, 0, true
}

// slot returns where a user's slot begins, and takes one for a new user.
func (q *quota) slot(user string) (at int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at, ok := q.slots[user]; ok {
		return at, nil
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(q.file.Fd(), unix.F_OFD_SETLKW, &lock); err != nil {
		return 0, fmt.Errorf("quota: %w", err)
	}
	defer func() {
		lock.Type = unix.F_UNLCK
		err = errors.Join(err, unix.FcntlFlock(q.file.Fd(), unix.F_OFD_SETLKW, &lock))
	}()
	key := sha256.Sum256([]byte(user))
	for i := range uint64(quotaSlots) {
		at := int((binary.LittleEndian.Uint64(key[:])+i)%quotaSlots) * quotaSlot
		held := [16]byte(q.table[at:])
		if held == [16]byte{} {
			copy(q.table[at:], key[:16])
		} else if held != [16]byte(key[:16]) {
			continue
		}
		q.slots[user] = at
		return at, nil
	}
	return 0, errors.New("quota: the table is full")
}
