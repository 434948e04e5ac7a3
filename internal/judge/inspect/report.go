package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"enisle/internal/artifact"
)

// ReportType is the payload type under which a site signs a report.
const ReportType = "application/vnd.enisle.report.v1+json"

// ReportFormat is the format a report names.
const ReportFormat = "enisle-report/1"

// ScannerInfo says which scanner took part, so that a verdict can be dated.
type ScannerInfo struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Content is one artifact that a report is about, as far as rules ask for it.
type Content struct {
	Ref       string          `json:"ref"`
	Manifest  artifact.Digest `json:"manifest"`
	Size      int64           `json:"size"`               // bytes of all files
	Published time.Time       `json:"published,omitzero"` // of its newest file, where the origin said so
	// Hosts are those of the web that it came from, as the low site says.
	Hosts []string `json:"hosts,omitempty"`
}

// Database is what a scanner looked things up in.
type Database struct {
	Name    string    `json:"name"`    // osv, clamav …
	Version string    `json:"version"` // digest or number
	Dated   time.Time `json:"dated"`   // of the data, by witnessed time
}

// Verified is a signature of an artifact's maker that a low site verified when it
// collected the artifact, and attested.
type Verified struct {
	Artifact string    `json:"artifact"` // reference
	Signer   string    `json:"signer"`   // as rules name it: oms:key:sha256:…
	At       time.Time `json:"at"`
	By       string    `json:"by"`       // the low site
	Ignored  []string  `json:"ignored"`  // paths that the signer left out
	Unsigned []string  `json:"unsigned"` // files that are not covered
}

// Report is everything the scanners said of one content root. It is immutable:
// inspecting again makes a new one.
type Report struct {
	Format    string          `json:"format"`
	Shipment  string          `json:"shipment"`
	Content   artifact.Digest `json:"content"`
	Made      time.Time       `json:"made"`
	Scanned   time.Time       `json:"scanned,omitzero"` // when the files were read, if that was earlier
	Scanners  []ScannerInfo   `json:"scanners"`
	Databases []Database      `json:"databases"`
	Contents  []Content       `json:"contents"` // by reference
	Artifacts int             `json:"artifacts"`
	Files     int             `json:"files"`
	Members   int             `json:"members"` // members of containers that were looked at
	Bytes     int64           `json:"bytes"`   // read, members included
	Findings  []Finding       `json:"findings"`
	Facts     []Fact          `json:"facts"`
	// Verified are by artifact and signer.
	Verified []Verified `json:"verified,omitempty"`
}

// Read is when the files were read, from which a report ages.
func (r Report) Read() time.Time {
	if r.Scanned.IsZero() {
		return r.Made
	}
	return r.Scanned
}

// Of returns the findings of a severity.
func (r Report) Of(sev Severity) (out []Finding) {
	for _, f := range r.Findings {
		if f.Severity == sev {
			out = append(out, f)
		}
	}
	return out
}

// DecodeReport reads the payload of a verified report.
func DecodeReport(payload []byte) (Report, error) {
	var r Report
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("report: %w", err)
	}
	if r.Format != ReportFormat {
		return r, fmt.Errorf("report: format %.40q is not known", r.Format)
	}
	if len(r.Scanners) == 0 {
		return r, errors.New("report: no scanner took part")
	}
	return r, nil
}
