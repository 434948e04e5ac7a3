package sbom

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/CycloneDX/cyclonedx-go"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// Sample is a release with one of each.
func sample() Release {
	d := func(s string) artifact.Digest { return artifact.Sum([]byte(s)) }
	return Release{
		Site: "island", Number: 3, Digest: d("release"), Made: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Artifacts: []artifact.Artifact{
			{Ref: artifact.Ref{Kind: "pypi", Name: "some-thing", Version: "1.0"}, Manifest: d("m"), Files: []artifact.File{{Path: "some_thing-1.0-py3-none-any.whl", Digest: d("w"), Origin: "https://index.example/some_thing-1.0-py3-none-any.whl"}}},
			{Ref: artifact.Ref{Kind: "model", Name: "smol"}, Manifest: d("n"), Files: []artifact.File{{Path: "config.json", Digest: d("c")}, {Path: "model.gguf", Digest: d("g")}}},
			{Ref: artifact.Ref{Kind: "vulndb", Name: "osv"}, Manifest: d("o"), Files: []artifact.File{{Path: "PyPI.osv", Digest: d("p")}}},
		},
		Facts: []inspect.Fact{
			{Kind: inspect.Component, Artifact: "pypi/some-thing@1.0", Value: "pkg:pypi/some-thing@1.0"},
			{Kind: inspect.Component, Artifact: "pypi/some-thing@1.0", File: "x!y", Value: "pkg:pypi/vendored@2.0"},
			{Kind: inspect.Licence, Artifact: "pypi/some-thing@1.0", Value: "Apache-2.0 OR MIT"},
			{Kind: inspect.Model, Artifact: "model/smol", Value: "llama: 272 tensors"},
			{Kind: inspect.Format, Artifact: "model/smol", Value: "gguf"},
		},
		Findings: []inspect.Finding{
			{Scanner: "vuln", Rule: "vulnerability", Artifact: "pypi/some-thing@1.0", Score: 9.8, Advisory: "PYSEC-1", Detail: "a flaw"},
			{Scanner: "vuln", Rule: "vulnerability", Artifact: "pypi/some-thing@1.0", Advisory: "PYSEC-1", Detail: "a flaw"},
			{Scanner: "wheel", Rule: "script", Artifact: "pypi/some-thing@1.0"},
		},
		Databases: []inspect.Database{{Name: "osv", Version: string(d("o")), Dated: time.Unix(1_700_000_000, 0)}},
		Versions:  []inspect.ScannerInfo{{Name: "wheel", Version: "1"}, {Name: "wheel", Version: "1"}},
	}
}

func TestBuild(t *testing.T) {
	b, err := Build(sample())
	if err != nil {
		t.Fatal(err)
	}
	again, err := Build(sample())
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("the same release gives other bytes, %v", err)
	}
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(b), cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	all := *bom.Components
	if len(all) != 3 || all[0].PackageURL != "pkg:pypi/some-thing@1.0" || len(*all[0].Components) != 1 || (*all[0].Licenses)[0].License.Name != "Apache-2.0 OR MIT" {
		t.Errorf("%+v", all)
	}
	if m := all[1]; m.Type != cyclonedx.ComponentTypeMachineLearningModel || m.ModelCard.ModelParameters.ArchitectureFamily != "llama" || len(*m.Components) != 2 {
		t.Errorf("%+v", m)
	}
	if v := *bom.Vulnerabilities; len(v) != 1 || v[0].ID != "PYSEC-1" || len(*v[0].Affects) != 1 || *(*v[0].Ratings)[0].Score != 9.8 {
		t.Errorf("%+v", v)
	}
	refs := map[string]int{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if r, ok := v["bom-ref"].(string); ok {
				refs[r]++
			}
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	var doc any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	walk(doc)
	for r, n := range refs {
		if n != 1 {
			t.Errorf("bom-ref %s stands %d times", r, n)
		}
	}
}
