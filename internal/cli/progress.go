package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"enisle/internal/plain"
)

// bars draws progress on a terminal; elsewhere it says a line for each piece of
// work that takes long.
type bars struct {
	w        io.Writer
	terminal bool
}

func (b *bars) progress(label string, total int64) func(int64) {
	if !b.terminal {
		return b.line(label, total)
	}
	if total < 0 {
		fmt.Fprintf(b.w, "%s …\n", plain.Line(label))
		return func(int64) {}
	}
	if total < 4<<20 {
		return func(int64) {}
	}
	bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(b.w), progressbar.OptionSetDescription(plain.Line(label)),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish())
	return func(n int64) { _ = bar.Add64(n) } // drawing only
}

// line says once in ten seconds how far a long piece of work is.
func (b *bars) line(label string, total int64) func(int64) {
	var mu sync.Mutex
	var done int64
	next := time.Now().Add(10 * time.Second)
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		if done += n; time.Now().Before(next) || total <= 0 {
			return
		}
		next = time.Now().Add(10 * time.Second)
		fmt.Fprintf(b.w, "%s: %s of %s\n", plain.Line(label), size(done), size(total))
	}
}

// size prints bytes for people.
func size(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n), 0
	for ; f >= unit && i < 5; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %cB", f, " kMGTP"[i])
}
