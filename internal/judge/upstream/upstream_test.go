package upstream

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
)

func example() (artifact.Artifact, Proof, About) {
	d := artifact.Sum([]byte("x"))
	a := artifact.Artifact{
		Ref: artifact.Ref{Kind: "hf", Name: "org/tiny", Version: "1"}, Manifest: artifact.Sum([]byte("manifest")),
		Files: []artifact.File{{Path: "config.json", Digest: d}, {Path: "model.sig", Digest: artifact.Sum([]byte("sig"))}},
	}
	p := Proof{Signers: []Signer{{Format: "oms", Method: Key, Name: "sha256:ab", Signature: "model.sig", Digest: artifact.Sum([]byte("sig")), Ignored: []string{}}}}
	by := About{
		Verifier: "enisle:site/outside/00", Policy: Resource{"enisle:request/r/trust", DigestsOf(d)}, Checkpoint: "head",
		At: time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC),
	}
	return a, p, by
}

func TestWhatIsMadeIsRead(t *testing.T) {
	a, p, by := example()
	b, err := Make(a, p, by)
	if err != nil {
		t.Fatal(err)
	}
	st, err := Decode(b)
	if err != nil || st.Covers(a) != nil {
		t.Fatalf("%v, %v", err, st.Covers(a))
	}
	q := st.Predicate
	if q.ResourceURI != "hf/org/tiny@1" || q.VerifiedLevels[0] != "ENISLE_OMS_KEY" || q.InputAttestations[0].URI != "model.sig" || q.TimeVerified.Nanosecond() != 0 {
		t.Errorf("%+v", q)
	}
	if r := Ref(a.Ref); r.String() != "vsa/hf/org/tiny@1" || r.Check() != nil {
		t.Errorf("%s", r)
	}
	for name, change := range map[string]func(*artifact.Artifact){
		"another manifest": func(a *artifact.Artifact) { a.Manifest = artifact.Sum(nil) },
		"another name":     func(a *artifact.Artifact) { a.Ref.Version = "2" },
		"another content":  func(a *artifact.Artifact) { a.Files[0].Digest = artifact.Sum(nil) },
		"another path":     func(a *artifact.Artifact) { a.Files[0].Path = "config.yaml" },
		"a file more":      func(a *artifact.Artifact) { a.Files = append(a.Files, a.Files[0]) },
		"a file less":      func(a *artifact.Artifact) { a.Files = a.Files[:1] },
	} {
		other, _, _ := example()
		change(&other)
		if st.Covers(other) == nil {
			t.Errorf("%s is covered", name)
		}
	}
}

func TestWhatWouldNotBeReadIsNotMade(t *testing.T) {
	for name, change := range map[string]func(*artifact.Artifact, *Proof, *About){
		"no signer":          func(_ *artifact.Artifact, p *Proof, _ *About) { p.Signers = nil },
		"no files":           func(a *artifact.Artifact, _ *Proof, _ *About) { a.Files = nil },
		"about another":      func(a *artifact.Artifact, _ *Proof, _ *About) { a.Ref.Kind = Kind },
		"no time":            func(_ *artifact.Artifact, _ *Proof, b *About) { b.At = time.Time{} },
		"no record":          func(_ *artifact.Artifact, _ *Proof, b *About) { b.Checkpoint = "" },
		"no policy":          func(_ *artifact.Artifact, _ *Proof, b *About) { b.Policy = Resource{} },
		"a name of controls": func(_ *artifact.Artifact, p *Proof, _ *About) { p.Signers[0].Name = "a\nb" },
		"a name too long":    func(_ *artifact.Artifact, p *Proof, _ *About) { p.Signers[0].Name = strings.Repeat("a", 1001) },
		"no name":            func(_ *artifact.Artifact, p *Proof, _ *About) { p.Signers[0].Name = "" },
		"another method":     func(_ *artifact.Artifact, p *Proof, _ *About) { p.Signers[0].Method = "word" },
		"a path outside":     func(_ *artifact.Artifact, p *Proof, _ *About) { p.Signers[0].Signature = "../x" },
		"no digest":          func(_ *artifact.Artifact, p *Proof, _ *About) { p.Signers[0].Digest = "" },
	} {
		a, p, by := example()
		change(&a, &p, &by)
		if b, err := Make(a, p, by); err == nil {
			t.Errorf("%s: %s", name, b)
		}
	}
}

func TestOnlyOneFormIsRead(t *testing.T) {
	a, p, by := example()
	b, err := Make(a, p, by)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for name, other := range map[string]string{
		"a space":       strings.Replace(text, ":", ": ", 1),
		"something":     text + "{}",
		"another level": strings.Replace(text, "ENISLE_OMS_KEY", "SLSA_BUILD_LEVEL_3", 1),
		"another input": strings.Replace(text, `"uri":"model.sig"`, `"uri":"other.sig"`, 1),
		"a key more":    strings.Replace(text, `{"_type"`, `{"more":1,"_type"`, 1),
		"failed":        strings.Replace(text, "PASSED", "FAILED", 1),
		"nothing":       "",
	} {
		if _, err := Decode([]byte(other)); err == nil || other == text {
			t.Errorf("%s is read", name)
		}
	}
}

// FuzzUnverified reads envelopes: what is accepted has one payload only.
func FuzzUnverified(f *testing.F) {
	a, p, by := example()
	b, err := Make(a, p, by)
	if err != nil {
		f.Fatal(err)
	}
	env, err := json.Marshal(map[string]any{"payload": b, "payloadType": PayloadType, "signatures": []any{map[string]any{"keyid": "", "sig": []byte{1}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(env)
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := Unverified(b)
		if err != nil {
			return
		}
		if again, err := json.Marshal(st); err != nil || json.Unmarshal(again, new(Statement)) != nil {
			t.Errorf("%v: %s", err, again)
		}
	})
}

// set is two artifacts of one world, out of order, and what a document of it vouches for.
func set() ([]artifact.Artifact, Proof, About) {
	d := artifact.Sum([]byte("head"))
	all := []artifact.Artifact{
		{Ref: artifact.Ref{Kind: "gomod", Name: "host.example/b", Version: "v1.0.0"}, Manifest: artifact.Sum([]byte("b"))},
		{Ref: artifact.Ref{Kind: "gomod", Name: "host.example/a", Version: "v1.0.0"}, Manifest: artifact.Sum([]byte("a"))},
	}
	p := Proof{
		Signers:  []Signer{{Format: "sumdb", Method: Key, Name: "db.example+00", Signature: "sumdb/x/latest", Digest: d, Ignored: []string{}}},
		Unsigned: []string{"gomod/host.example/b@v1.0.0!v1.0.0.info", "gomod/host.example/a@v1.0.0!v1.0.0.info"},
		Through:  []Resource{{"db.example/index", DigestsOf(d)}},
	}
	_, _, by := example()
	return all, p, by
}

func TestASetIsReadAsItIsMade(t *testing.T) {
	ref := SetRef("gomod", artifact.Sum([]byte("document")))
	made := func(change func([]artifact.Artifact, *Proof, *About)) Statement {
		t.Helper()
		all, p, by := set()
		change(all, &p, &by)
		b, err := MakeSet(ref, all, p, by)
		if err != nil {
			t.Fatal(err)
		}
		st, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	st := made(func([]artifact.Artifact, *Proof, *About) {})
	kind, ok := st.Set()
	q := st.Predicate
	if !ok || kind != "gomod" || Kind+"/"+q.ResourceURI != ref.String() || len(st.Subject) != 2 || st.Subject[0].Name != "gomod/host.example/a@v1.0.0" || q.VerifiedLevels[0] != "ENISLE_SUMDB_KEY" {
		t.Errorf("%+v", st)
	}
	if len(q.InputAttestations) != 2 || q.InputAttestations[0].URI != "sumdb/x/latest" || q.InputAttestations[1].URI != "db.example/index" {
		t.Errorf("inputs %+v", q.InputAttestations)
	}
	if got := st.UnsignedOf("gomod/host.example/b@v1.0.0"); len(got) != 1 || got[0] != "v1.0.0.info" || len(st.UnsignedOf("gomod/host.example/b")) != 0 || len(st.UnsignedOf("x")) != 0 {
		t.Errorf("unsigned %q", got)
	}
	if a, _, _ := example(); st.Covers(a) == nil {
		t.Error("it covers an artifact as a statement about one does")
	}
	later := made(func(_ []artifact.Artifact, p *Proof, by *About) {
		by.At, by.Checkpoint, p.Signers[0].Digest, p.Through = by.At.AddDate(1, 0, 0), "another head", artifact.Sum(nil), nil
	})
	if !st.Same(later) {
		t.Error("later, by another document, it does not say the same")
	}
	for name, change := range map[string]func([]artifact.Artifact, *Proof, *About){
		"another manifest": func(all []artifact.Artifact, _ *Proof, _ *About) { all[0].Manifest = artifact.Sum(nil) },
		"another signer":   func(_ []artifact.Artifact, p *Proof, _ *About) { p.Signers[0].Name = "other" },
		"another trust":    func(_ []artifact.Artifact, _ *Proof, by *About) { by.Policy.Digest = DigestsOf(artifact.Sum(nil)) },
		"more unsigned": func(_ []artifact.Artifact, p *Proof, _ *About) {
			p.Unsigned = append(p.Unsigned, "gomod/host.example/a@v1.0.0!x")
		},
	} {
		if st.Same(made(change)) {
			t.Errorf("%s is the same", name)
		}
	}
	var all []artifact.Artifact
	var p Proof
	var by About
	for name, change := range map[string]func(){
		"another kind":          func() { all[0].Ref.Kind = "pypi" },
		"an attestation":        func() { all[0].Ref.Kind = Kind },
		"the same twice":        func() { all[0] = all[1] },
		"nothing":               func() { all, p.Unsigned = nil, nil },
		"unsigned of no one":    func() { p.Unsigned = []string{"gomod/x@1!f"} },
		"unsigned without file": func() { p.Unsigned = p.Unsigned[:1]; p.Unsigned[0] = "gomod/host.example/a@v1.0.0" },
		"no signer":             func() { p.Signers = nil },
		"through a bad path":    func() { p.Through[0].URI = "/x" },
		"through no digest":     func() { p.Through[0].Digest = Digests{} },
		"a document's name":     func() { ref.Version = "x" },
		"a document with slash": func() { ref.Name = "go/mod" },
	} {
		all, p, by = set()
		was := ref
		change()
		if b, err := MakeSet(ref, all, p, by); err == nil {
			t.Errorf("%s: %s", name, b)
		}
		ref = was
	}
}
