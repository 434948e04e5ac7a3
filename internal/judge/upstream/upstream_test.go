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
