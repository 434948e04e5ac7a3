package debian

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"enisle/internal/artifact"
)

// source is what an entry of apt's sources says of an archive.
type source struct {
	signedBy string
	trusted  bool // it is taken whatever its signature
}

// source finds the entry of an archive in the file that apt names, which apt in its
// sandbox could not have written.
func (r *run) source(a repository) (s source, err error) {
	b, err := r.settings(a.entry)
	if err != nil {
		return s, err
	}
	var all []source
	add := func(uris, suites, signedBy, trusted string) {
		for _, u := range strings.Fields(uris) {
			for _, suite := range strings.Fields(suites) {
				if release(u, suite) == strings.ReplaceAll(a.base, "/./", "/") {
					all = append(all, source{signedBy, trusted != "" && trusted != "no"})
				}
			}
		}
	}
	if filepath.Ext(a.entry) == ".sources" {
		err = paragraphs(bytes.NewReader(b), func(text string) {
			f := fields(text)
			add(field(f, "URIs"), field(f, "Suites"), field(f, "Signed-By"), field(f, "Trusted"))
		})
	} else {
		for l := range strings.Lines(string(b)) {
			if g := lineForm.FindStringSubmatch(l); g != nil {
				opt := map[string]string{}
				for _, o := range strings.Fields(g[1]) {
					key, v, _ := strings.Cut(o, "=")
					opt[key] = v
				}
				add(g[2], g[3], opt["signed-by"], opt["trusted"])
			}
		}
	}
	switch {
	case err != nil:
		return s, err
	case len(all) == 0 || slices.ContainsFunc(all, func(o source) bool { return o != all[0] }):
		return s, errors.New("its source is not found, or not clear")
	case all[0].trusted:
		return s, errors.New("its source says Trusted, whatever its signature")
	}
	return all[0], nil
}

// lineForm is a source in one line: options, address, suite; constant.
var lineForm = regexp.MustCompile(`^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)`)

// release is the address of the Release of a suite; one that ends with a slash is where
// it lies.
func release(uri, suite string) string {
	uri = strings.TrimSuffix(uri, "/") + "/"
	if strings.HasSuffix(suite, "/") {
		return strings.ReplaceAll(uri+suite, "/./", "/")
	}
	return uri + "dists/" + suite + "/"
}

// settings reads a file of this machine's, or of the request.
func (r *run) settings(name string) ([]byte, error) {
	if below, err := filepath.Rel(r.want.Work, name); !filepath.IsAbs(name) || err == nil && filepath.IsLocal(below) {
		return nil, errors.New("its source, or a keyring of it, is not a file of this machine's settings")
	}
	return readUpTo(os.Open(name))
}

func readUpTo(f *os.File, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRelease+1))
	if err = errors.Join(err, f.Close()); err == nil && len(b) > maxRelease {
		err = fmt.Errorf("%s is larger than it may be", filepath.Base(f.Name()))
	}
	return b, err
}

// keyring returns the keys that may sign for a source, and a digest over them: those
// that it names, or those that apt always trusts.
func (r *run) keyring(s source) (ring openpgp.EntityList, _ artifact.Digest, err error) {
	var raw, only []string
	if strings.Contains(s.signedBy, "-----BEGIN PGP") {
		var b strings.Builder
		for l := range strings.Lines(s.signedBy) {
			l = strings.TrimSpace(l)
			b.WriteString(strings.TrimPrefix(l, ".") + "\n")
		}
		raw = []string{b.String()}
	} else {
		for _, v := range strings.FieldsFunc(s.signedBy, func(c rune) bool { return c == ',' || c == ' ' || c == '\n' || c == '\t' }) {
			if !strings.HasPrefix(v, "/") {
				only = append(only, strings.ToUpper(strings.TrimSuffix(v, "!")))
				continue
			}
			b, err := r.settings(v)
			if err != nil {
				return nil, "", fmt.Errorf("its keyring: %w", err)
			}
			raw = append(raw, string(b))
		}
	}
	if len(raw) == 0 {
		if raw, err = r.always(); err != nil {
			return nil, "", err
		}
	}
	for _, text := range raw {
		keys, err := readKeys([]byte(text))
		if err != nil && len(raw) == 1 {
			return nil, "", fmt.Errorf("its keyring: %w", err)
		}
		ring = append(ring, keys...)
	}
	ring = slices.DeleteFunc(ring, func(e *openpgp.Entity) bool { return len(only) > 0 && !slices.Contains(only, fingerprint(e)) })
	if len(ring) == 0 {
		return nil, "", errors.New("there is no key for its source")
	}
	return ring, artifact.Sum([]byte(strings.Join(append(only, raw...), "\n"))), nil
}

// always are the keyrings that count for sources which name none.
func (r *run) always() (out []string, err error) {
	etc := r.Etc
	if etc == "" {
		etc = "/etc/apt"
	}
	names := []string{filepath.Join(etc, "trusted.gpg")}
	for _, form := range []string{"*.gpg", "*.asc"} {
		more, err := filepath.Glob(filepath.Join(etc, "trusted.gpg.d", form))
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	for _, name := range names {
		b, err := r.settings(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, string(b))
	}
	return out, nil
}

func readKeys(b []byte) (openpgp.EntityList, error) {
	if bytes.Contains(b, []byte("-----BEGIN PGP")) {
		return openpgp.ReadArmoredKeyRing(bytes.NewReader(b))
	}
	return openpgp.ReadKeyRing(bytes.NewReader(b))
}

func fingerprint(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

// signedRelease returns the name and the bytes of what holds the signature of a Release,
// the text that it is over, and the keys of the ring that made it.
func signedRelease(lists *os.Root, prefix string, ring openpgp.EntityList, at time.Time) (name string, raw, text []byte, keys []string, err error) {
	name = "InRelease"
	var body io.Reader
	raw, err = readUpTo(lists.Open(prefix + name))
	switch {
	case err == nil:
		block, rest := clearsign.Decode(raw)
		if block == nil || len(bytes.TrimSpace(rest)) > 0 || !bytes.HasPrefix(raw, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
			return name, raw, nil, nil, errors.New("InRelease is not one signed text and nothing else")
		}
		text, body = block.Bytes, block.ArmoredSignature.Body
	case errors.Is(err, fs.ErrNotExist):
		name = "Release.gpg"
		if text, err = readUpTo(lists.Open(prefix + "Release")); err == nil {
			raw, err = readUpTo(lists.Open(prefix + name))
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("apt kept no signature of it")
		}
		body = bytes.NewReader(raw)
		if block, berr := armor.Decode(bytes.NewReader(raw)); berr == nil {
			body = block.Body
		}
	}
	if err != nil {
		return name, raw, nil, nil, err
	}
	if keys = signers(ring, text, body, at); len(keys) == 0 {
		err = fmt.Errorf("%s is not signed by a key that its source names, and that counts", name)
	}
	return name, raw, text, keys, err
}

// maxSignatures is how many signatures of one text are looked at.
const maxSignatures = 32

// signers are the fingerprints of the keys of a ring that signed a text, each once.
func signers(ring openpgp.EntityList, text []byte, signatures io.Reader, at time.Time) (out []string) {
	all := packet.NewReader(signatures)
	for range maxSignatures {
		p, err := all.Next()
		if err != nil {
			break // what comes behind is of nobody
		}
		sig, ok := p.(*packet.Signature)
		if !ok {
			break
		}
		var one bytes.Buffer
		if sig.Serialize(&one) != nil {
			continue
		}
		_, by, err := openpgp.VerifyDetachedSignature(ring, bytes.NewReader(text), &one, &packet.Config{Time: func() time.Time { return at }})
		if err == nil && !slices.Contains(out, fingerprint(by)) {
			out = append(out, fingerprint(by))
		}
	}
	return out
}
