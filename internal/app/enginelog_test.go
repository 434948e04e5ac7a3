package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The record of the children does not grow beyond its limit, whatever they print; the
// newest of it is kept, in whole lines, and nothing in it moves a terminal.
func TestEngineLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	f, err := openEngineLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := &engineLog{to: f}
	const lines = 3000
	for n := range lines {
		l.add("own", fmt.Sprintf("%d \x1b[2J%s", n, strings.Repeat("x", 3000)))
	}
	st, err := os.Stat(filepath.Join(dir, enginesFile))
	if err != nil || st.Size() > maxEnginesFile+10*maxEngineLine {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
	next := -1
	err = readEngineLog(dir, func(l EngineLine) {
		var n int
		if _, err := fmt.Sscan(l.Text, &n); err != nil || next >= 0 && n != next || strings.Contains(l.Text, "\x1b") {
			t.Errorf("%v, want line %d: %.40q", err, next, l.Text)
		}
		next = n + 1
	})
	if err != nil || next != lines {
		t.Errorf("the last line is %d, want %d; %v", next-1, lines-1, err)
	}
}
