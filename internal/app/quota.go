package app

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"enisle/internal/infer/gateway"
)

// How many tokens users took today is a table in one file of the site, which every
// process that serves the site changes under a lock: a limit holds for all of them
// together. What is reserved when a process dies stays taken for the day.

const (
	quotaFile  = "access/quota"
	quotaSlots = 1 << 16
	quotaSlot  = 32 // bytes: 16 of the user's hash, 8 of the day, 8 of the tokens
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

// quota counts tokens in the table.
type quota struct {
	mu   sync.Mutex // a lock of the file is the process's, not the goroutine's
	file *os.File
}

var _ gateway.Quota = (*quota)(nil)

// Reserve takes tokens if the user has them left today (UTC). A table that cannot be
// read has none left for anybody.
func (q *quota) Reserve(user string, tokens, limit int64, now time.Time) (settle func(int64), again time.Duration, ok bool) {
	day := now.UTC().Unix() / 86400
	err := q.change(user, day, func(used int64) (int64, bool) {
		if ok = used+tokens <= limit && used+tokens >= used; ok {
			used += tokens
		}
		return used, ok
	})
	if again = time.Unix((day+1)*86400, 0).Sub(now); err != nil || !ok {
		return nil, again, false
	}
	return func(used int64) {
		// What cannot be given back stays taken.
		_ = q.change(user, day, func(all int64) (int64, bool) { return max(all-tokens+used, 0), true })
	}, 0, true
}

// change changes what a user took on a day, if it is the newest day.
func (q *quota) change(user string, day int64, do func(used int64) (int64, bool)) (err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(q.file.Fd(), unix.F_OFD_SETLKW, &lock); err != nil {
		return fmt.Errorf("quota: %w", err)
	}
	defer func() {
		lock.Type = unix.F_UNLCK
		err = errors.Join(err, unix.FcntlFlock(q.file.Fd(), unix.F_OFD_SETLKW, &lock))
	}()
	key := sha256.Sum256([]byte(user))
	var b [quotaSlot]byte
	for i := range uint64(quotaSlots) {
		at := int64((binary.LittleEndian.Uint64(key[:])+i)%quotaSlots) * quotaSlot
		clear(b[:])
		if _, err := q.file.ReadAt(b[:], at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("quota: %w", err)
		}
		free := [quotaSlot]byte(b) == [quotaSlot]byte{}
		if !free && [16]byte(b[:16]) != [16]byte(key[:16]) {
			continue
		}
		then, used := int64(binary.LittleEndian.Uint64(b[16:])), int64(binary.LittleEndian.Uint64(b[24:]))
		if then > day {
			return errors.New("quota: that day is over")
		}
		if free || then < day {
			used = 0
		}
		next, keep := do(used)
		if !keep {
			return nil
		}
		copy(b[:16], key[:16])
		binary.LittleEndian.PutUint64(b[16:], uint64(day))
		binary.LittleEndian.PutUint64(b[24:], uint64(next))
		if _, err := q.file.WriteAt(b[:], at); err != nil {
			return fmt.Errorf("quota: %w", err)
		}
		return nil
	}
	return errors.New("quota: the table is full")
}
