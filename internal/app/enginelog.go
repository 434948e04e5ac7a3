package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"enisle/internal/fail"
	"enisle/internal/plain"
	"enisle/internal/site"
)

// What the children of serve do and say stands in a file of lines of JSON in the site's
// directory, like who pulled what. What a child prints once it takes requests is not
// among it: it might quote what people ask.

const (
	enginesFile    = "access/engines.jsonl"
	maxEnginesFile = 1 << 20 // bytes; then the older half goes
	maxEngineLine  = 2000    // bytes of a text
)

// EngineLine is one line.
type EngineLine struct {
	At     time.Time `json:"at"`
	Engine string    `json:"engine"`
	Text   string    `json:"text"`
}

// openEngineLog opens the file for appending, and for reading what is kept when it has
// grown.
func openEngineLog(dir string) (*os.File, error) {
	name := filepath.Join(dir, enginesFile)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	return os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
}

// engineLog appends to it.
type engineLog struct {
	mu sync.Mutex
	to *os.File
}

// add writes a line; a log that cannot be written stops no engine.
func (l *engineLog) add(engine, text string) {
	b, err := json.Marshal(EngineLine{time.Now().UTC().Truncate(time.Millisecond), engine, plain.Line(text[:min(len(text), maxEngineLine)])})
	if err != nil {
		return // strings only; cannot fail
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if st, err := l.to.Stat(); err == nil && st.Size() > maxEnginesFile {
		l.halve(st.Size())
	}
	_, _ = l.to.Write(append(b, '\n')) // see above
}

// halve drops the older half.
func (l *engineLog) halve(size int64) {
	kept := make([]byte, maxEnginesFile/2)
	n, err := l.to.ReadAt(kept, size-int64(len(kept)))
	if err != nil {
		return
	}
	kept = kept[:n]
	kept = kept[slices.Index(kept, '\n')+1:]
	if l.to.Truncate(0) == nil {
		_, _ = l.to.Write(kept) // see add
	}
}

// readEngineLog calls do for every line, oldest first.
func readEngineLog(dir string, do func(EngineLine)) error {
	f, err := os.Open(filepath.Join(dir, enginesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = eachLine(f, maxAccessLine, func(line []byte) {
		var l EngineLine
		if json.Unmarshal(line, &l) == nil && l.Engine != "" {
			l.Engine, l.Text = plain.Line(l.Engine), plain.Line(l.Text)
			do(l)
		}
	})
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", enginesFile, err)
	}
	return nil
}

// EngineLog returns what is on record of the children of serve, or of one by its name,
// oldest first.
func (a *App) EngineLog(ctx context.Context, name string) (out []EngineLine, err error) {
	out = []EngineLine{}
	err = a.read(ctx, func(s *site.Site) error {
		err := readEngineLog(s.Dir, func(l EngineLine) {
			if name == "" || l.Engine == name {
				out = append(out, l)
			}
		})
		if err == nil && name != "" && len(out) == 0 {
			err = fail.As(fail.Usage, "'enisle engine list' lists them", fmt.Errorf("nothing is on record of an engine %.80q", name))
		}
		return err
	})
	return out, err
}
