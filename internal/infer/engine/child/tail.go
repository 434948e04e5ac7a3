package child

import (
	"bufio"
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// tail writes what a process prints to the log, line by line, and keeps the end
// of it for the error that explains why the process died.
type tail struct {
	log    *slog.Logger
	record func(line string) // nil once the process takes requests: what it prints may quote them

	mu     sync.Mutex
	line   []byte    // guarded by mu; not yet ended
	kept   []byte    // guarded by mu; at most keptBytes
	hungry time.Time // guarded by mu; when it last said that there was no memory for it
}

const (
	maxLine   = 1024 // bytes of a line that are logged
	keptBytes = 800
)

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	t.kept = bytes.Clone(t.kept[max(0, len(t.kept)-keptBytes):])
	t.line = append(t.line, p...)
	for {
		n, line, err := bufio.ScanLines(t.line, false)
		if err != nil || n == 0 {
			break
		}
		said := string(bytes.ToValidUTF8(line[:min(len(line), maxLine)], []byte("?")))
		t.log.Debug("engine says", "line", said)
		if saysHungry(said) {
			t.hungry = time.Now()
		}
		if t.record != nil {
			t.record(said)
		}
		t.line = t.line[n:]
	}
	if len(t.line) > maxLine { // without an end: keep what would be logged
		t.line = t.line[:maxLine]
	}
	t.line = bytes.Clone(t.line)
	return len(p), nil
}

// quiet ends the recording.
func (t *tail) quiet() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record = nil
}

// last returns what was printed last, as the end of an error message.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := bytes.TrimSpace(t.kept); len(text) > 0 {
		return ": " + string(bytes.ToValidUTF8(text, []byte("?")))
	}
	return ""
}

// starved reports whether the process said just now that there was no memory for it.
func (t *tail) starved() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.hungry) < 10*time.Second || saysHungry(string(t.line))
}

func saysHungry(line string) bool {
	line = strings.ToLower(line)
	return slices.ContainsFunc([]string{"bad_alloc", "out of memory", "cannot allocate memory", "failed to allocate", "unable to allocate", "resource temporarily unavailable"}, func(s string) bool {
		return strings.Contains(line, s)
	})
}
