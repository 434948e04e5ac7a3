// Package vulntest makes exports of OSV that look like the real ones, where these
// cannot be reached: every ecosystem, every kind of range, scores of all versions
// of CVSS, advisories that were withdrawn, malicious packages. The same number
// makes the same advisories.
package vulntest

import (
	"archive/zip"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// seeds has a line for each ecosystem: its name, the prefix of its advisories, how
// many of a thousand advisories are about it, and names of packages. Constant.
//
//go:embed seeds.txt
var seeds embed.FS

// Ecosystem is one of the exports that Write makes.
type Ecosystem struct {
	Name, Prefix string
	Share        int // of a thousand advisories
	Packages     []string
}

// Ecosystems returns what the seeds say.
func Ecosystems() (all []Ecosystem, err error) {
	b, err := seeds.ReadFile("seeds.txt")
	if err != nil {
		return nil, err
	}
	for l := range strings.Lines(string(b)) {
		if strings.HasPrefix(l, "#") || strings.TrimSpace(l) == "" {
			continue
		}
		parts := strings.Split(strings.TrimSpace(l), "|")
		if len(parts) != 4 {
			return nil, fmt.Errorf("seeds: %q", l)
		}
		e := Ecosystem{Name: parts[0], Prefix: parts[1], Packages: strings.Fields(parts[3])}
		if e.Name == "cargo" {
			e.Name = "crates" + ".io" // this is what OSV calls it
		}
		if _, err := fmt.Sscan(parts[2], &e.Share); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// Write makes DIR/ECOSYSTEM/all.zip for every ecosystem, n advisories in all, the
// newest of the given time.
func Write(dir string, n int, newest time.Time) error {
	all, err := Ecosystems()
	if err != nil {
		return err
	}
	for i, e := range all {
		if err := write(filepath.Join(dir, e.Name), e, max(1, n*e.Share/1000), newest, rand.New(rand.NewPCG(2026, uint64(i)))); err != nil {
			return err
		}
	}
	return nil
}

func write(dir string, e Ecosystem, n int, newest time.Time, r *rand.Rand) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "all.zip"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return Export(f, e, n, newest, r)
}

// Export writes one export.
func Export(to io.Writer, e Ecosystem, n int, newest time.Time, r *rand.Rand) error {
	z := zip.NewWriter(to)
	for i := range n {
		a := advisory(e, i, newest.Add(-time.Duration(i)*37*time.Minute).UTC().Truncate(time.Second), r)
		w, err := z.Create(a["id"].(string) + ".json")
		if err != nil {
			return err
		}
		if err := json.NewEncoder(w).Encode(a); err != nil {
			return err
		}
	}
	return z.Close()
}

type object = map[string]any

// vectors are of every version of CVSS; constant.
var vectors = []object{
	{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"},
	{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:H/PR:L/UI:R/S:U/C:L/I:L/A:N"},
	{"type": "CVSS_V3", "score": "CVSS:3.0/AV:L/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H"},
	{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"},
	{"type": "CVSS_V2", "score": "AV:N/AC:M/Au:N/C:P/I:P/A:P"},
}

// advisory makes the i-th advisory of an ecosystem.
func advisory(e Ecosystem, i int, modified time.Time, r *rand.Rand) object {
	name := e.Packages[r.IntN(len(e.Packages))]
	if r.IntN(3) > 0 {
		name = fmt.Sprintf("%s-%s%d", name, []string{"utils", "core", "client", "plugin", "lib"}[r.IntN(5)], r.IntN(4000))
	}
	a := object{
		"schema_version": "1.7.0", "id": fmt.Sprintf("%s-%d-%d", e.Prefix, modified.Year(), i+1), "modified": modified,
		"published": modified.Add(-72 * time.Hour), "summary": "A flaw in " + name + " that lets input do what it should not",
		"details":    strings.Repeat("What an attacker sends is used before it is checked. ", 2+r.IntN(20)),
		"references": []object{{"type": "ADVISORY", "url": "https://advisories.example/" + fmt.Sprint(i)}},
	}
	switch r.IntN(12) {
	case 0:
		a["withdrawn"] = modified
	case 1, 2:
		a["database_specific"] = object{"severity": []string{"LOW", "MODERATE", "HIGH", "CRITICAL"}[r.IntN(4)]}
	case 3:
		if e.Name == "npm" || e.Name == "PyPI" {
			a["id"] = fmt.Sprintf("MAL-%d-%d", modified.Year(), i+1)
			a["affected"] = []object{{"package": object{"ecosystem": e.Name, "name": name}, "versions": []string{"1.0.0", "1.0.1"}}}
			return a
		}
	default:
		a["severity"] = []object{vectors[r.IntN(len(vectors))]}
	}
	if r.IntN(2) == 0 {
		a["aliases"] = []string{fmt.Sprintf("CVE-%d-%d", modified.Year(), 10000+i)}
	}
	affected := []object{}
	for range 1 + r.IntN(2) {
		affected = append(affected, about(e, name, r))
		name += "-extra"
	}
	a["affected"] = affected
	return a
}

func about(e Ecosystem, name string, r *rand.Rand) object {
	eco := e.Name
	if eco == "Debian" {
		eco = fmt.Sprintf("Debian:%d", 11+r.IntN(3))
	}
	from, to := fmt.Sprintf("%d.%d.0", r.IntN(3), r.IntN(9)), fmt.Sprintf("%d.%d.%d", 3+r.IntN(3), r.IntN(9), r.IntN(20))
	if eco != e.Name {
		to += "-1+deb" + eco[7:] + "u" + fmt.Sprint(1+r.IntN(4))
	}
	out := object{"package": object{"ecosystem": eco, "name": name}}
	ecosystem := func(events ...object) object { return object{"type": "ECOSYSTEM", "events": events} }
	switch r.IntN(8) {
	case 0:
		out["versions"] = []string{from, "1.2.3", "1.2.4"}
	case 1:
		out["ranges"] = []object{ecosystem(object{"introduced": from}, object{"last_affected": to})}
	case 2:
		out["ranges"] = []object{ecosystem(object{"introduced": "0"})}
	case 3:
		out["ranges"] = []object{
			ecosystem(object{"introduced": "0"}, object{"fixed": from}, object{"introduced": "2.0.0"}, object{"fixed": to}),
		}
	case 4:
		out["versions"] = []string{from}
		out["ranges"] = []object{{"type": "GIT", "repo": "https://code.example/x.git", "events": []object{{"introduced": "0"}, {"fixed": "6879efc2c1596d11a6a6ad296f80063b558d5e0f"}}}}
	case 5:
		if e.Name == "npm" || e.Name == "Go" || strings.HasPrefix(e.Name, "crates") {
			out["ranges"] = []object{{"type": "SEMVER", "events": []object{{"introduced": "0"}, {"fixed": to}, {"limit": "9.0.0"}}}}
			break
		}
		fallthrough
	default:
		out["ranges"] = []object{ecosystem(object{"introduced": "0"}, object{"fixed": to})}
	}
	return out
}
