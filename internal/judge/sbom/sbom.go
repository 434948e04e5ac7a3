// Package sbom says what a release consists of, in CycloneDX: packages, models, data
// and engines with their files' digests, what lies inside of them, licences, and the
// vulnerabilities that are known of them.
//
// The same release and reports give the same bytes.
package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// Release is what an SBOM is made of.
type Release struct {
	Site      string // name of the island
	Number    int64
	Digest    artifact.Digest // of the release
	Made      time.Time       // when it was released
	Artifacts []artifact.Artifact
	Facts     []inspect.Fact     // of the newest reports about them
	Findings  []inspect.Finding  // of the same
	Databases []inspect.Database // of the same
	Versions  []inspect.ScannerInfo
}

// Spec is the version of CycloneDX that is written.
const Spec = cyclonedx.SpecVersion1_6

// Build returns the SBOM as JSON.
func Build(r Release) ([]byte, error) {
	bom := cyclonedx.NewBOM()
	sum := sha256.Sum256([]byte(r.Digest))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // version 8 of RFC 9562: made from what it names
	bom.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	root := cyclonedx.Component{
		BOMRef: string(r.Digest), Type: cyclonedx.ComponentTypePlatform, Name: r.Site, Version: fmt.Sprint(r.Number),
		Hashes: hashes(r.Digest),
	}
	bom.Metadata = &cyclonedx.Metadata{Timestamp: r.Made.UTC().Format(time.RFC3339), Component: &root, Properties: properties(r)}
	facts := map[string][]inspect.Fact{}
	for _, f := range r.Facts {
		facts[f.Artifact] = append(facts[f.Artifact], f)
	}
	components := []cyclonedx.Component{}
	dependencies := []cyclonedx.Dependency{}
	inRoot := []string{}
	for _, a := range r.Artifacts {
		c := component(a, facts[a.Ref.String()])
		components = append(components, c)
		inRoot = append(inRoot, c.BOMRef)
	}
	dependencies = append(dependencies, cyclonedx.Dependency{Ref: root.BOMRef, Dependencies: &inRoot})
	bom.Components, bom.Dependencies = &components, &dependencies
	if v := vulnerabilities(r.Findings); len(v) > 0 {
		bom.Vulnerabilities = &v
	}
	var out bytes.Buffer
	e := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON)
	e.SetPretty(true)
	e.SetEscapeHTML(false)
	err := e.EncodeVersion(bom, Spec)
	return out.Bytes(), err
}

func hashes(d artifact.Digest) *[]cyclonedx.Hash {
	return &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: d.Hex()}}
}

func properties(r Release) *[]cyclonedx.Property {
	all := []cyclonedx.Property{}
	for _, s := range r.Versions {
		all = append(all, cyclonedx.Property{Name: "enisle:scanner:" + s.Name, Value: s.Version})
	}
	for _, d := range r.Databases {
		all = append(all, cyclonedx.Property{Name: "enisle:database:" + d.Name, Value: d.Version + " of " + d.Dated.UTC().Format(time.RFC3339)})
	}
	slices.SortFunc(all, func(a, b cyclonedx.Property) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
	})
	all = slices.Compact(all)
	return &all
}

// types are what kinds of artifacts are to CycloneDX; what is not here is a library.
// Constant.
var types = map[string]cyclonedx.ComponentType{
	"model": cyclonedx.ComponentTypeMachineLearningModel, "hf": cyclonedx.ComponentTypeMachineLearningModel,
	"engine": cyclonedx.ComponentTypeApplication, "oci": cyclonedx.ComponentTypeContainer,
	"kb": cyclonedx.ComponentTypeData, "rules": cyclonedx.ComponentTypeData, "vulndb": cyclonedx.ComponentTypeData,
	"files": cyclonedx.ComponentTypeFile, "vsa": cyclonedx.ComponentTypeData,
}

// component describes one artifact.
func component(a artifact.Artifact, facts []inspect.Fact) cyclonedx.Component {
	ref := a.Ref.String()
	c := cyclonedx.Component{BOMRef: ref, Type: cmp.Or(types[a.Ref.Kind], cyclonedx.ComponentTypeLibrary), Name: a.Ref.Name, Version: a.Ref.Version}
	inside := []cyclonedx.Component{}
	var licences []string
	var refs []cyclonedx.ExternalReference
	if len(a.Files) == 1 {
		c.Hashes = hashes(a.Files[0].Digest)
	}
	for _, f := range a.Files {
		if len(a.Files) > 1 {
			inside = append(inside, cyclonedx.Component{BOMRef: ref + "#" + f.Path, Type: cyclonedx.ComponentTypeFile, Name: f.Path, Hashes: hashes(f.Digest)})
		}
		if strings.Contains(f.Origin, "://") {
			refs = append(refs, cyclonedx.ExternalReference{URL: f.Origin, Type: cyclonedx.ERTypeDistribution, Hashes: hashes(f.Digest)})
		}
	}
	seen := map[string]bool{}
	for _, f := range facts {
		switch f.Kind {
		case inspect.Component:
			name, version, own := purlParts(f.Value, a.Ref)
			switch {
			case strings.HasPrefix(f.Value, "pkg:generic/os/") || seen[f.Value]:
			case own && c.PackageURL == "":
				c.PackageURL = f.Value
			case !own:
				inside = append(inside, cyclonedx.Component{BOMRef: ref + "#" + f.Value, Type: cyclonedx.ComponentTypeLibrary, Name: name, Version: version, PackageURL: f.Value})
			}
			seen[f.Value] = true
		case inspect.Licence:
			if !slices.Contains(licences, f.Value) {
				licences = append(licences, f.Value)
			}
		case inspect.Model:
			if c.ModelCard == nil {
				family, _, _ := strings.Cut(f.Value, ":")
				c.ModelCard = &cyclonedx.MLModelCard{ModelParameters: &cyclonedx.MLModelParameters{ArchitectureFamily: family, ModelArchitecture: f.Value}}
			}
		}
	}
	if len(licences) > 0 {
		all := cyclonedx.Licenses{}
		for _, l := range licences {
			all = append(all, cyclonedx.LicenseChoice{License: &cyclonedx.License{Name: l}})
		}
		c.Licenses = &all
	}
	if len(refs) > 0 {
		c.ExternalReferences = &refs
	}
	if len(inside) > 0 {
		c.Components = &inside
	}
	notes := []cyclonedx.Property{{Name: "enisle:manifest", Value: string(a.Manifest)}}
	for _, f := range facts {
		if f.Kind == inspect.Format || f.Kind == inspect.Signer {
			notes = append(notes, cyclonedx.Property{Name: "enisle:" + f.Kind, Value: f.Value})
		}
	}
	notes = slices.Compact(notes)
	c.Properties = &notes
	return c
}

// purlParts returns name and version of a package URL, and whether it is the artifact
// itself.
func purlParts(purl string, ref artifact.Ref) (name, version string, itself bool) {
	body, _, _ := strings.Cut(purl, "?")
	_, body, _ = strings.Cut(body, "/")
	body = strings.ReplaceAll(body, "%40", "@")
	if i := strings.LastIndex(body, "@"); i > 0 {
		body, version = body[:i], strings.ReplaceAll(body[i+1:], "%2B", "+")
	}
	name = body
	normal := func(s string) string {
		return strings.ToLower(strings.NewReplacer("_", "-", ".", "-", ":", "/").Replace(s))
	}
	own := ref.Name
	if ref.Kind == "debian" {
		own = own[strings.LastIndex(own, "/")+1:] // the release stands before it
	}
	return name, version, strings.HasSuffix(normal("/"+name), normal("/"+own)) && (version == ref.Version || "v"+version == ref.Version)
}

// vulnerabilities lists what is known, by advisory.
func vulnerabilities(findings []inspect.Finding) (out []cyclonedx.Vulnerability) {
	at := map[string]int{}
	for _, f := range findings {
		if f.Advisory == "" {
			continue
		}
		i, ok := at[f.Advisory]
		if !ok {
			i = len(out)
			at[f.Advisory] = i
			v := cyclonedx.Vulnerability{BOMRef: "vulnerability:" + f.Advisory, ID: f.Advisory, Description: f.Detail, Affects: &[]cyclonedx.Affects{}}
			if score := f.Score; score > 0 {
				v.Ratings = &[]cyclonedx.VulnerabilityRating{{Score: &score, Severity: severity(score)}}
			}
			out = append(out, v)
		}
		if affects := out[i].Affects; !slices.ContainsFunc(*affects, func(a cyclonedx.Affects) bool { return a.Ref == f.Artifact }) {
			*affects = append(*affects, cyclonedx.Affects{Ref: f.Artifact})
		}
	}
	return out
}

func severity(score float64) cyclonedx.Severity {
	switch {
	case score >= 9:
		return cyclonedx.SeverityCritical
	case score >= 7:
		return cyclonedx.SeverityHigh
	case score >= 4:
		return cyclonedx.SeverityMedium
	}
	return cyclonedx.SeverityLow
}
