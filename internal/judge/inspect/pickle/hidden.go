package pickle

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/asset"
)

// hides says what a pickle would import that stands in a picture, a table or another
// file of plain data of a model, or in a text that people do not read.
func hides(s inspect.Subject) string {
	if s.Ref.Kind != "model" && s.Ref.Kind != "hf" || len(s.Head) == 0 {
		return ""
	}
	read := slices.Contains([]string{".md", ".rst", ".py", ".ipynb"}, strings.ToLower(path.Ext(s.Path)))
	if asset.Is(s) || !read && !named(s) && !binaryStart(s.Head) && s.Size <= 16<<20 && bytes.IndexByte(s.Head, 0) < 0 && !sealed(s) {
		return hidden(s)
	}
	return ""
}

// hidden looks for a pickle behind the beginning of a picture, a table or another file
// of plain data, where a loader that skips the beginning finds it. It says what such a
// pickle would import.
func hidden(s inspect.Subject) (found string) {
	const window, overlap = 1 << 20, 64 << 10
	buf := make([]byte, min(window+overlap, s.Size))
	for at := int64(0); at < s.Size; at += window {
		n, _ := s.ReadAt(buf, at)
		b := buf[:n]
		if m := instance.FindSubmatch(b); m != nil {
			return string(m[1]) + "." + string(m[2])
		}
		for _, i := range starts(b[:min(n, window)], b) {
			m := machine{src: &source{r: s, at: at + int64(i), size: s.Size, buf: b, from: at}, guess: true}
			_ = m.run()
			for _, g := range m.globals {
				if m.calls > 0 && m.seen[g] == refused {
					return g.module + "." + g.name
				}
			}
		}
	}
	return ""
}

var (
	// imported is a name by GLOBAL.
	imported = regexp.MustCompile(`c[A-Za-z_][A-Za-z0-9_.]*\n[A-Za-z_][A-Za-z0-9_.]*\n[(S)VXUCq}\x8cp2]`)
	// instance is one by INST, of a module that starts, reads or evaluates.
	instance = regexp.MustCompile(`i(os|posix|nt|subprocess|builtins|__builtin__|sys|pty|runpy|importlib|socket|shutil)\n([A-Za-z_]+)\n`)
)

// starts returns where a pickle may begin: at its protocol, or at a name that it imports.
func starts(b, whole []byte) (at []int) {
	for i := 0; ; i++ {
		n := bytes.IndexByte(b[i:], 0x80)
		if n < 0 {
			break
		}
		if i += n; i+1 < len(whole) && whole[i+1] >= 2 && whole[i+1] <= 5 {
			at = append(at, i)
		}
	}
	for _, m := range imported.FindAllIndex(whole, -1) {
		if m[0] < len(b) {
			at = append(at, m[0])
		}
	}
	return at
}
