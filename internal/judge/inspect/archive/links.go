package archive

import (
	"path"
	"strings"
)

// links are the links of one tar. Those that lead to where the archive is unpacked, on
// whatever way they are followed, do no harm: sources of packages have them, and the
// unpackers of Python and npm let them pass or leave them out.
type links struct {
	to    map[string]bool // where links stand, in lower case: some file systems see no other
	names []string        // of everything
	below int             // directories that a reader takes off every name
}

// stays reports whether a link leads below the directory that the archive is unpacked
// to. Steps up may only stand in front: behind a name that is itself a link, they would
// lead elsewhere than the text says.
func (l *links) stays(name, target string, hard bool) bool {
	if target == "" || strings.HasPrefix(target, "/") || strings.ContainsAny(target, "\\:\x00") {
		return false
	}
	at := path.Clean(name)
	l.to[strings.ToLower(at)] = true
	depth := strings.Count(at, "/") - l.below
	if hard {
		depth = 0 // its target is named from the root
	}
	down := false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; down || depth < 0 {
				return false
			}
		default:
			down = true
		}
	}
	return down
}

// through returns the first member that stands below a link, and would be written
// through it.
func (l *links) through() string {
	for _, n := range l.names {
		for dir := path.Dir(strings.ToLower(path.Clean(n))); dir != "." && dir != "/"; dir = path.Dir(dir) {
			if l.to[dir] {
				return n
			}
		}
	}
	return ""
}
