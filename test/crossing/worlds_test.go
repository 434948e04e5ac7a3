package crossing_test

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/note"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/policy"
	"enisle/internal/judge/upstream"
	"enisle/internal/site"
	"enisle/internal/site/store"
	"enisle/internal/site/trust"
)

// modules serves a proxy of Go with host.example/a, which needs host.example/b, and
// host.example/own, with a checksum database, and sets go to them. It returns how rules
// name the database.
func (w *world) modules() (signer string) {
	w.t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		w.t.Skip("go is not installed")
	}
	secret, public, err := note.GenerateKey(rand.Reader, "db.example")
	w.must(err)
	mods := map[string]string{"host.example/a": "module host.example/a\n\ngo 1.21\n\nrequire host.example/b v1.0.0\n", "host.example/b": "module host.example/b\n\ngo 1.21\n", "host.example/own": "module host.example/own\n"}
	zips, sums := map[string][]byte{}, map[string]string{}
	hash := func(name, text string) string {
		h, err := dirhash.Hash1([]string{name}, func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil })
		w.must(err)
		return h
	}
	for name, mod := range mods {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		f, err := z.Create(name + "@v1.0.0/go.mod")
		w.must(err)
		_, err = f.Write([]byte(mod))
		w.must(err)
		w.must(z.Close())
		zips[name] = b.Bytes()
		sums[name] = name + " v1.0.0 " + hash(name+"@v1.0.0/go.mod", mod) + "\n" + name + " v1.0.0/go.mod " + hash("go.mod", mod) + "\n"
	}
	db := sumdb.NewServer(sumdb.NewTestServer(secret, func(path, _ string) ([]byte, error) { return []byte(sums[path]), nil }))
	for name := range mods { // all are in it, and it stays as it is
		db.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, "/lookup/"+name+"@v1.0.0", nil))
	}
	mux := http.NewServeMux()
	mux.Handle("/sumdb/db.example/", http.StripPrefix("/sumdb/db.example", db))
	mux.HandleFunc("/sumdb/db.example/supported", func(http.ResponseWriter, *http.Request) {})
	for name, mod := range mods {
		mux.HandleFunc("/"+name+"/@v/v1.0.0.info", func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, `{"Version":"v1.0.0","Time":"2024-01-02T03:04:05Z"}`)
		})
		mux.HandleFunc("/"+name+"/@v/v1.0.0.mod", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, mod) })
		mux.HandleFunc("/"+name+"/@v/v1.0.0.zip", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(zips[name]) })
	}
	proxy := httptest.NewServer(mux)
	w.t.Cleanup(proxy.Close)
	for k, v := range map[string]string{
		"GOPROXY": proxy.URL, "GOSUMDB": public, "GONOSUMDB": "host.example/own", "GOPRIVATE": "", "GONOPROXY": "", "GOFLAGS": "", "GOENV": "off", "XDG_CACHE_HOME": w.t.TempDir(),
	} {
		w.t.Setenv(k, v)
	}
	w.asks("models", "  gomod: [ host.example/a@v1.0.0, host.example/own@v1.0.0 ]\n")
	return "sumdb:key:" + strings.Join(strings.Split(public, "+")[:2], "+")
}

// ofWorld is the place of the attestation about a world among what was collected.
func ofWorld(all []artifact.Artifact, kind string) int {
	return slices.IndexFunc(all, func(a artifact.Artifact) bool { return a.Ref.Kind == upstream.Kind && a.Ref.Name == kind })
}

// demands is what a rule says that wants every module to be in the database.
func (w *world) demands(r inspect.Report) (violated []string) {
	w.t.Helper()
	rule := "  - {name: ours, each: artifact, when: 'artifact.kind == \"gomod\" && !artifact.signers.exists(s, s.startsWith(\"sumdb:key:db.example+\"))', say: nobody we know signed it}\n"
	standard, err := policy.Named("standard")
	w.must(err)
	pol, err := policy.Parse([]byte(strings.Replace(string(standard), "rules:\n", "rules:\n"+rule, 1)))
	w.must(err)
	for _, v := range pol.Content(policy.Case{Report: r, Now: time.Now()}).Violations {
		if v.Rule == "ours" {
			violated = append(violated, v.Artifact)
		}
	}
	return violated
}

const secretModule = "gomod/host.example/own@v1.0.0"

// What go verified by the checksum database is verified again, frozen, and known inside.
func TestModulesOfTheChecksumDatabaseAreAttested(t *testing.T) {
	w := newWorld(t)
	signer := w.modules()
	out, err := w.collected()
	w.must(err)
	if len(out.Unverified) != 1 || !strings.HasPrefix(out.Unverified[0], secretModule+": no record") || !slices.Equal(out.Signed, []string{"gomod: 3 artifacts: " + signer}) {
		t.Fatalf("unverified %q, signed %q", out.Unverified, out.Signed)
	}
	again, err := w.collected()
	if err != nil || !again.FromLock || again.Lock.Content != out.Lock.Content || len(again.Unverified) != 1 || !slices.Equal(again.Signed, out.Signed) {
		t.Errorf("unchanged: %v, %+v", err, again)
	}
	j := w.arrives("m1")
	if got := signers(j.Report); len(got) != 3 || got[0] != "gomod/host.example/a@v1.0.0 "+signer || got[1] != "gomod/host.example/b@v1.0.0 "+signer || !strings.HasPrefix(got[2], "gomod/sumdb/") {
		t.Errorf("signers %q", got)
	}
	if got := w.demands(j.Report); !slices.Equal(got, []string{secretModule}) {
		t.Errorf("a rule refuses %v", got)
	}
	if got := makers(j.Report); !slices.Equal(got, []string{"info verified"}) {
		t.Errorf("%v", got)
	}
	i := slices.IndexFunc(j.Report.Verified, func(v inspect.Verified) bool { return v.Artifact == "gomod/host.example/a@v1.0.0" })
	if v := j.Report.Verified; i < 0 || v[i].By != "outside" || !slices.Equal(v[i].Unsigned, []string{"v1.0.0.info"}) {
		t.Errorf("%+v", v)
	}
	w.released(j)

	// A changed request that comes to the same modules keeps what was said of them.
	b, err := os.ReadFile(w.path("enisle.yaml"))
	w.must(err)
	w.must(os.WriteFile(w.path("note.txt"), []byte("new"), 0o600))
	w.must(os.WriteFile(w.path("enisle.yaml"), append(b, "  files: [ note.txt ]\n"...), 0o600))
	w.now = time.Now().Add(time.Minute)
	more, err := w.collected()
	w.must(err)
	was, is := out.Lock.Artifacts[ofWorld(out.Lock.Artifacts, "gomod")], more.Lock.Artifacts[ofWorld(more.Lock.Artifacts, "gomod")]
	if more.FromLock || was.Ref != is.Ref || was.Files[0].Digest != is.Files[0].Digest {
		t.Errorf("%+v was made anew, before %+v", is, was)
	}
	fresh, err := w.app("low").Collect(t.Context(), w.path("enisle.yaml"), crossing.CollectOptions{Update: true})
	w.must(err)
	if now := fresh.Lock.Artifacts[ofWorld(fresh.Lock.Artifacts, "gomod")]; now.Files[0].Digest == was.Files[0].Digest {
		t.Error("asked to look again, it did not")
	}

	// Brought again without a word, what is served already is still known; what is not, is not.
	t.Setenv("GOSUMDB", "off")
	w.asks("again", "  gomod: [ host.example/a@v1.0.0, host.example/own@v1.0.0 ]\n")
	j = w.arrives("m2")
	if got := signers(j.Report); len(got) != 2 || ofWorld(w.must2(w.collected()).Lock.Artifacts, "gomod") >= 0 {
		t.Errorf("signers %q", got)
	}
	if got := w.demands(j.Report); !slices.Equal(got, []string{secretModule}) {
		t.Errorf("a rule refuses %v", got)
	}
}

func (w *world) must2(out crossing.Collected, err error) crossing.Collected {
	w.t.Helper()
	w.must(err)
	return out
}

// What says that a world signed something counts only if the site that sealed the
// shipment says so, and all of what it says so of is here.
func TestForgedAttestationsOfWorldsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.modules()
	stranger, err := trust.GenerateKey()
	w.must(err)
	said := func(s *site.Site, v artifact.Artifact, key *trust.Key, change func(*upstream.Statement)) artifact.Artifact {
		env, err := s.Held.ReadSmall(v.Files[0].Digest, 1<<20)
		w.must(err)
		e, err := trust.Parse(env)
		w.must(err)
		st, err := upstream.Decode(e.Payload)
		w.must(err)
		change(&st)
		b, err := json.Marshal(st)
		w.must(err)
		env, err = trust.Sign(upstream.PayloadType, b, key)
		w.must(err)
		d, err := s.Held.Put(env)
		w.must(err)
		v.Files = []artifact.File{{Path: upstream.File, Size: int64(len(env)), Digest: d}}
		return v
	}
	changed := func(change func(*upstream.Statement)) func(*site.Site, []artifact.Artifact) []artifact.Artifact {
		return func(s *site.Site, all []artifact.Artifact) []artifact.Artifact {
			i := ofWorld(all, "gomod")
			all[i] = said(s, all[i], s.Key, change)
			return all
		}
	}
	module := func(all []artifact.Artifact, name string) int {
		return slices.IndexFunc(all, func(a artifact.Artifact) bool { return a.Ref.String() == name })
	}
	for name, tc := range map[string]struct {
		change func(*site.Site, []artifact.Artifact) []artifact.Artifact
		want   string
	}{
		"by another key": {func(s *site.Site, all []artifact.Artifact) []artifact.Artifact {
			i := ofWorld(all, "gomod")
			all[i] = said(s, all[i], stranger, func(*upstream.Statement) {})
			return all
		}, "not the site's key"},
		"about what is not here": {func(_ *site.Site, all []artifact.Artifact) []artifact.Artifact {
			i := module(all, "gomod/host.example/b@v1.0.0")
			return slices.Delete(all, i, i+1)
		}, "about gomod/host.example/b@v1.0.0, which is not in the shipment"},
		"about another manifest": {changed(func(st *upstream.Statement) { st.Subject[0].Digest = upstream.DigestsOf(artifact.Sum(nil)) }), `about another "gomod/host.example/a@v1.0.0"`},
		"a module was swapped": {func(s *site.Site, all []artifact.Artifact) []artifact.Artifact {
			i := module(all, "gomod/host.example/a@v1.0.0")
			d, err := s.Held.Put([]byte("module host.example/a\n"))
			w.must(err)
			all[i].Files = slices.Clone(all[i].Files)
			all[i].Files[1].Digest, all[i].Files[1].Size = d, int64(len("module host.example/a\n"))
			return all
		}, `about another "gomod/host.example/a@v1.0.0"`},
		"about one that nobody signed, too": {func(s *site.Site, all []artifact.Artifact) []artifact.Artifact {
			m, err := store.EncodeManifest(all[module(all, secretModule)])
			w.must(err)
			i := ofWorld(all, "gomod")
			all[i] = said(s, all[i], stranger, func(st *upstream.Statement) {
				st.Subject = slices.Insert(st.Subject, 2, upstream.Subject{Name: secretModule, Digest: upstream.DigestsOf(artifact.Sum(m))})
			})
			return all
		}, "not the site's key"},
		"about another world":        {changed(func(st *upstream.Statement) { st.Subject[0].Name = "pypi/a@1" }), "no artifact of gomod"},
		"under another name":         {changed(func(st *upstream.Statement) { st.Predicate.ResourceURI = "gomod@000000000000" }), "which its name does not say"},
		"from the future":            {changed(func(st *upstream.Statement) { st.Predicate.TimeVerified = st.Predicate.TimeVerified.Add(time.Hour) }), "after the shipment was sealed"},
		"under no record":            {changed(func(st *upstream.Statement) { st.Predicate.Enisle.Checkpoint = "x" }), "checkpoint"},
		"twice the same":             {changed(func(st *upstream.Statement) { st.Subject[1] = st.Subject[0] }), "not in order"},
		"about files of nothing":     {changed(func(st *upstream.Statement) { st.Predicate.Enisle.Unsigned = []string{"gomod/x@1!f"} }), "is of no subject"},
		"by a way that is not known": {changed(func(st *upstream.Statement) { st.Predicate.Enisle.Signers[0].Format = "word" }), "is not known"},
		"about nothing": {changed(func(st *upstream.Statement) {
			st.Subject, st.Predicate.Enisle.Unsigned = []upstream.Subject{}, []string{}
		}), "about nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			j, err := w.app("high").Inspect(t.Context(), w.repack("m-"+name, tc.change))
			w.must(err)
			ok := slices.ContainsFunc(j.Report.Of(inspect.Refuse), func(f inspect.Finding) bool {
				return f.Scanner == "upstream" && strings.HasPrefix(f.Artifact, "vsa/gomod@") && strings.Contains(f.Detail, tc.want)
			})
			if !ok || j.Decision.Allow || len(signers(j.Report)) != 0 {
				t.Errorf("want %q: %+v, signers %v", tc.want, j.Report.Of(inspect.Refuse), signers(j.Report))
			}
		})
	}
	t.Run("taken out", func(t *testing.T) {
		j, err := w.app("high").Inspect(t.Context(), w.repack("m-without", func(_ *site.Site, all []artifact.Artifact) []artifact.Artifact {
			i := ofWorld(all, "gomod")
			return slices.Delete(all, i, i+1)
		}))
		w.must(err)
		if got := w.demands(j.Report); len(got) != 4 || len(signers(j.Report)) != 0 {
			t.Errorf("a rule refuses %v, signers %v", got, signers(j.Report))
		}
	})
}
