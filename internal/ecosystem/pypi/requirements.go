package pypi

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

// Limits of requirements files.
const (
	maxRequirements = 16 << 20 // bytes of one file
	maxNesting      = 8        // files that name files
)

var (
	// pip, "Requirements File Format": a comment begins a line or follows white
	// space; ${NAME} is an environment variable.
	comment     = regexp.MustCompile(`(^|\s)#.*$`)
	environment = regexp.MustCompile(`\$\{[A-Z0-9_]+\}`)
	// What belongs to one requirement alone; hashes are all that is let through.
	perRequirement = regexp.MustCompile(`\s--?[a-z]`)
	hashOption     = regexp.MustCompile(`^--hash[ =]sha(256|384|512):[0-9a-f]+$`)
)

// copyRequirements copies a requirements file, and those it names, to where the
// client may read them. Lines are taken apart as pip does it and written anew,
// and whatever would bring something that does not come from an index, or is
// not known, is refused.
func copyRequirements(want ecosystem.Want, file string, depth int) (string, error) {
	if depth > maxNesting {
		return "", fail.As(fail.Usage, "flatten them", fmt.Errorf("requirements files nest deeper than %d", maxNesting))
	}
	b, err := os.ReadFile(filepath.Join(want.Dir, file))
	if err != nil {
		return "", fail.As(fail.Usage, "name a file beside the request", err)
	}
	if len(b) > maxRequirements || !utf8.Valid(b) {
		return "", fail.As(fail.Usage, "write it as UTF-8, in several files if it is large", fmt.Errorf("%s is not text of at most %d bytes", file, maxRequirements))
	}
	var out strings.Builder
	for _, line := range logicalLines(b) {
		line, err := requirementsLine(want, file, line, depth)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(&out, line)
	}
	f, err := os.CreateTemp(want.Work, "requirements-*.txt")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(out.String())
	return f.Name(), errors.Join(err, f.Close())
}

// logicalLines joins continued lines and drops comments and empty lines.
func logicalLines(b []byte) (lines []string) {
	open := ""
	for _, l := range strings.Split(string(bytes.TrimPrefix(b, []byte("\ufeff"))), "\n") {
		l = strings.TrimRight(l, "\r")
		isComment := strings.HasPrefix(strings.TrimSpace(l), "#")
		if rest, ok := strings.CutSuffix(l, `\`); ok && !isComment {
			open += rest
			continue
		}
		if isComment {
			l = " " + l // ends what was open, as in pip
		}
		if l = strings.TrimSpace(comment.ReplaceAllString(open+l, "")); l != "" {
			lines = append(lines, l)
		}
		open = ""
	}
	if l := strings.TrimSpace(comment.ReplaceAllString(open, "")); l != "" {
		lines = append(lines, l)
	}
	return lines
}

func requirementsLine(want ecosystem.Want, file, line string, depth int) (string, error) {
	refuse := func(hint, why string) (string, error) {
		return "", fail.Refuse(hint, fmt.Errorf("%s: %.80q %s", file, line, why))
	}
	if environment.MatchString(line) {
		return refuse("write the value out", "takes its value from the environment")
	}
	if !strings.HasPrefix(line, "-") {
		at := perRequirement.FindStringIndex(line)
		req, opts := line, ""
		if at != nil {
			req, opts = line[:at[0]], strings.TrimSpace(line[at[0]:])
		}
		if checkRequirement(req) != nil {
			return refuse("name a version that an index offers", "does not come from an index")
		}
		for opts != "" {
			next := perRequirement.FindStringIndex(opts)
			o := opts
			if next != nil {
				o = opts[:next[0]]
			}
			opts = strings.TrimSpace(opts[len(o):])
			if o = strings.TrimSpace(o); !hashOption.MatchString(o) {
				return refuse("only --hash may follow a requirement", fmt.Sprintf("has option %.40q", o))
			}
		}
		return line, nil
	}
	name, value := cutOption(line)
	switch name {
	case "-r", "--requirement", "-c", "--constraint":
		nested, err := copyRequirements(want, filepath.Join(filepath.Dir(file), value), depth+1)
		return name + " " + nested, err
	case "-i", "--index-url", "--extra-index-url":
		if !strings.HasPrefix(value, "https://") && !strings.HasPrefix(value, "http://") || strings.ContainsAny(value, " \t") {
			return refuse("name an index by its address", "is not an index")
		}
		return name + " " + value, nil
	}
	if slices.Contains([]string{"--pre", "--prefer-binary", "--require-hashes", "--no-index"}, line) {
		return line, nil
	}
	return refuse("take the option out; what only comes as source is brought with {sdist: …}, and settings belong into the client's own configuration", "is an option that is not taken")
}

// cutOption takes an option and its one value apart, in the ways that pip reads.
func cutOption(line string) (name, value string) {
	if strings.HasPrefix(line, "--") {
		i := strings.IndexAny(line, "= \t")
		if i < 0 {
			return line, ""
		}
		return line[:i], strings.TrimSpace(line[i+1:])
	}
	n := min(2, len(line))
	return line[:n], strings.TrimSpace(strings.TrimPrefix(line[n:], "="))
}

// checkRequirement refuses addresses, paths and files: they would bring
// something that no index vouches for.
func checkRequirement(req string) error {
	lower := strings.ToLower(req)
	archive := slices.ContainsFunc([]string{".whl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"}, func(s string) bool { return strings.HasSuffix(lower, s) })
	if strings.HasPrefix(req, ".") || strings.ContainsAny(req, `/\@`) || archive {
		return errors.New("not a requirement")
	}
	return nil
}
