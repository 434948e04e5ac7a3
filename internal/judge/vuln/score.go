package vuln

import (
	"strings"

	gocvss20 "github.com/pandatix/go-cvss/20"
	gocvss30 "github.com/pandatix/go-cvss/30"
	gocvss31 "github.com/pandatix/go-cvss/31"
	gocvss40 "github.com/pandatix/go-cvss/40"
)

// Score returns how bad it is, from 0 to 10: the highest base score of its vectors,
// or the lower border of the word that the database uses. stated is false when
// there is neither.
func (r Record) Score() (score float64, stated bool) {
	for _, s := range r.Severity {
		n, ok := vector(s.Score)
		if ok {
			score, stated = max(score, n), true
		}
	}
	if stated {
		return score, true
	}
	n, ok := levels[r.Level]
	return n, ok
}

// levels are the lower borders of the qualitative scale of CVSS 3.1, section 5;
// constant.
var levels = map[string]float64{"LOW": 0.1, "MEDIUM": 4, "MODERATE": 4, "HIGH": 7, "CRITICAL": 9}

func vector(v string) (float64, bool) {
	switch {
	case strings.HasPrefix(v, "CVSS:4.0/"):
		c, err := gocvss40.ParseVector(v)
		if err != nil {
			return 0, false
		}
		return c.Score(), true
	case strings.HasPrefix(v, "CVSS:3.1/"):
		c, err := gocvss31.ParseVector(v)
		if err != nil {
			return 0, false
		}
		return c.BaseScore(), true
	case strings.HasPrefix(v, "CVSS:3.0/"):
		c, err := gocvss30.ParseVector(v)
		if err != nil {
			return 0, false
		}
		return c.BaseScore(), true
	case strings.HasPrefix(v, "AV:"):
		c, err := gocvss20.ParseVector(v)
		if err != nil {
			return 0, false
		}
		return c.BaseScore(), true
	}
	return 0, false
}
