package clamd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// headSize is the length of the head of a signed database, in bytes.
const headSize = 512

// Head is what a signed database of ClamAV says of itself.
type Head struct {
	Time    string // as it is written
	Version int    // grows with each
	Number  int    // of signatures
}

// databases are the suffixes of files that hold signatures, besides the signed ones;
// constant.
var databases = []string{".ndb", ".hdb", ".hsb", ".mdb", ".msb", ".ldb", ".cdb", ".fp", ".sfp", ".ign2", ".yar", ".yara", ".cbc", ".crb", ".idb", ".pdb", ".wdb", ".imp", ".info"}

// Signed reports whether a name is that of a signed database.
func Signed(name string) bool {
	return slices.Contains([]string{".cvd", ".cld", ".cud"}, path.Ext(name))
}

// Holds reports whether a file may hold signatures, by its name.
func Holds(name string) bool {
	return !strings.ContainsAny(name, "/\\") && !strings.HasPrefix(name, ".") && (Signed(name) || slices.Contains(databases, path.Ext(name)))
}

// Allows reports whether a file holds exceptions, by its name: what matches it is
// not found.
func Allows(name string) bool {
	return slices.Contains([]string{".fp", ".sfp", ".ign2"}, path.Ext(name))
}

// ReadHead reads the head of a signed database. That the signature is good is for
// ClamAV to say, which refuses to load it otherwise.
func ReadHead(r io.Reader) (h Head, err error) {
	b := make([]byte, headSize)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, fmt.Errorf("no database of ClamAV: %w", err)
	}
	// The build time holds no colon: "24 Nov 2026 08-25 +0000".
	f := strings.Split(string(bytes.TrimRight(b, " \x00\n")), ":")
	if len(f) < 8 || f[0] != "ClamAV-VDB" {
		return h, errors.New("no database of ClamAV")
	}
	h.Time = f[1]
	var errs [2]error
	h.Version, errs[0] = strconv.Atoi(f[2])
	h.Number, errs[1] = strconv.Atoi(f[3])
	if err := errors.Join(errs[:]...); err != nil || h.Version < 1 || h.Number < 1 {
		return h, errors.Join(errors.New("no database of ClamAV: its head has no version"), err)
	}
	return h, nil
}
