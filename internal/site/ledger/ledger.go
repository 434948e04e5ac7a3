// Package ledger is a site's append-only record of every act.
//
// Records are lines of JSON in one file, the leaves of a Merkle tree (RFC 6962,
// golang.org/x/mod/sumdb/tlog); the head is a signed note in the C2SP
// checkpoint format. A record counts from the moment the checkpoint over it is
// on disk. The package knows nothing of what is recorded. Each act writes an
// intent before and an outcome after, so a crash in between shows as an open
// intent. See docs/spec/ledger.md.
package ledger

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"enisle/internal/fail"
)

// The phases of an act.
const (
	Intent  = "intent"
	Outcome = "outcome"
)

// Record is one line of the ledger.
type Record struct {
	Index   int64             `json:"index"` // from 0
	Time    time.Time         `json:"time"`
	Act     string            `json:"act"`
	Phase   string            `json:"phase"`
	Intent  *int64            `json:"intent,omitempty"` // outcome: the index of its intent
	Result  string            `json:"result,omitempty"` // outcome: done, refused, failed, interrupted
	Actor   Actor             `json:"actor"`
	Subject map[string]string `json:"subject,omitempty"`
}

// Actor is who acts. Without a key the actor is unproven: "uid:N".
type Actor struct {
	Name string `json:"name"`
	Key  string `json:"key,omitempty"` // id of the key that signed
	Sig  []byte `json:"sig,omitempty"` // over the intent without this field
}

// Log is an open ledger. One process at a time may append.
type Log struct {
	dir    string
	origin string
	key    ed25519.PrivateKey // nil: for reading only
	head   Head
	log    *os.File
	hashes *os.File
	memory memory // the hashes, where the file has not got them and may not be written
}

// Head is what a checkpoint says.
type Head struct {
	Size int64
	Root tlog.Hash
	Note string // the signed note
	// Bytes is the length of the file of records; Open are the intents without
	// an outcome. Both stand in extension lines of the note.
	Bytes int64
	Open  []int64
	Last  time.Time // latest time of a record since the clock was last vouched for
}

const (
	recordsFile    = "records.jsonl"
	hashesFile     = "hashes"
	checkpointFile = "checkpoint"
	maxRecord      = 1 << 20 // bytes of one line
)

// Create begins an empty ledger whose notes carry the origin.
func Create(dir, origin string, key ed25519.PrivateKey) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	for _, n := range []string{recordsFile, hashesFile} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o644); err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
	}
	l := &Log{dir: dir, origin: origin, key: key}
	root, err := tlog.TreeHash(0, l)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return l.sign(Head{Root: root})
}

// Open opens a ledger and checks that its head is signed by the key and is the
// head of what is stored. With a private key it may be appended to, and what a
// crash left behind the head, which no act ever relied on, is cut off.
func Open(dir, origin string, public ed25519.PublicKey, key ed25519.PrivateKey) (*Log, error) {
	l := &Log{dir: dir, origin: origin, key: key}
	b, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil {
		return nil, broken(err)
	}
	if l.head, err = ParseCheckpoint(string(b), origin, public); err != nil {
		return nil, broken(err)
	}
	flag := os.O_RDONLY
	if key != nil {
		flag = os.O_RDWR
	}
	if l.log, err = os.OpenFile(filepath.Join(dir, recordsFile), flag, 0); err != nil {
		return nil, broken(err)
	}
	if key != nil {
		flag |= os.O_CREATE // derived: settle fills it
	}
	l.hashes, err = os.OpenFile(filepath.Join(dir, hashesFile), flag, 0o644)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(broken(err), l.log.Close())
	}
	if err := l.settle(); err != nil {
		return nil, errors.Join(broken(err), l.Close())
	}
	return l, nil
}

func broken(err error) error {
	return fail.Refuse("the record was damaged or changed; restore the site's ledger from its backup and tell the security officer",
		fmt.Errorf("ledger: %w", err))
}

// Close closes the files.
func (l *Log) Close() error {
	if l.hashes == nil {
		return l.log.Close()
	}
	return errors.Join(l.log.Close(), l.hashes.Close())
}

// Head returns the current head.
func (l *Log) Head() Head { return l.head }

// settle makes files and head agree.
func (l *Log) settle() error {
	st, err := l.log.Stat()
	if err != nil {
		return err
	}
	if st.Size() < l.head.Bytes {
		return fmt.Errorf("%d bytes of records, the head was signed over %d", st.Size(), l.head.Bytes)
	}
	if st.Size() > l.head.Bytes && l.key != nil {
		if err := l.log.Truncate(l.head.Bytes); err != nil {
			return err
		}
	}
	root, err := tlog.TreeHash(l.head.Size, l)
	if err == nil && root == l.head.Root {
		return nil
	}
	// The hashes are derived: after a crash they may lag. The records decide.
	return l.rebuild()
}

// rebuild computes the stored hashes anew from the records; who only reads keeps
// them in memory.
func (l *Log) rebuild() error {
	if l.key == nil {
		l.memory = memory{}
	} else if err := l.hashes.Truncate(0); err != nil {
		return err
	}
	n := int64(0)
	err := l.each(func(_ Record, line []byte) error {
		err := l.putHashes(n, line)
		n++
		return err
	})
	if err != nil {
		return err
	}
	root, err := tlog.TreeHash(n, l)
	if err == nil && (n != l.head.Size || root != l.head.Root) {
		err = fmt.Errorf("the %d records are not those that the head was signed over", n)
	}
	return err
}

func (l *Log) putHashes(n int64, line []byte) error {
	hs, err := tlog.StoredHashes(n, line, l)
	if err != nil {
		return err
	}
	if l.memory != nil {
		l.memory = append(l.memory, hs...)
		return nil
	}
	var b []byte
	for _, h := range hs {
		b = append(b, h[:]...)
	}
	_, err = l.hashes.WriteAt(b, tlog.StoredHashIndex(0, n)*tlog.HashSize)
	return err
}

// ReadHashes implements tlog.HashReader over the stored hashes.
func (l *Log) ReadHashes(at []int64) ([]tlog.Hash, error) {
	if l.memory != nil {
		return l.memory.ReadHashes(at)
	}
	out := make([]tlog.Hash, len(at))
	if l.hashes == nil && len(at) > 0 {
		return nil, fs.ErrNotExist
	}
	for i, n := range at {
		if _, err := l.hashes.ReadAt(out[i][:], n*tlog.HashSize); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Begin records the intent of an act and returns its index. sign, which may be
// nil, proves the actor over the record's bytes. When Begin returns without an
// error the record is durable and the act may take effect.
func (l *Log) Begin(act string, actor Actor, subject map[string]string, now time.Time, sign func([]byte) ([]byte, error)) (int64, error) {
	r := Record{Index: l.head.Size, Time: now.UTC(), Act: act, Phase: Intent, Actor: actor, Subject: subject}
	if sign != nil {
		b, err := json.Marshal(r)
		if err != nil {
			return 0, fmt.Errorf("ledger: %w", err)
		}
		if r.Actor.Sig, err = sign(b); err != nil {
			return 0, fmt.Errorf("ledger: %w", err)
		}
	}
	open := append(slices.Clone(l.head.Open), r.Index)
	return r.Index, l.append(r, open, later(l.head.Last, r.Time))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// End records the outcome of an intent. vouched says that people vouch for now:
// it becomes the latest time even if earlier records bear a later one.
func (l *Log) End(intent int64, act, result string, actor Actor, subject map[string]string, now time.Time, vouched bool) error {
	i := slices.Index(l.head.Open, intent)
	if i < 0 {
		return fmt.Errorf("ledger: intent %d is not open", intent)
	}
	actor.Sig = nil
	r := Record{Index: l.head.Size, Time: now.UTC(), Act: act, Phase: Outcome, Intent: &intent, Result: result, Actor: actor, Subject: subject}
	last := later(l.head.Last, r.Time)
	if vouched {
		last = r.Time
	}
	return l.append(r, slices.Delete(slices.Clone(l.head.Open), i, i+1), last)
}

func (l *Log) append(r Record, open []int64, last time.Time) error {
	if l.key == nil {
		return errors.New("ledger: open for reading only")
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if len(line) > maxRecord {
		return fmt.Errorf("ledger: a record of %d bytes is larger than %d", len(line), maxRecord)
	}
	if _, err := l.log.WriteAt(append(line, '\n'), l.head.Bytes); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if err := l.putHashes(r.Index, line); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if err := l.log.Sync(); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	root, err := tlog.TreeHash(r.Index+1, l)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return l.sign(Head{Size: r.Index + 1, Root: root, Bytes: l.head.Bytes + int64(len(line)) + 1, Open: open, Last: last})
}

// sign makes h the head, durably.
func (l *Log) sign(h Head) error {
	signer := &noteSigner{l.origin, l.key}
	var ids []string
	for _, n := range h.Open {
		ids = append(ids, strconv.FormatInt(n, 10))
	}
	text := string(tlog.FormatTree(tlog.Tree{N: h.Size, Hash: h.Root}))
	_, rest, _ := strings.Cut(text, "\n")
	text = l.origin + "\n" + rest + fmt.Sprintf("bytes %d\nopen %s\nlast %s\n", h.Bytes, strings.Join(ids, ","), h.Last.UTC().Format(time.RFC3339Nano))
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if err := replace(filepath.Join(l.dir, checkpointFile), signed); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	h.Note = string(signed)
	l.head = h
	return nil
}

func replace(file string, b []byte) error {
	f, err := os.OpenFile(file+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+".tmp", file); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Tidy removes what a crash may have left beside the files.
func (l *Log) Tidy() error {
	err := os.Remove(filepath.Join(l.dir, checkpointFile+".tmp"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Each calls do for every record up to the head, in order.
func (l *Log) Each(do func(Record) error) error {
	return l.each(func(r Record, _ []byte) error { return do(r) })
}

func (l *Log) each(do func(r Record, line []byte) error) error {
	s := bufio.NewScanner(io.NewSectionReader(l.log, 0, l.head.Bytes))
	s.Buffer(make([]byte, 64<<10), maxRecord+1)
	for n := int64(0); s.Scan(); n++ {
		var r Record
		d := json.NewDecoder(bytes.NewReader(s.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
		if r.Index != n {
			return fmt.Errorf("record %d: says it is %d", n, r.Index)
		}
		if err := do(r, s.Bytes()); err != nil {
			return err
		}
	}
	return s.Err()
}
