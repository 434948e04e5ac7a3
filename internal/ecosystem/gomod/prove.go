package gomod

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	modzip "golang.org/x/mod/zip"
	"golang.org/x/sync/errgroup"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

var _ ecosystem.Proving = (*Ecosystem)(nil)

// Go's own database, its other name, and its key: go has them built in as well
// (cmd/go/internal/modfetch/key.go).
const (
	goDatabase      = "sum.golang" + ".org"
	goDatabaseAlias = "sum.golang.google" + ".cn"
	goDatabaseKey   = goDatabase + "+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
)

// verifierOf is the key that go was set to by GOSUMDB: KEY, or KEY and an address.
func verifierOf(gosumdb string) (note.Verifier, string, error) {
	f := strings.Fields(gosumdb)
	if len(f) == 0 || f[0] == "off" {
		return nil, "", errors.New("go is set to no checksum database")
	}
	if f[0] == goDatabase || f[0] == goDatabaseAlias {
		f[0] = goDatabaseKey
	}
	v, err := note.NewVerifier(f[0])
	return v, f[0], err
}

// Prove verifies, from what is brought of the checksum database that go was set to, the
// signature on its newest head, that every record is in the tree of that head, and that
// modules are what their records say. It needs nothing from outside.
func (e *Ecosystem) Prove(ctx context.Context, want ecosystem.Want, found ecosystem.Found) ([]ecosystem.Proof, error) {
	r, err := e.start(ctx, want)
	if err != nil {
		return nil, err
	}
	out, err := r.gocmd(ctx, want.Work, "env", "-json", "GOSUMDB")
	if err != nil {
		return nil, err
	}
	var env struct{ GOSUMDB string }
	if err := json.Unmarshal(out, &env); err != nil {
		return nil, err
	}
	return prove(ctx, env.GOSUMDB, found)
}

func prove(ctx context.Context, gosumdb string, found ecosystem.Found) ([]ecosystem.Proof, error) {
	without := func(why string) []ecosystem.Proof { return []ecosystem.Proof{{Why: why, Covers: found.Artifacts}} }
	i := slices.IndexFunc(found.Artifacts, func(a artifact.Artifact) bool { return strings.HasPrefix(a.Ref.Name, databaseName) })
	if i < 0 {
		return without("nothing was looked up in a checksum database"), nil
	}
	verifier, key, err := verifierOf(gosumdb)
	if err != nil {
		return without(err.Error()), nil
	}
	db := proven{verifier: verifier, tiles: map[string][]byte{}, sums: map[string]string{}}
	a := found.Artifacts[i]
	covered, err := db.read(a, found.Open)
	if fail.IsRefused(err) {
		return nil, err
	}
	if err != nil {
		return without(err.Error()), nil
	}
	p := ecosystem.Proof{
		Format: "sumdb", Keys: []string{fmt.Sprintf("%s+%08x", verifier.Name(), verifier.KeyHash())},
		Document: a.Ref.Name + "/" + db.head.Path, Digest: db.head.Digest, Trust: artifact.Sum([]byte(key)),
		Covers: []artifact.Artifact{{Ref: a.Ref, Files: covered}},
	}
	good, errs := db.modules(ctx, found)
	var why []ecosystem.Proof
	for i, a := range found.Artifacts {
		switch err := errs[i]; {
		case strings.HasPrefix(a.Ref.Name, databaseName):
		case fail.IsRefused(err) || ctx.Err() != nil:
			return nil, fmt.Errorf("%s: %w", a.Ref, errors.Join(err, ctx.Err()))
		case err != nil:
			why = append(why, ecosystem.Proof{Why: err.Error(), Covers: []artifact.Artifact{a}})
		default:
			p.Covers = append(p.Covers, artifact.Artifact{Ref: a.Ref, Files: good[i]})
		}
	}
	return append(why, p), nil
}

// proven is what follows from the signed head of a checksum database. It is a
// tlog.TileReader of the tiles that are held.
type proven struct {
	verifier note.Verifier
	head     artifact.File
	tiles    map[string][]byte // by path
	sums     map[string]string // hash by "MODULE VERSION" and "MODULE VERSION/go.mod"
}

type opener = func(artifact.Digest) (ecosystem.Blob, error)

// read verifies a part of a database, and returns its files that are good.
func (p *proven) read(a artifact.Artifact, open opener) (good []artifact.File, err error) {
	below := p.verifier.Name() + "/"
	lookups := map[string][]byte{}
	var head []byte
	for _, f := range a.Files {
		name, ok := strings.CutPrefix(f.Path, below)
		if !ok {
			continue // of another database
		}
		b, err := content(open, f, 1<<20)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		switch {
		case name == "latest":
			p.head, head = f, b
		case strings.HasPrefix(name, "lookup/"):
			lookups[f.Path] = b
		default:
			p.tiles[name] = b
		}
	}
	tree, err := p.tree(head)
	if err != nil {
		return nil, fmt.Errorf("the head of %s: %w", p.verifier.Name(), err)
	}
	hashes := tlog.TileHashReader(tree, p)
	for _, f := range a.Files {
		name, ok := strings.CutPrefix(f.Path, below)
		b, isRecord := lookups[f.Path]
		switch {
		case isRecord:
			err := p.record(b, tree, hashes)
			if fail.IsRefused(err) {
				return nil, fmt.Errorf("%s: %w", f.Path, err)
			}
			ok = err == nil
		case ok && name != "latest":
			ok = p.tile(name, tree, hashes)
		}
		if ok {
			good = append(good, f)
		}
	}
	return good, nil
}

// tile reports whether the hashes of a tile are those of the tree.
func (p *proven) tile(name string, tree tlog.Tree, hashes tlog.HashReader) bool {
	t, err := tlog.ParseTilePath(name)
	if err != nil || t.H != p.Height() || t.L < 0 || t.L > 4 || t.N > tree.N>>(8*(t.L+1)) {
		return false
	}
	is, err := tlog.ReadTileData(t, hashes)
	return err == nil && bytes.Equal(is, p.tiles[name])
}

// tree opens a head that the key must have signed.
func (p *proven) tree(head []byte) (tlog.Tree, error) {
	n, err := note.Open(head, note.VerifierList(p.verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	return tlog.ParseTree([]byte(n.Text))
}

// record takes the hashes of a record that is in the tree. The head that it came with
// must be signed as well.
func (p *proven) record(b []byte, tree tlog.Tree, hashes tlog.HashReader) error {
	id, text, head, err := tlog.ParseRecord(b)
	if err != nil {
		return err
	}
	if _, err := p.tree(head); err != nil {
		return err
	}
	if id < 0 || id >= tree.N {
		return errors.New("it is not in the tree")
	}
	h, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, id)})
	if err != nil {
		return err
	}
	if h[0] != tlog.RecordHash(text) {
		return fail.Refuse("find out who changed what go looked up", errors.New("the checksum database has another record"))
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[2], "h1:") {
			p.sums[f[0]+" "+f[1]] = f[2]
		}
	}
	return nil
}

// modules compares all of them, a few at a time: unpacking is what takes long.
func (p *proven) modules(ctx context.Context, found ecosystem.Found) (good [][]artifact.File, errs []error) {
	good, errs = make([][]artifact.File, len(found.Artifacts)), make([]error, len(found.Artifacts))
	var g errgroup.Group
	g.SetLimit(4)
	for i, a := range found.Artifacts {
		g.Go(func() error {
			if errs[i] = ctx.Err(); errs[i] == nil {
				good[i], errs[i] = p.module(a, found.Open)
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are those of each
	return good, errs
}

// module compares a module with its record, and returns the files that it is about:
// .mod and .zip.
func (p *proven) module(a artifact.Artifact, open opener) (good []artifact.File, err error) {
	for _, f := range a.Files {
		key, sum := a.Ref.Name+" "+a.Ref.Version, hashMod
		switch path.Ext(f.Path) {
		case ".zip":
			sum = hashZip
		case ".mod":
			key += "/go.mod"
		default:
			continue
		}
		want, ok := p.sums[key]
		if !ok {
			return nil, errors.New("no record of the checksum database is proven about it")
		}
		got, err := sum(open, f)
		if err != nil {
			return nil, err
		}
		if got != want {
			return nil, fail.Refuse("do not use it", fmt.Errorf("%s is %s, and the checksum database has %s", f.Path, got, want))
		}
		good = append(good, f)
	}
	if len(good) == 0 {
		return nil, errors.New("it has no file that a checksum database knows")
	}
	return good, nil
}

func hashMod(open opener, f artifact.File) (string, error) {
	b, err := content(open, f, modzip.MaxGoMod)
	if err != nil {
		return "", err
	}
	return dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
}

// hashZip is the hash of the files in a module's zip; nothing is unpacked.
func hashZip(open opener, f artifact.File) (_ string, err error) {
	b, err := open(f.Digest)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	z, err := zip.NewReader(b, b.Size())
	if err != nil {
		return "", err
	}
	var names []string
	byName := map[string]*zip.File{}
	left := uint64(modzip.MaxZipFile)
	for _, e := range z.File {
		if byName[e.Name] != nil || e.UncompressedSize64 > left {
			return "", errors.New("it is no zip of a module")
		}
		left -= e.UncompressedSize64
		byName[e.Name] = e
		names = append(names, e.Name)
	}
	return dirhash.Hash1(names, func(name string) (io.ReadCloser, error) { return byName[name].Open() })
}

// content reads a held file of at most max bytes.
func content(open opener, f artifact.File, max int64) (_ []byte, err error) {
	b, err := open(f.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if b.Size() > max {
		return nil, errors.New("larger than it may be")
	}
	return io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
}

// Height is that of the tiles of every database that go asks.
func (*proven) Height() int { return 8 }

// ReadTiles returns tiles, cut from wider ones where those are held.
func (p *proven) ReadTiles(tiles []tlog.Tile) (out [][]byte, err error) {
	for _, t := range tiles {
		b, ok := p.tiles[t.Path()]
		for w := t; !ok && w.W < 1<<8; {
			w.W++
			b, ok = p.tiles[w.Path()]
		}
		if len(b) < t.W*tlog.HashSize {
			return nil, fmt.Errorf("%s is not held", t.Path())
		}
		out = append(out, b[:t.W*tlog.HashSize])
	}
	return out, nil
}

// SaveTiles keeps nothing.
func (*proven) SaveTiles([]tlog.Tile, [][]byte) {}
