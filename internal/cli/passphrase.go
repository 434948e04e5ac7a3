package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"

	"enisle/internal/fail"
)

// siteFile is the file with the passphrase of the site's keys.
func (e *env) siteFile() string {
	if e.sitePassphraseFile != "" {
		return e.sitePassphraseFile
	}
	return e.passphraseFile
}

// asks returns how a passphrase is asked for: from a file, else at the terminal;
// nil when nobody can answer.
func (e *env) asks(file string) func(what string) (string, error) {
	if file != "" {
		return func(string) (string, error) { return readPassphrase(file) }
	}
	in, ok := e.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	return func(what string) (string, error) {
		fmt.Fprintf(e.stderr, "passphrase of %s: ", what)
		b, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(e.stderr)
		return string(b), err
	}
}

func readPassphrase(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if len(line) == 0 {
		return "", fail.As(fail.Usage, "write the passphrase on its first line", fmt.Errorf("%s is empty", file))
	}
	return string(line), nil
}

// newPassphrase returns the passphrase for a new key: from the file, from the
// terminal (twice), or none if that was asked for.
func (e *env) newPassphrase(none bool, what string) (string, error) {
	if none {
		return "", nil
	}
	ask := e.asks(e.passphraseFile)
	if ask == nil {
		return "", fail.As(fail.Usage, "give --passphrase-file FILE, or --no-passphrase", errors.New("a key is protected by a passphrase and there is no terminal to ask for it"))
	}
	first, err := ask(what)
	if err != nil || e.passphraseFile != "" {
		return first, err
	}
	again, err := ask(what + ", again")
	if err == nil && (again != first || first == "") {
		err = fail.As(fail.Usage, "type it again", errors.New("the passphrases are empty or differ"))
	}
	return first, err
}
