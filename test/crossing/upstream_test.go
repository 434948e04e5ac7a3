package crossing_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/oms"
	"enisle/internal/judge/policy"
	"enisle/internal/judge/upstream"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/store"
	"enisle/internal/site/trust"
)

// vendor signs models: by a key, and by a certificate that ends after a month.
type vendor struct {
	key   *ecdsa.PrivateKey
	chain []*x509.Certificate // leaf, root
}

// vendor makes one, whose key and root lie beside the request as NAME.pub and
// NAME.pem.
func (w *world) vendor(name string) vendor {
	w.t.Helper()
	var v vendor
	var err error
	v.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	ca, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	w.must(err)
	now := time.Now()
	issue := func(cn string, isCA bool, parent *x509.Certificate, pub any) *x509.Certificate {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: cn}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 1, 0),
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: isCA, BasicConstraintsValid: true,
		}
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, ca)
		w.must(err)
		c, err = x509.ParseCertificate(der)
		w.must(err)
		return c
	}
	root := issue(name+" root", true, nil, &ca.PublicKey)
	v.chain = []*x509.Certificate{issue(name, false, root, &v.key.PublicKey), root}
	der, err := x509.MarshalPKIXPublicKey(&v.key.PublicKey)
	w.must(err)
	w.must(os.WriteFile(w.path(name+".pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	w.must(os.WriteFile(w.path(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), 0o600))
	return v
}

// model writes the directory of a model.
func (w *world) model(files map[string]string) {
	w.t.Helper()
	w.must(os.RemoveAll(w.path("tiny")))
	for name, text := range files {
		w.must(os.MkdirAll(filepath.Dir(w.path("tiny", name)), 0o755))
		w.must(os.WriteFile(w.path("tiny", name), []byte(text), 0o600))
	}
}

func tiny() map[string]string {
	return map[string]string{"config.json": `{"hidden_size": 8}`, "sub/README.md": "a card", ".gitattributes": "*.bin\n"}
}

// sign signs what is in the directory, by certificate or by the key alone.
func (w *world) signModel(v vendor, byCertificate bool, ignored ...string) {
	w.t.Helper()
	st, err := oms.Describe(w.t.Context(), "tiny", os.DirFS(w.path("tiny")), append([]string{"model.sig"}, ignored...))
	w.must(err)
	var chain []*x509.Certificate
	if byCertificate {
		chain = v.chain
	}
	b, err := oms.Sign(st, v.key, chain)
	w.must(err)
	w.must(os.WriteFile(w.path("tiny", "model.sig"), b, 0o600))
}

// trusts writes a request for the model that names signers.
func (w *world) trusts(signers string) {
	w.t.Helper()
	text := "name: models\nbring:\n  files: [ {path: tiny, as: model/tiny} ]\n"
	if signers != "" {
		text += "trust:\n  models: [ " + signers + " ]\n"
	}
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte(text), 0o600))
}

func (w *world) collected() (crossing.Collected, error) {
	return w.app("low").Collect(w.t.Context(), w.path("enisle.yaml"), crossing.CollectOptions{})
}

// makers returns findings about signatures of makers: severity and rule.
func makers(r inspect.Report) (out []string) {
	for _, f := range r.Findings {
		if f.Scanner == "upstream" || f.Scanner == "vsa" {
			out = append(out, string(f.Severity)+" "+f.Rule)
		}
	}
	return out
}

func signers(r inspect.Report) (out []string) {
	for _, f := range r.Facts {
		if f.Kind == inspect.Signer {
			out = append(out, f.Artifact+" "+f.Value)
		}
	}
	return out
}

func TestASignedModelIsAttested(t *testing.T) {
	w := newWorld(t)
	v := w.vendor("acme")
	for name, tc := range map[string]struct {
		signers string
		byCert  bool
		want    string
	}{
		"by key":         {"{key: acme.pub}", false, "model/tiny oms:key:sha256:"},
		"by certificate": {"{key: acme.pub}, {certificates: acme.pem}", true, "model/tiny oms:certificate:CN=acme"},
	} {
		t.Run(name, func(t *testing.T) {
			w.model(tiny())
			w.signModel(v, tc.byCert)
			w.trusts(tc.signers)
			out, err := w.collected()
			w.must(err)
			if len(out.Signed) != 1 || len(out.Unknown) != 0 || len(out.Lock.Artifacts) != 2 || out.Lock.Artifacts[1].Ref.String() != "vsa/model/tiny" {
				t.Fatalf("%+v", out)
			}
			again, err := w.collected()
			if err != nil || !again.FromLock || again.Lock.Content != out.Lock.Content {
				t.Errorf("unchanged: %v, %+v", err, again)
			}
			j := w.arrives(name)
			if got := signers(j.Report); len(got) != 1 || !strings.HasPrefix(got[0], tc.want) {
				t.Errorf("signers %q", got)
			}
			if got := makers(j.Report); !slices.Equal(got, []string{"info unsigned", "info verified"}) || !j.Decision.Allow {
				t.Errorf("%v %+v", got, j.Decision)
			}
			v := j.Report.Verified
			if len(v) != 1 || time.Since(v[0].At) > time.Hour || v[0].By != "outside" || !slices.Equal(v[0].Unsigned, []string{".gitattributes"}) {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestASignatureThatIsNotGoodIsNotCollected(t *testing.T) {
	w := newWorld(t)
	acme, other := w.vendor("acme"), w.vendor("other")
	collect := func() error { _, err := w.collected(); return err }
	w.model(tiny())
	w.signModel(other, false)
	w.trusts("{key: acme.pub}, {certificates: acme.pem}")
	refused(t, collect(), "model/tiny: model.sig: it is by none of the 2 signers")
	w.signModel(other, true)
	refused(t, collect(), "by none of the 2 signers")
	w.signModel(acme, true)
	w.trusts("{key: acme.pub}")
	refused(t, collect(), "names none that could have made it")

	// A file that nobody signed, even one that the signer says it left out.
	w.trusts("{key: acme.pub}")
	w.signModel(acme, false)
	w.must(os.WriteFile(w.path("tiny", "extra.json"), []byte("{}"), 0o600))
	refused(t, collect(), "extra.json: nobody signed it")
	w.signModel(acme, false, "extra.json")
	refused(t, collect(), "extra.json: nobody signed it")
	w.must(os.Remove(w.path("tiny", "extra.json")))
	w.must(collect())
	w.must(os.WriteFile(w.path("tiny", "config.json"), []byte("{}"), 0o600))
	refused(t, collect(), `"config.json" is not what was signed`)
	w.must(os.WriteFile(w.path("tiny", "model.sig"), []byte("{}"), 0o600))
	refused(t, collect(), "model.sig: model signature: media type")

	// A certificate counts while it is valid.
	w.model(tiny())
	w.signModel(acme, true)
	w.trusts("{certificates: acme.pem}")
	w.now = time.Now().AddDate(0, 2, 0)
	refused(t, collect(), "expired")
	w.signModel(acme, false)
	for text, want := range map[string]string{"{key: none.pub}": "no such file", "{}": "has one of key and certificates", "{key: enisle.yaml}": "no PEM block"} {
		w.trusts(text)
		if err := collect(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestASignatureByNobodyKnownIsSaid(t *testing.T) {
	w := newWorld(t)
	w.model(tiny())
	w.signModel(w.vendor("acme"), false)
	w.trusts("")
	out, err := w.collected()
	if err != nil || !slices.Equal(out.Unknown, []string{"model/tiny: model.sig"}) || len(out.Lock.Artifacts) != 1 {
		t.Fatalf("%v %+v", err, out)
	}
	j := w.arrives("m")
	if got := makers(j.Report); !slices.Equal(got, []string{"warn unverified-signature"}) || len(signers(j.Report)) != 0 {
		t.Errorf("%v", got)
	}
}

func TestIgnoredPathsAreShown(t *testing.T) {
	w := newWorld(t)
	w.model(tiny())
	w.signModel(w.vendor("acme"), false, "training")
	w.trusts("{key: acme.pub}")
	j := w.arrives("m")
	if got := j.Report.Of(inspect.Warn); len(got) != 1 || got[0].Rule != "ignored-paths" || got[0].Detail != "its signer left out: training" {
		t.Errorf("%+v", got)
	}
	r, err := w.app("high").Review(t.Context(), j.Report.Shipment, "stable")
	w.must(err)
	if v := r.Judged.Report.Verified; len(v) != 1 || !slices.Equal(v[0].Ignored, []string{"training"}) {
		t.Errorf("%+v", v)
	}
}

// Three years later the certificate has expired, and what was verified in time is
// still known to have been.
func TestAnAttestationDoesNotExpire(t *testing.T) {
	w := newWorld(t)
	w.model(tiny())
	w.signModel(w.vendor("acme"), true)
	w.trusts("{certificates: acme.pem}")
	first := w.arrives("m1")
	w.released(first)
	before, err := w.collected()
	w.must(err)
	_, err = w.as("high", "adam").SetClock(t.Context())
	w.must(err)
	w.now = time.Now().AddDate(3, 0, 0)
	w.must(os.WriteFile(w.path("note.txt"), []byte("new"), 0o600))
	// Inside, the shipment of then is inspected again, once admins vouch for the clock.
	w.must(w.as("high", "eve").WithdrawRoot(t.Context()))
	_, err = w.as("high", "adam").SetClock(t.Context())
	w.must(err)
	_, err = w.as("high", "eve").SignRoot(t.Context(), "")
	w.must(err)
	j, err := w.app("high").Inspect(t.Context(), first.Report.Shipment)
	w.must(err)
	if got := signers(j.Report); len(got) != 1 || len(j.Report.Of(inspect.Refuse)) != 0 || w.now.Sub(j.Report.Verified[0].At) < 1000*24*time.Hour {
		t.Errorf("%v %+v", got, j.Report.Verified)
	}
	// Outside, the same request comes to the same, and one with a note more keeps it.
	after, err := w.collected()
	if err != nil || after.Lock.Content != before.Lock.Content {
		t.Errorf("%v: %s, before %s", err, after.Lock.Content, before.Lock.Content)
	}
	b, err := os.ReadFile(w.path("enisle.yaml"))
	w.must(err)
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte(strings.Replace(string(b), "files: [", "files: [ note.txt,", 1)), 0o600))
	j = w.arrives("m2")
	if got := signers(j.Report); len(got) != 1 || len(j.Report.Of(inspect.Refuse)) != 0 {
		t.Errorf("%v %v", got, makers(j.Report))
	}
	// Asked to look again, it finds the certificate expired.
	_, err = w.app("low").Collect(t.Context(), w.path("enisle.yaml"), crossing.CollectOptions{Update: true})
	refused(t, err, "expired")
}

// repack changes what the low site collected, as if its program had made it so, and
// packs it.
func (w *world) repack(media string, change func(s *site.Site, all []artifact.Artifact) []artifact.Artifact) string {
	w.t.Helper()
	ctx := context.Background()
	out, err := w.collected()
	w.must(err)
	s, err := site.Open(ctx, w.path("low"), site.Options{})
	w.must(err)
	var entries []store.Entry
	for _, a := range change(s, slices.Clone(out.Lock.Artifacts)) {
		m, err := store.EncodeManifest(a)
		w.must(err)
		d, err := s.Held.Put(m)
		w.must(err)
		entries = append(entries, store.Entry{Ref: a.Ref, Manifest: d, Size: int64(len(m))})
	}
	ix, err := store.EncodeIndex("models", entries)
	w.must(err)
	d, err := s.Held.Put(ix)
	w.must(err)
	w.must(s.State.Update(ctx, func(tx *state.Tx) error { return tx.SetMeta("collected.models", string(d)) }))
	w.must(s.Close())
	packed, err := w.app("low").Pack(ctx, crossing.PackOptions{To: w.path(media)})
	w.must(err)
	_, err = w.importFrom(media)
	w.must(err)
	return packed.ID
}

// What says that a model was verified counts only if the site that sealed the
// shipment says so, about exactly what is here.
func TestForgedAttestationsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.model(tiny())
	w.signModel(w.vendor("acme"), false)
	w.trusts("{key: acme.pub}")
	stranger, err := trust.GenerateKey()
	w.must(err)
	// payload returns what the collected attestation says, changed.
	payload := func(s *site.Site, v artifact.Artifact, change func(*upstream.Statement)) []byte {
		env, err := s.Held.ReadSmall(v.Files[0].Digest, 1<<20)
		w.must(err)
		e, err := trust.Parse(env)
		w.must(err)
		st, err := upstream.Decode(e.Payload)
		w.must(err)
		change(&st)
		b, err := json.Marshal(st)
		w.must(err)
		return b
	}
	put := func(s *site.Site, v *artifact.Artifact, b []byte) {
		d, err := s.Held.Put(b)
		w.must(err)
		v.Files = []artifact.File{{Path: upstream.File, Size: int64(len(b)), Digest: d}}
	}
	signed := func(key func(*site.Site) *trust.Key, change func(*upstream.Statement)) func(*site.Site, []artifact.Artifact) []artifact.Artifact {
		return func(s *site.Site, all []artifact.Artifact) []artifact.Artifact {
			env, err := trust.Sign(upstream.PayloadType, payload(s, all[1], change), key(s))
			w.must(err)
			put(s, &all[1], env)
			return all
		}
	}
	own := func(s *site.Site) *trust.Key { return s.Key }
	for name, tc := range map[string]struct {
		change func(*site.Site, []artifact.Artifact) []artifact.Artifact
		want   string
	}{
		"by another key": {signed(func(*site.Site) *trust.Key { return stranger }, func(*upstream.Statement) {}), "not the site's key"},
		"about another manifest": {signed(own, func(st *upstream.Statement) {
			st.Subject[0].Digest = upstream.DigestsOf(artifact.Sum(nil))
		}), `about another "model/tiny"`},
		"about another file": {signed(own, func(st *upstream.Statement) {
			st.Subject[2].Digest = upstream.DigestsOf(artifact.Sum(nil))
		}), `about another "config.json"`},
		"about fewer files":   {signed(own, func(st *upstream.Statement) { st.Subject = st.Subject[:3] }), `not about the file "model.sig"`},
		"by another verifier": {signed(own, func(st *upstream.Statement) { st.Predicate.Verifier.ID = "enisle:site/other/0" }), "the verifier is"},
		"from the future":     {signed(own, func(st *upstream.Statement) { st.Predicate.TimeVerified = st.Predicate.TimeVerified.Add(time.Hour) }), "after the shipment was sealed"},
		"under no record":     {signed(own, func(st *upstream.Statement) { st.Predicate.Enisle.Checkpoint = "x" }), "checkpoint"},
		"failed":              {signed(own, func(st *upstream.Statement) { st.Predicate.VerificationResult = "FAILED" }), `the result is "FAILED"`},
		"the model was swapped": {func(s *site.Site, all []artifact.Artifact) []artifact.Artifact {
			d, err := s.Held.Put([]byte("{}"))
			w.must(err)
			all[0].Files[1].Digest, all[0].Files[1].Size = d, 2
			return all
		}, "about another"},
		"without the model": {func(_ *site.Site, all []artifact.Artifact) []artifact.Artifact { return all[1:] }, "which is not in the shipment"},
		"no envelope": {func(s *site.Site, all []artifact.Artifact) []artifact.Artifact {
			put(s, &all[1], []byte("{}"))
			return all
		}, "not in canonical form"},
	} {
		t.Run(name, func(t *testing.T) {
			j, err := w.app("high").Inspect(t.Context(), w.repack("m-"+name, tc.change))
			w.must(err)
			ok := slices.ContainsFunc(j.Report.Of(inspect.Refuse), func(f inspect.Finding) bool {
				return f.Scanner == "upstream" && f.Artifact == "vsa/model/tiny" && strings.Contains(f.Detail, tc.want)
			})
			if !ok || j.Decision.Allow || len(signers(j.Report)) != 0 {
				t.Errorf("want %q: %+v, signers %v", tc.want, j.Report.Of(inspect.Refuse), signers(j.Report))
			}
		})
	}
}

// What a shipment brings without an attestation is known by that of what is released,
// if it is the same.
func TestAttestationsOfWhatIsReleasedCount(t *testing.T) {
	w := newWorld(t)
	w.model(tiny())
	w.signModel(w.vendor("acme"), false)
	w.trusts("{key: acme.pub}")
	w.released(w.arrives("m1"))
	again := func(media string) inspect.Report {
		w.trusts("")
		b, err := os.ReadFile(w.path("enisle.yaml"))
		w.must(err)
		w.must(os.WriteFile(w.path("enisle.yaml"), []byte(strings.Replace(string(b), "name: models", "name: again", 1)), 0o600))
		return w.arrives(media).Report
	}
	if r := again("m2"); len(signers(r)) != 1 || len(r.Of(inspect.Warn)) != 0 {
		t.Errorf("%v %v", signers(r), makers(r))
	}
	// Another request brings the same model with an attestation of its own: both stand.
	w.trusts("{key: acme.pub}, {certificates: acme.pem}")
	b, err := os.ReadFile(w.path("enisle.yaml"))
	w.must(err)
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte(strings.Replace(string(b), "name: models", "name: third", 1)), 0o600))
	third := w.arrives("m-third")
	w.released(third)
	demand := "  - {name: ours, each: artifact, when: 'artifact.kind == \"model\" && !artifact.signers.exists(s, s.startsWith(\"oms:key:\"))', say: nobody we know signed it}\n"
	standard, err := policy.Named("standard")
	w.must(err)
	pol, err := policy.Parse([]byte(strings.Replace(string(standard), "rules:\n", "rules:\n"+demand, 1)))
	w.must(err)
	decided := func(r inspect.Report) bool {
		return slices.ContainsFunc(pol.Content(policy.Case{Report: r, Now: time.Now()}).Violations, func(v policy.Violation) bool { return v.Rule == "ours" })
	}
	if decided(third.Report) {
		t.Error("a rule that asks for the signer refuses it")
	}
	files := tiny()
	files["config.json"] = "{}"
	w.model(files)
	w.signModel(w.vendor("other"), false)
	if r := again("m3"); len(signers(r)) != 0 || !decided(r) || !slices.Equal(makers(r), []string{"warn unverified-signature"}) {
		t.Errorf("%v %v", signers(r), makers(r))
	}
}
