package sigstore

import (
	"encoding/json"
	"strings"
	"testing"

	"enisle/internal/fail"
)

const published = `{"version":1,"verification_material":{"certificate":"AAAA","transparency_entries":[{"logIndex":"1"}]},"envelope":{"statement":"e30=","signature":"AAAA"}}`

func TestRead(t *testing.T) {
	for name, tc := range map[string]struct {
		content, format string
		bundles         int
	}{
		"a bundle":        {`{"mediaType":"x"}`, Bundle, 1},
		"an attestation":  {published, PEP740, 1},
		"a provenance":    {`{"version":1,"attestation_bundles":[{"publisher":{},"attestations":[` + published + `,` + published + `]}]}`, PEP740, 2},
		"nothing":         {`{}`, "", 0},
		"another version": {strings.Replace(published, `"version":1`, `"version":2`, 1), "", 0},
		"no entry":        {strings.Replace(published, `[{"logIndex":"1"}]`, `[]`, 1), "", 0},
		"an unknown key":  {strings.Replace(published, `"envelope":{`, `"envelope":{"more":1,`, 1), "", 0},
		"no attestation":  {`{"version":1,"attestation_bundles":[{"publisher":{},"attestations":[]}]}`, "", 0},
		"no JSON":         {`x`, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			format, bundles, err := Read([]byte(tc.content))
			if format != tc.format || len(bundles) != tc.bundles || (tc.bundles == 0) != fail.IsRefused(err) {
				t.Errorf("got %q, %d bundles, %v", format, len(bundles), err)
			}
			for _, b := range bundles {
				if !json.Valid(b) {
					t.Errorf("no JSON: %s", b)
				}
			}
		})
	}
}

func TestOnlySomeStatementsVouch(t *testing.T) {
	for predicate, want := range map[string]bool{
		"https://slsa.dev/provenance/v1":                true,
		"https://index.example/attestations/publish/v1": true,
		"https://model_signing/signature/v1.0":          true,
		"https://slsa.dev/verification_summary/v1":      false,
		"https://in-toto.io/attestation/test-result/v1": false,
		"": false,
	} {
		if vouches(predicate) != want {
			t.Errorf("%q: want %v", predicate, want)
		}
	}
}

// FuzzRead reads what strangers made: whatever comes out is a document.
func FuzzRead(f *testing.F) {
	f.Add([]byte(published))
	f.Add([]byte(`{"version":1,"attestation_bundles":[{"attestations":[` + published + `]}]}`))
	f.Add([]byte(`{"mediaType":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, bundles, err := Read(b)
		for _, c := range bundles {
			if err != nil || !json.Valid(c) {
				t.Errorf("%v, and %q", err, c)
			}
		}
	})
}
