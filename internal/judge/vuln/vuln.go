// Package vuln matches components against known vulnerabilities in the schema of
// OSV (https://ossf.github.io/osv-schema/).
//
// Data crosses the gap as one sorted file an ecosystem (data.go), which is looked
// up by name without being read whole. Deciding whether a version is affected is a
// pure function; what cannot be decided counts as affected. It knows nothing of
// files, reports or policies.
package vuln

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/osv-scalibr/semantic"
	"github.com/package-url/packageurl-go"
)

// Record is one advisory, as far as it is about one package.
type Record struct {
	ID       string     `json:"id"`
	Aliases  []string   `json:"aliases,omitempty"`
	Modified time.Time  `json:"modified"`
	Summary  string     `json:"summary,omitempty"`  // at most maxSummary bytes
	Severity []Severity `json:"severity,omitempty"` // CVSS vectors
	Level    string     `json:"level,omitempty"`    // LOW to CRITICAL, where there is no vector
	Versions []string   `json:"versions,omitempty"` // affected, each exactly
	Ranges   []Range    `json:"ranges,omitempty"`
}

// Severity is a vector as OSV states it.
type Severity struct {
	Type  string `json:"type"`  // CVSS_V2, CVSS_V3, CVSS_V4 or what a distribution says
	Score string `json:"score"` // the vector
}

// Range is a stretch of affected versions.
type Range struct {
	Type   string  `json:"type"` // SEMVER, ECOSYSTEM or GIT
	Events []Event `json:"events"`
}

// Event is a border of a range; exactly one field is set.
type Event struct {
	Introduced   string `json:"introduced,omitempty"` // "0" is before every version
	Fixed        string `json:"fixed,omitempty"`
	LastAffected string `json:"last_affected,omitempty"`
	Limit        string `json:"limit,omitempty"`
}

// Component is a package as advisories name it.
type Component struct {
	PURL      string // as it was noted
	Ecosystem string // of OSV: PyPI, npm, Go, Debian:12 …; Debian alone when its release is not known
	Name      string // normal form
	Version   string
}

// ecosystems are the names of OSV by type of package URL; constant.
var ecosystems = map[string]string{
	"pypi": "PyPI", "npm": "npm", "golang": "Go", "maven": "Maven", "deb": "Debian", "apk": "Alpine",
	"cargo": "crates" + ".io", // this is what OSV calls it
}

// Ecosystems returns the ecosystems that components can be of, in order.
func Ecosystems() (all []string) {
	for _, e := range ecosystems {
		all = append(all, e)
	}
	slices.Sort(all)
	return all
}

// Base is an ecosystem without its release: Debian of Debian:12.
func Base(ecosystem string) string {
	base, _, _ := strings.Cut(ecosystem, ":")
	return base
}

// Parse reads a package URL. ok is false for what has no advisories: a model, an
// unknown type.
func Parse(purl string) (c Component, ok bool, err error) {
	p, err := packageurl.FromString(purl)
	if err != nil {
		return c, false, fmt.Errorf("package URL %.200q: %w", purl, err)
	}
	c = Component{PURL: purl, Ecosystem: ecosystems[p.Type], Name: p.Name, Version: p.Version}
	if c.Ecosystem == "" {
		return c, false, nil
	}
	q := p.Qualifiers.Map()
	switch p.Type {
	case "maven":
		c.Name = p.Namespace + ":" + p.Name
	case "npm", "golang":
		if p.Namespace != "" {
			c.Name = p.Namespace + "/" + p.Name
		}
	case "deb", "apk":
		// Advisories of distributions name the source.
		if up := q["upstream"]; up != "" {
			name, version, has := strings.Cut(up, "@")
			if c.Name = name; has {
				c.Version = version
			}
		}
		if p.Namespace == "ubuntu" {
			c.Ecosystem = "Ubuntu"
		}
		if _, release, has := strings.Cut(q["distro"], "-"); has {
			if c.Ecosystem == "Alpine" {
				release = "v" + strings.TrimPrefix(release, "v")
			}
			c.Ecosystem += ":" + release
		}
	}
	if c.Version == "" {
		return c, false, errors.New("package URL " + purl + ": it has no version")
	}
	c.Name = normal(Base(c.Ecosystem), c.Name)
	if p.Type == "golang" {
		c.Version = strings.TrimPrefix(c.Version, "v")
	}
	return c, true, nil
}

// separators is constant.
var separators = regexp.MustCompile(`[-_.]+`)

// normal is the one spelling of a name that may be spelt in several ways (PEP 503).
func normal(base, name string) string {
	if base == "PyPI" {
		return strings.ToLower(separators.ReplaceAllString(name, "-"))
	}
	return name
}

// covers reports whether an advisory's ecosystem is the component's. A release that
// is not known is every release.
func covers(advisory, component string) bool {
	if Base(advisory) != Base(component) {
		return false
	}
	_, a, has := strings.Cut(advisory, ":")
	_, c, known := strings.Cut(component, ":")
	return !has || !known || a == c || strings.HasPrefix(a, c+":") // Ubuntu:22.04:LTS
}

// Affected says whether a version is affected.
type Affected struct {
	Is     bool
	Unsure string // why it counts as affected although it could not be compared
	Fixed  string // the lowest version above it that mends it; empty: none is known
}

// Affects decides whether the component's version is affected by the record, as
// OSV's algorithm does (https://ossf.github.io/osv-schema/#evaluation). Ranges of
// commits say nothing about versions.
func (r Record) Affects(c Component) (a Affected) {
	if Base(c.Ecosystem) == "PyPI" {
		c.Version, _, _ = strings.Cut(c.Version, "+") // a local label names a build of that version
	}
	a.Is = slices.ContainsFunc(r.Versions, func(v string) bool { return same(Base(c.Ecosystem), c.Version, v) })
	compared := len(r.Versions) > 0
	for _, rg := range r.Ranges {
		if rg.Type == "GIT" {
			continue
		}
		compared = true
		in, fixed, err := rg.contains(c)
		if err != nil {
			return Affected{Is: true, Unsure: err.Error()}
		}
		if in {
			a.Is = true
			if fixed != "" {
				a.Fixed = fixed
			}
		}
	}
	if !compared && len(r.Ranges) > 0 {
		return Affected{Is: true, Unsure: "the advisory names commits only"}
	}
	if !compared {
		// Neither versions nor ranges: all of it.
		return Affected{Is: true}
	}
	return a
}

// contains evaluates the events in the order of their versions.
func (rg Range) contains(c Component) (in bool, fixed string, err error) {
	type border struct {
		event   Event
		version string
		sorts   int // of two borders at one version, the end of the one stands first
	}
	var borders []border
	limits, below := 0, false
	base := Base(c.Ecosystem)
	for _, e := range rg.Events {
		switch {
		case e.Introduced != "":
			borders = append(borders, border{e, e.Introduced, 1})
		case e.Fixed != "":
			borders = append(borders, border{e, e.Fixed, 0})
		case e.LastAffected != "":
			borders = append(borders, border{e, e.LastAffected, 2})
		case e.Limit != "":
			if limits++; e.Limit == "*" {
				below = true
				continue
			}
			n, err := compare(base, c.Version, e.Limit)
			if err != nil {
				return false, "", err
			}
			below = below || n < 0
		default:
			return false, "", errors.New("the advisory has an event without a border")
		}
	}
	if limits > 0 && !below {
		return false, "", nil
	}
	slices.SortStableFunc(borders, func(x, y border) int {
		n, cerr := compare(base, x.version, y.version)
		if err = errors.Join(err, cerr); n == 0 {
			n = x.sorts - y.sorts
		}
		return n
	})
	if err != nil {
		return false, "", err
	}
	for _, b := range borders {
		n, err := compare(base, c.Version, b.version)
		if err != nil {
			return false, "", err
		}
		switch {
		case b.event.Introduced != "" && n >= 0:
			in = true
		case b.event.Fixed != "" && n >= 0, b.event.LastAffected != "" && n > 0:
			in = false
		case b.event.Fixed != "" && in && fixed == "":
			fixed = b.event.Fixed
		}
	}
	return in, fixed, nil
}

// same reports whether two spellings are one version: 1.0 and 1.0.0 of PyPI.
func same(base, a, b string) bool {
	if a == b {
		return true
	}
	if first(a) != first(b) && !strings.ContainsAny(a+b, "!:") {
		return false // most of them, without being taken apart
	}
	n, err := compare(base, a, b)
	return err == nil && n == 0
}

// first is the number that a version begins with.
func first(v string) string {
	v = strings.TrimLeft(v, "vV0 ")
	return v[:len(v)-len(strings.TrimLeft(v, "0123456789"))]
}

// compare orders two versions by the rules of an ecosystem; "0" stands before all.
func compare(base, a, b string) (int, error) {
	switch {
	case a == b:
		return 0, nil
	case a == "0":
		return -1, nil
	case b == "0":
		return 1, nil
	}
	v, err := semantic.Parse(a, base)
	if err != nil {
		return 0, fmt.Errorf("version %.60q cannot be compared: %w", a, err)
	}
	n, err := v.CompareStr(b)
	if err != nil {
		return 0, fmt.Errorf("version %.60q cannot be compared: %w", b, err)
	}
	return n, nil
}

// SemverRange says which versions are affected in the notation of npm: "<2.0.0",
// ">=1.0.0 <1.2.3 || 3.0.0". What cannot be said so is everything.
func (r Record) SemverRange() string {
	parts := slices.Clone(r.Versions)
	for _, rg := range r.Ranges {
		if rg.Type == "GIT" {
			continue
		}
		from := ""
		open := false
		for _, e := range rg.Events {
			switch {
			case e.Introduced != "":
				from, open = "", true
				if e.Introduced != "0" {
					from = ">=" + e.Introduced + " "
				}
			case e.Fixed != "" && open:
				parts, open = append(parts, from+"<"+e.Fixed), false
			case e.LastAffected != "" && open:
				parts, open = append(parts, from+"<="+e.LastAffected), false
			}
		}
		if open {
			parts = append(parts, strings.TrimSpace(from+"*"))
		}
	}
	if len(parts) == 0 || slices.Contains(parts, "*") {
		return "*"
	}
	return strings.Join(parts, " || ")
}

// Malicious reports whether the advisory says that the package itself is an attack.
func (r Record) Malicious() bool { return strings.HasPrefix(r.ID, "MAL-") }

// advisory is what is read of a file of OSV.
type advisory struct {
	ID        string     `json:"id"`
	Aliases   []string   `json:"aliases"`
	Modified  time.Time  `json:"modified"`
	Withdrawn *time.Time `json:"withdrawn"`
	Summary   string     `json:"summary"`
	Details   string     `json:"details"`
	Severity  []Severity `json:"severity"`
	Database  level      `json:"database_specific"`
	Affected  []struct {
		Package struct {
			Ecosystem string `json:"ecosystem"`
			Name      string `json:"name"`
		} `json:"package"`
		Severity []Severity `json:"severity"`
		Ranges   []Range    `json:"ranges"`
		Versions []string   `json:"versions"`
		Specific level      `json:"ecosystem_specific"`
		Database level      `json:"database_specific"`
	} `json:"affected"`
}

// level reads a severity word wherever a database keeps one; whatever else stands
// there is of no interest.
type level string

func (l *level) UnmarshalJSON(b []byte) error {
	var m map[string]json.RawMessage
	if json.Unmarshal(b, &m) != nil {
		return nil
	}
	for _, key := range []string{"severity", "urgency"} {
		var word string
		if json.Unmarshal(m[key], &word) == nil && word != "" {
			*l = level(strings.ToUpper(word[:min(len(word), 40)]))
			return nil
		}
	}
	return nil
}
