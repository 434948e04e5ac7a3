package pypi

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"enisle/internal/artifact"
)

var separators = regexp.MustCompile(`[-_.]+`)

// Normalise returns a project name in the one form that indexes use (PEP 503).
func Normalise(name string) string { return artifact.Normal(Kind, name) }

// checkNames refuses a file whose name is not that of its project and version.
func checkNames(a *artifact.Artifact) error {
	for _, f := range a.Files {
		name, version, err := parseFileName(f.Path)
		if err != nil {
			return err
		}
		if Normalise(name) != a.Ref.Name || !sameVersion(version, a.Ref.Version) {
			return fmt.Errorf("%s: the file %s is of another project or version", a.Ref, f.Path)
		}
	}
	return nil
}

// parseFileName splits the name of a wheel (PEP 427) or an sdist (PEP 625).
func parseFileName(file string) (name, version string, err error) {
	if base, ok := strings.CutSuffix(file, ".whl"); ok {
		parts := strings.Split(base, "-")
		if len(parts) == 5 || len(parts) == 6 {
			return parts[0], parts[1], nil
		}
	}
	if base, ok := strings.CutSuffix(file, ".tar.gz"); ok {
		if i := strings.LastIndex(base, "-"); i > 0 {
			return base[:i], base[i+1:], nil
		}
	}
	return "", "", fmt.Errorf("%.80q is neither a wheel nor an sdist", file)
}

// versionForm is the grammar of PEP 440, appendix B, for folded text.
var versionForm = regexp.MustCompile(`^v?(?:(\d+)!)?(\d+(?:\.\d+)*)` +
	`(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?(\d*))?` +
	`(?:-(\d+)|[-_.]?(post|rev|r)[-_.]?(\d*))?` +
	`(?:[-_.]?(dev)[-_.]?(\d*))?` +
	`(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?$`)

// sameVersion reports whether two versions are one for PEP 440: file names and
// metadata differ in how they write them ("2024.07.04" and "2024.7.4"). In
// file names the + of a local version may stand as _.
func sameVersion(a, b string) bool {
	return a == b || canonical(a) == canonical(b)
}

func canonical(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	m := versionForm.FindStringSubmatch(s)
	if m == nil {
		if i := strings.IndexByte(s, '_'); i > 0 {
			m = versionForm.FindStringSubmatch(s[:i] + "+" + s[i+1:])
		}
	}
	if m == nil {
		return s
	}
	var out strings.Builder
	if number(m[1]) != "0" {
		out.WriteString(number(m[1]) + "!")
	}
	release := strings.Split(m[2], ".")
	for i := range release {
		release[i] = number(release[i])
	}
	for len(release) > 1 && release[len(release)-1] == "0" {
		release = release[:len(release)-1]
	}
	out.WriteString(strings.Join(release, "."))
	if m[3] != "" {
		short := map[string]string{"alpha": "a", "beta": "b", "preview": "rc", "pre": "rc", "c": "rc"}[m[3]]
		if short == "" {
			short = m[3]
		}
		out.WriteString(short + number(m[4]))
	}
	if m[5] != "" || m[6] != "" {
		out.WriteString(".post" + number(m[5]+m[7]))
	}
	if m[8] != "" {
		out.WriteString(".dev" + number(m[9]))
	}
	if m[10] != "" {
		out.WriteString("+" + separators.ReplaceAllString(m[10], "."))
	}
	return out.String()
}

// number drops leading zeros; no digits are 0.
func number(digits string) string {
	digits = strings.TrimLeft(digits, "0")
	if digits == "" {
		return "0"
	}
	return digits
}

// rank orders wheels of one project version for a target: higher fits better,
// below 0 does not fit. It is the order of PEP 425 for CPython on the target:
// built for this very Python, then the stable ABI, then without ABI, then pure;
// among equals the newest Python and the newest C library. version is such as
// "3.12"; empty takes any. Which platforms fit was decided by the client.
func rank(file, version string) int {
	parts := strings.Split(strings.TrimSuffix(file, ".whl"), "-")
	if len(parts) < 5 || !strings.HasSuffix(file, ".whl") {
		return -1
	}
	parts = parts[len(parts)-3:]
	_, minor, _ := strings.Cut(version, ".")
	minor, _, _ = strings.Cut(minor, ".")
	target, err := strconv.Atoi(minor)
	if err != nil {
		target = -1
	}
	best := -1
	for python := range strings.SplitSeq(parts[0], ".") {
		for abi := range strings.SplitSeq(parts[1], ".") {
			best = max(best, rankTag(python, abi, target))
		}
	}
	if best < 0 {
		return -1
	}
	libc := 0
	for platform := range strings.SplitSeq(parts[2], ".") {
		libc = max(libc, glibc(platform))
	}
	if parts[2] != "any" {
		best += 1000
	}
	return best*1000 + libc
}

// rankTag is below 5000; target is the minor version of Python 3, -1 for any.
func rankTag(python, abi string, target int) int {
	if v, ok := strings.CutPrefix(python, "cp3"); ok {
		minor, err := strconv.Atoi(v)
		exact := target < 0 || minor == target
		older := target < 0 || minor <= target
		switch {
		case err != nil:
			return -1
		case abi == python && exact:
			return 3000 + minor
		case abi == "abi3" && older:
			return 2000 + minor
		case abi == "none" && exact:
			return 1000 + minor
		}
		return -1
	}
	if abi == "none" && strings.HasPrefix(python, "py3") {
		minor, err := strconv.Atoi("0" + strings.TrimPrefix(python, "py3"))
		if err != nil || target >= 0 && minor > target {
			return -1
		}
		return minor
	}
	return -1
}

// glibc is the minor version of glibc 2 that a platform tag asks for (PEP 600),
// 0 if it asks for none.
func glibc(platform string) int {
	for old, minor := range map[string]int{"manylinux1_": 5, "manylinux2010_": 12, "manylinux2014_": 17} {
		if strings.HasPrefix(platform, old) {
			return minor
		}
	}
	if v, ok := strings.CutPrefix(platform, "manylinux_2_"); ok {
		v, _, _ = strings.Cut(v, "_")
		if n, err := strconv.Atoi(v); err == nil {
			return n
		}
	}
	return 0
}
