package crossing_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/crossing"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/store"
	"enisle/internal/site/trust"
)

// forge seals blobs with the low site's own key: a collector who turned hostile.
// The first blob is the content root.
func (w *world) forge(media string, blobs ...[]byte) {
	w.t.Helper()
	w.forgeVolumes(media, 0, blobs...)
}

// forgeVolumes is forge with volumes of a size.
func (w *world) forgeVolumes(media string, volume int64, blobs ...[]byte) {
	w.t.Helper()
	w.pack("genuine", 0)
	s, err := site.Open(w.t.Context(), w.path("low"), site.Options{})
	w.must(err)
	defer func() { w.must(s.Close()) }()
	b, err := os.ReadFile(w.path("genuine/header.json"))
	w.must(err)
	e, err := trust.Parse(b)
	w.must(err)
	h, err := shipment.DecodeHeader(e.Payload)
	w.must(err)
	w.must(os.RemoveAll(w.path("genuine")))

	content := map[artifact.Digest][]byte{}
	var list []shipment.Blob
	for _, c := range blobs {
		content[artifact.Sum(c)] = c
		list = append(list, shipment.Blob{Digest: artifact.Sum(c), Size: int64(len(c))})
	}
	to, err := age.ParseHybridRecipient(s.Roots.Root().Peers[0].Recipient)
	w.must(err)
	w.must(os.MkdirAll(w.path(media), 0o755))
	dir, err := os.OpenRoot(w.path(media))
	w.must(err)
	h.Volumes, err = shipment.Write(w.t.Context(), dir, list, shipment.WriteOptions{
		Set: h.SetBytes(), VolumeSize: volume, Recipients: []age.Recipient{to},
		Open: func(b shipment.Blob) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content[b.Digest])), nil
		},
	})
	w.must(err)
	bill := []byte("forged\n")
	h.Content, h.Blobs, h.Bytes, h.Bill = list[0].Digest, len(list), 0, artifact.Sum(bill)
	for _, b := range list {
		h.Bytes += b.Size
	}
	h.Carried = shipment.Carried{Blobs: h.Blobs, Bytes: h.Bytes}
	env, err := h.Encode(signer{s.Key})
	w.must(err)
	w.must(errors.Join(shipment.WriteFile(dir, shipment.BillName, bill), shipment.WriteFile(dir, shipment.HeaderName, env), dir.Close()))
}

type signer struct{ key *trust.Key }

func (s signer) Sign(payloadType string, payload []byte) ([]byte, error) {
	return trust.Sign(payloadType, payload, s.key)
}

// A signature does not make content good: what is inside is checked as well.
func TestHostileContentUnderAGoodSignatureIsRefused(t *testing.T) {
	good := artifact.Artifact{Ref: artifact.Ref{Kind: "files", Name: "x"}, Files: []artifact.File{{Path: "FILE", Size: 2, Digest: artifact.Sum([]byte("hi"))}}}
	index := func(m []byte) []byte {
		ix, err := store.EncodeIndex("test", []store.Entry{{Ref: good.Ref, Manifest: artifact.Sum(m), Size: int64(len(m))}})
		if err != nil {
			t.Fatal(err)
		}
		return ix
	}
	// manifest encodes good with its file name replaced afterwards.
	manifest := func(name string) []byte {
		m, err := store.EncodeManifest(good)
		if err != nil {
			t.Fatal(err)
		}
		q, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Replace(m, []byte(`"FILE"`), q, 1)
	}
	empty, hi := store.EmptyConfig(), []byte("hi")
	for name, tc := range map[string]struct {
		blobs func() [][]byte
		want  string
	}{
		"a path that leaves":          {func() [][]byte { m := manifest("../x"); return [][]byte{index(m), m, empty, hi} }, "path"},
		"an absolute path":            {func() [][]byte { m := manifest("/etc/x"); return [][]byte{index(m), m, empty, hi} }, "path"},
		"a path with a backslash":     {func() [][]byte { m := manifest(`a\b`); return [][]byte{index(m), m, empty, hi} }, "path"},
		"a name with control bytes":   {func() [][]byte { m := manifest("a\x1b[31m"); return [][]byte{index(m), m, empty, hi} }, "path"},
		"a manifest with extra space": {func() [][]byte { m := append(manifest("FILE"), ' '); return [][]byte{index(m), m, empty, hi} }, "canonical"},
		"a blob nobody asked for":     {func() [][]byte { m := manifest("FILE"); return [][]byte{index(m), m, empty, hi, []byte("stowaway")} }, "not part of"},
		"one before the manifest":     {func() [][]byte { m := manifest("FILE"); return [][]byte{index(m), []byte("stowaway"), m, empty, hi} }, "not part of"},
		"a file that is missing":      {func() [][]byte { m := manifest("FILE"); return [][]byte{index(m), m, empty} }, "not complete"},
		"a manifest that is missing":  {func() [][]byte { m := manifest("FILE"); return [][]byte{index(m), empty} }, "not complete"},
		"a root that is no index":     {func() [][]byte { return [][]byte{[]byte("{}"), empty} }, "canonical"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.request("x", 10)
			w.forge("media", tc.blobs()...)
			_, err := w.importFrom("media")
			refused(t, err, tc.want)
			w.nothingHere()
		})
	}
}

// eco is a package world whose one file lies at an address.
type eco struct {
	ecosystem.Ecosystem
	url     string
	content []byte
}

func (e eco) Name() string { return "pypi" }

func (e eco) Resolve(_ context.Context, _ ecosystem.Want) ([]artifact.Artifact, error) {
	f := artifact.File{Path: "x.whl", Size: int64(len(e.content)), Digest: artifact.Sum(e.content), Origin: e.url}
	return []artifact.Artifact{{Ref: artifact.Ref{Kind: "pypi", Name: "x", Version: "1"}, Files: []artifact.File{f}}}, nil
}

// A download that breaks off goes on where it stopped, and what an origin
// slipped in is refused.
func TestInterruptedDownloadsAreResumed(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var broken, sent atomic.Int64
	broken.Store(1)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if broken.Load() == 1 {
			rw.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = rw.Write(content[:600_000])
			panic(http.ErrAbortHandler)
		}
		c := &counter{ResponseWriter: rw}
		http.ServeContent(c, r, "", time.Time{}, bytes.NewReader(content))
		sent.Add(c.n)
	}))
	defer srv.Close()
	w := newWorld(t)
	s, err := site.Open(t.Context(), w.path("low"), site.Options{})
	w.must(err)
	defer func() { w.must(s.Close()) }()
	client, err := fetch.New(fetch.Options{Retries: -1})
	w.must(err)
	c := &crossing.Collector{Site: s, Ecosystems: []ecosystem.Ecosystem{eco{url: srv.URL, content: content}}, Fetch: client}
	req := crossing.Request{Name: "resumed", Bring: map[string][]any{"pypi": {"x"}}, File: w.path("resumed.yaml")}
	by, err := s.Actor("", nil)
	w.must(err)
	_, err = c.Collect(t.Context(), by, req, crossing.CollectOptions{})
	if fail.ExitCode(err) != 4 {
		t.Fatalf("got %v, want exit 4", err)
	}
	broken.Store(0)
	if _, err = c.Collect(t.Context(), by, req, crossing.CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := sent.Load(); n == 0 || n > int64(len(content))-500_000 {
		t.Errorf("the second run was sent %d of %d bytes", n, len(content))
	}
	sent.Store(0)
	out, err := c.Collect(t.Context(), by, req, crossing.CollectOptions{})
	if err != nil || out.Fetched != 0 || sent.Load() != 0 {
		t.Errorf("a third run: %+v, %d bytes, %v", out.Fetched, sent.Load(), err)
	}
	sum := sha256.Sum256(content)
	if b, err := os.ReadFile(filepath.Join(w.path("low"), "blobs/sha256", hex.EncodeToString(sum[:]))); err != nil || !bytes.Equal(b, content) {
		t.Errorf("held %d bytes, %v", len(b), err)
	}

	lying := eco{url: srv.URL, content: append([]byte("X"), content[1:]...)}
	c.Ecosystems = []ecosystem.Ecosystem{lying}
	req.Name = "lied"
	req.File = w.path("lied.yaml")
	_, err = c.Collect(t.Context(), by, req, crossing.CollectOptions{})
	if !fail.IsRefused(err) || !strings.Contains(err.Error(), "content is") {
		t.Errorf("a lying origin: %v", err)
	}
}

type counter struct {
	http.ResponseWriter
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

// What was rejected does not fill the quarantine for good, and an old shipment
// that cannot be read does not stand in the way of a new one.
func TestTheQuarantineIsTidied(t *testing.T) {
	w := newWorld(t)
	big := func() (n int) {
		files, err := filepath.Glob(w.path("high/quarantine/sha256/*"))
		w.must(err)
		for _, f := range files {
			if st, err := os.Stat(f); err == nil && st.Size() > 100_000 {
				n++
			}
		}
		return n
	}
	first := w.pack("one", 0)
	_, err := w.importFrom("one")
	w.must(err)
	w.inspect(first)
	_, err = w.as("high", "alice").Decide(t.Context(), first, crossing.Reject, crossing.ApproveOptions{Channel: "stable"})
	w.must(err)
	if big() != 1 {
		t.Fatalf("%d large files before", big())
	}
	w.request("another", 1000)
	w.collect()
	w.pack("two", 0)
	_, err = w.importFrom("two")
	w.must(err)
	if big() != 0 {
		t.Error("the file of a rejected shipment is kept")
	}
	if _, err := w.app("high").Review(t.Context(), first, "stable"); err != nil {
		t.Errorf("the list of a rejected shipment cannot be read: %v", err)
	}

	files, err := filepath.Glob(w.path("high/quarantine/sha256/*"))
	w.must(err)
	for _, f := range files {
		w.must(os.Remove(f))
	}
	w.request("a third", 2000)
	w.collect()
	w.pack("three", 0)
	if _, err := w.importFrom("three"); err != nil {
		t.Errorf("beside shipments that lost their content: %v", err)
	}
}

// What a disk damaged can be brought back by the medium that it came on.
func TestADamagedBlobIsBroughtBack(t *testing.T) {
	w := newWorld(t)
	w.cross("media")
	before, err := w.app("high").Served(t.Context(), "stable")
	w.must(err)
	files, err := filepath.Glob(w.path("high/blobs/sha256/*"))
	w.must(err)
	for _, f := range files {
		if st, err := os.Stat(f); err == nil && st.Size() > 100_000 {
			w.must(os.WriteFile(f, []byte("damaged"), 0o600))
		}
	}
	_, err = w.app("high").Check(t.Context(), true, func(string) {})
	refused(t, err, "1 of ")
	_, err = w.app("high").CheckRemove(t.Context(), func(string) {})
	w.must(err)
	out, err := w.app("high").Import(t.Context(), w.path("media"))
	if err != nil || out.Already {
		t.Fatalf("%+v, %v", out, err)
	}
	_, err = w.app("high").Check(t.Context(), true, func(string) {})
	w.must(err)
	served, err := w.app("high").Served(t.Context(), "stable")
	w.must(err)
	if len(served) != len(before) {
		t.Errorf("%d artifacts are served, of %d", len(served), len(before))
	}
	if out, err := w.app("high").Import(t.Context(), w.path("media")); err != nil || !out.Already {
		t.Errorf("again: %+v, %v", out, err)
	}
	left, err := filepath.Glob(w.path("high/quarantine/sha256/*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in quarantine: %v, %v", left, err)
	}
}

// An import that is interrupted again and again goes on where it stopped.
func TestAnImportIsTakenUpAtTheFrame(t *testing.T) {
	w := newWorld(t)
	w.request(strings.Repeat("x", 10), 40<<20)
	w.collect()
	w.pack("media", 0)
	s, err := site.Open(t.Context(), w.path("high"), site.Options{})
	w.must(err)
	t.Cleanup(func() { _ = s.Close() })
	by, err := s.Actor("", nil)
	w.must(err)
	resumed := 0
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		var done int64
		out, err := crossing.Import(ctx, s, by, crossing.ImportOptions{
			From: []string{w.path("media")}, MarkEvery: 5 << 20,
			Progress: func(string, int64) func(int64) {
				return func(n int64) {
					if done += n; done > 17<<20 {
						cancel()
					}
				}
			},
		})
		cancel()
		if out.Resumed {
			resumed++
		}
		if err == nil {
			break
		}
		if fail.ExitCode(err) != 4 || n > 10 {
			t.Fatalf("run %d: %v", n, err)
		}
	}
	if resumed < 2 {
		t.Errorf("taken up %d times", resumed)
	}
	w.must(s.Close())
	_, err = w.app("high").Check(t.Context(), true, func(string) {})
	w.must(err)
}
