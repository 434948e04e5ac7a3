package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// ParseCheckpoint reads a signed head and verifies its one signature.
func ParseCheckpoint(signed, origin string, key ed25519.PublicKey) (Head, error) {
	var h Head
	v := &noteVerifier{origin, key}
	n, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		return h, fmt.Errorf("checkpoint: %w", err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 7 || lines[0] != origin || len(n.UnverifiedSigs) != 0 {
		return h, fmt.Errorf("checkpoint: not one of %s", origin)
	}
	// tlog knows only its own first line; the rest is the same format.
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + lines[1] + "\n" + lines[2] + "\n"))
	if err != nil {
		return h, fmt.Errorf("checkpoint: %w", err)
	}
	h = Head{Size: tree.N, Root: tree.Hash, Note: signed}
	size, ok1 := strings.CutPrefix(lines[3], "bytes ")
	open, ok2 := strings.CutPrefix(lines[4], "open ")
	last, ok3 := strings.CutPrefix(lines[5], "last ")
	if !ok1 || !ok2 || !ok3 {
		return h, errors.New("checkpoint: an extension line is missing")
	}
	if h.Bytes, err = strconv.ParseInt(size, 10, 64); err != nil {
		return h, fmt.Errorf("checkpoint: %w", err)
	}
	if h.Last, err = time.Parse(time.RFC3339Nano, last); err != nil {
		return h, fmt.Errorf("checkpoint: %w", err)
	}
	for _, s := range strings.FieldsFunc(open, func(r rune) bool { return r == ',' }) {
		i, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return h, fmt.Errorf("checkpoint: %w", err)
		}
		h.Open = append(h.Open, i)
	}
	return h, nil
}

// Extends checks that an earlier head is a prefix of this ledger: nothing that
// was recorded under it was changed or cut off.
func (l *Log) Extends(earlier Head) error {
	if earlier.Size > l.head.Size {
		return broken(fmt.Errorf("has %d records, but a checkpoint over %d is held: it was cut back", l.head.Size, earlier.Size))
	}
	root, err := tlog.TreeHash(earlier.Size, l)
	if err != nil {
		return broken(err)
	}
	if root != earlier.Root {
		return broken(fmt.Errorf("its first %d records are not those of the checkpoint held over them", earlier.Size))
	}
	return nil
}

// Verify reads every record, computes the tree anew and compares it with the
// head, and checks that intents and outcomes go together. It returns the number
// of records.
func (l *Log) Verify(actor func(r Record) error) (int64, error) {
	m := memory{}
	open := map[int64]string{}
	var n int64
	err := l.each(func(r Record, line []byte) error {
		hs, err := tlog.StoredHashes(n, line, &m)
		if err != nil {
			return err
		}
		m = append(m, hs...)
		n++
		switch r.Phase {
		case Intent:
			open[r.Index] = r.Act
		case Outcome:
			if r.Intent == nil || open[*r.Intent] != r.Act {
				return fmt.Errorf("record %d: is the outcome of nothing", r.Index)
			}
			delete(open, *r.Intent)
		default:
			return fmt.Errorf("record %d: unknown phase %q", r.Index, r.Phase)
		}
		return actor(r)
	})
	if err != nil {
		return n, broken(err)
	}
	root, err := tlog.TreeHash(n, &m)
	if err != nil {
		return n, broken(err)
	}
	if n != l.head.Size || root != l.head.Root {
		return n, broken(fmt.Errorf("the %d records are not those that the head was signed over", n))
	}
	for _, i := range l.head.Open {
		delete(open, i)
	}
	if len(open) != 0 {
		return n, broken(errors.New("an intent has neither an outcome nor a place in the head"))
	}
	return n, nil
}

type memory []tlog.Hash

func (m *memory) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, n := range at {
		if n < 0 || n >= int64(len(*m)) {
			return nil, fmt.Errorf("hash %d is not stored", n)
		}
		out[i] = (*m)[n]
	}
	return out, nil
}

// noteSigner signs notes as C2SP signed-note asks of Ed25519 keys: the key hash
// is over name, newline, algorithm byte 1 and the public key.
type noteSigner struct {
	name string
	key  ed25519.PrivateKey
}

func (s *noteSigner) Name() string { return s.name }
func (s *noteSigner) KeyHash() uint32 {
	return keyHash(s.name, s.key.Public().(ed25519.PublicKey)) //nolint:forcetypeassert // always, for this type
}
func (s *noteSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

type noteVerifier struct {
	name string
	key  ed25519.PublicKey
}

func (v *noteVerifier) Name() string                { return v.name }
func (v *noteVerifier) KeyHash() uint32             { return keyHash(v.name, v.key) }
func (v *noteVerifier) Verify(msg, sig []byte) bool { return ed25519.Verify(v.key, msg, sig) }

func keyHash(name string, key ed25519.PublicKey) uint32 {
	return noteHash(append([]byte(name+"\n\x01"), key...))
}

// noteHash is the first four bytes of SHA-256, big-endian.
func noteHash(b []byte) uint32 {
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint32(sum[:])
}
