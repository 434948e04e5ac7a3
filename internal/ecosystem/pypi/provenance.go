package pypi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
)

// Whoever publishes on an index can attest where a file was built (PEP 740). What the
// index has of that is brought with the file, byte for byte, and served where clients
// look for it: they can check it inside as they would outside.

const (
	provenanceType = "application/vnd.pypi.integrity.v1+json"
	provenanceEnd  = ".provenance" // of the file of an artifact that holds it
	maxProvenance  = 4 << 20       // bytes; those seen are near 10 KB
)

// provenanceOf fetches what an index has of a file, and writes it below work. at is the
// address of the page that names it.
func (p *Ecosystem) provenanceOf(ctx context.Context, f artifact.File, at, address, work string) (artifact.File, error) {
	var none artifact.File
	base, err := url.Parse(at)
	if err != nil {
		return none, err
	}
	u, err := base.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != base.Scheme || u.Host == "" {
		return none, fmt.Errorf("the index says that the provenance of %s is where nothing is fetched from", f.Path)
	}
	b, err := p.opt.Index.GetJSON(ctx, u.String(), provenanceType, maxProvenance)
	if err != nil {
		return none, fmt.Errorf("provenance of %s: %w", f.Path, err)
	}
	var doc struct {
		Version int               `json:"version"`
		Bundles []json.RawMessage `json:"attestation_bundles"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.Version != 1 || len(doc.Bundles) == 0 {
		return none, errors.Join(fmt.Errorf("the provenance of %s is of no form that is known", f.Path), err)
	}
	name := f.Digest.Hex() + provenanceEnd
	if err := os.WriteFile(filepath.Join(work, name), b, 0o600); err != nil {
		return none, err
	}
	return artifact.File{Path: f.Path + provenanceEnd, Size: int64(len(b)), Digest: artifact.Sum(b), Origin: ecosystem.Made(name, fetch.Clean(u.String()))}, nil
}

// integrity answers for the provenance of a file, by the paths of the index that the
// clients know: /integrity/NAME/VERSION/FILE/provenance.
func (ix *index) integrity(w http.ResponseWriter, r *http.Request) {
	name, version, file := r.PathValue("name"), r.PathValue("version"), r.PathValue("file")
	for _, d := range ix.projects[Normalise(name)] {
		if d.file.Path != file || d.version != version || d.provenance == nil {
			continue
		}
		b, err := ix.rel.Open(d.provenance.Digest)
		if err != nil {
			http.Error(w, "not held", http.StatusInternalServerError)
			return
		}
		content(w, r, d.provenance.Digest, provenanceType, b)
		_ = b.Close() // only read from
		return
	}
	ix.absent(w, r, Normalise(name), version)
}

// provenanceURL is where a page says that it is: relative, as the files are.
func (d *dist) provenanceURL(project string) string {
	if d.provenance == nil {
		return ""
	}
	return "../../integrity/" + project + "/" + url.PathEscape(d.version) + "/" + url.PathEscape(d.file.Path) + "/provenance"
}

// isProvenance reports whether a file of an artifact is the provenance of another.
func isProvenance(f artifact.File) bool { return strings.HasSuffix(f.Path, provenanceEnd) }
