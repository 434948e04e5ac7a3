package wheel

import (
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
)

// maxPath is how much of a path file is read, in bytes; honest ones have a few lines.
const maxPath = 64 << 10

// attack are words by which a line of a path file does more than to import a module or
// to say where modules are: it decodes, fetches, starts programs or looks names up.
var attack = regexp.MustCompile(`base64|b64|subprocess|\bsystem\b|popen|spawn|\bexec[lv]|socket|urllib|urlopen|requests|http|ctypes|marshal|zlib|bz2|lzma|codecs|pickle|` +
	`\beval\b|\bcompile\b|\bopen\b|\bgetattr\b|\bchr\b|\bord\b|fromhex|\\x|\\u|\\[0-7]|\bthreading|multiprocessing|\bpty\b|runpy|\[::-1\]|\bglobals\b|\bvars\b|builtins|\bb['"]`)

// programs are those that a package has no business to put itself in the place of;
// constant.
var programs = []string{"python", "python2", "python3", "pip", "pip2", "pip3", "sh", "bash", "sudo", "su", "ssh", "git", "ls", "env", "cat", "cp", "ps"}

// system are places below the prefix of an installation that the system acts on by
// itself; constant.
var system = []string{"etc/cron", "etc/init", "etc/rc", "etc/profile", "etc/bash", "etc/systemd", "lib/systemd", "etc/ld.so", "etc/sudoers", "etc/pam", "etc/ssh", "etc/xdg/autostart", "etc/udev"}

// others are packages that lie beside every package and run with all of them, by the
// distribution that they belong to; constant.
var others = map[string]string{"pip": "pip", "setuptools": "setuptools", "_distutils_hack": "setuptools", "pkg_resources": "setuptools", "_pytest": "pytest"}

// takesOver says how a member puts itself in the way of what belongs to others; empty:
// it does not.
func (w *wheel) takesOver(name string) string {
	top, rest, _ := strings.Cut(name, "/")
	if strings.HasSuffix(top, ".data") {
		scheme, below, _ := strings.Cut(rest, "/")
		switch {
		case scheme == "scripts" && w.program(below), scheme == "data" && path.Dir(below) == "bin" && w.program(path.Base(below)):
			return "is put in the place of a program that everybody runs"
		case scheme == "data" && slices.ContainsFunc(system, func(p string) bool { return strings.HasPrefix(below, p) }):
			return "is put where the system acts on it by itself"
		}
		top, _, _ = strings.Cut(below, "/")
	}
	if owner, ok := others[top]; ok && owner != w.subject.Ref.Name && top != name {
		return "is put into the package " + top + ", which is not its own"
	}
	if !startsWithPython(name) {
		return ""
	}
	if !strings.HasSuffix(name, ".pth") {
		return "runs whenever Python starts, in the place of what an administrator puts there"
	}
	text, err := w.text(name)
	if err != nil {
		return "runs whenever Python starts, and cannot be read: " + err.Error()
	}
	for line := range strings.SplitSeq(text, "\n") {
		// Only such lines are run (CPython, Lib/site.py, addpackage).
		if !strings.HasPrefix(line, "import ") && !strings.HasPrefix(line, "import\t") {
			continue
		}
		if word := attack.FindString(line); word != "" {
			return fmt.Sprintf("runs whenever Python starts, with %q in it", word)
		}
	}
	return ""
}

func (w *wheel) program(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	return slices.Contains(programs, base) && base != w.subject.Ref.Name && !strings.Contains(name, "/")
}

func (w *wheel) text(name string) (text string, err error) {
	r, err := w.open(name, maxPath)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err := io.ReadAll(io.LimitReader(r, maxPath))
	return string(b), err
}
