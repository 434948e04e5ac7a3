package app

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/npm"
	"enisle/internal/judge/vuln"
)

// maxAudited is how many versions one question of npm audit may name.
const maxAudited = 20_000

// audit answers npm audit out of the vulnerability data of a release.
func audit(rel ecosystem.Release, versions map[string][]string) (out map[string][]npm.Advisory, err error) {
	for _, a := range rel.Artifacts("vulndb") {
		for _, f := range a.Files {
			if f.Path != "npm"+vuln.Suffix {
				continue
			}
			b, err := rel.Open(f.Digest)
			if err != nil {
				return nil, err
			}
			d, err := vuln.Open(b, b.Size())
			if err == nil {
				out, err = auditIn(d, versions)
			}
			return out, errors.Join(err, b.Close())
		}
	}
	return nil, errors.New("the release has no vulnerability data of npm")
}

func auditIn(d vuln.Data, versions map[string][]string) (map[string][]npm.Advisory, error) {
	out, n := map[string][]npm.Advisory{}, 0
	for name, list := range versions {
		var found []vuln.Found
		for _, v := range list {
			if n++; n > maxAudited {
				return nil, fmt.Errorf("more than %d versions at once", maxAudited)
			}
			c, ok, err := vuln.Parse("pkg:npm/" + strings.Replace(name, "@", "%40", 1) + "@" + v)
			if err != nil || !ok {
				continue // a name or version that no registry has
			}
			got, err := d.Lookup(c)
			if err != nil {
				return nil, err
			}
			found = append(found, got...)
		}
		for _, f := range found {
			adv := npm.Advisory{
				ID: crc32.ChecksumIEEE([]byte(f.Record.ID)), URL: "urn:" + f.Record.ID, Title: f.Record.ID + ": " + f.Record.Summary,
				Severity: word(f.Record), VulnerableVersions: f.Record.SemverRange(),
			}
			if !slices.Contains(out[name], adv) {
				out[name] = append(out[name], adv)
			}
		}
	}
	return out, nil
}

// word is how npm calls a severity.
func word(r vuln.Record) string {
	score, stated := r.Score()
	switch {
	case r.Malicious() || score >= 9:
		return "critical"
	case score >= 7 || !stated:
		return "high"
	case score >= 4:
		return "moderate"
	}
	return "low"
}
