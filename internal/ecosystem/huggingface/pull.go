package huggingface

import (
	"context"
	"crypto/sha1" //nolint:gosec // git's name of a blob; the store has SHA-256
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// Bounds of one repository.
const (
	maxInfo    = 64 << 20 // bytes of a description, or of a page of the listing
	maxPages   = 1000     // of the listing
	maxEntries = 200_000
	maxPlain   = 256 << 20 // bytes of a file that is not in LFS; hubs allow 10 MB
	maxFile    = 1 << 40   // bytes
)

// HubFile is the name of the file that holds the Hub.
const HubFile = "hub.json"

// Hub is what hub.json holds: what a hub says of a repository at one commit.
type Hub struct {
	ID        string            `json:"id"`
	Type      string            `json:"type"` // model or dataset
	Commit    string            `json:"commit"`
	Revisions map[string]string `json:"revisions"` // names that meant the commit when it was asked for
	Modified  time.Time         `json:"modified,omitzero"`
	Tags      []string          `json:"tags"`
	Pipeline  string            `json:"pipeline_tag,omitempty"`
	Library   string            `json:"library_name,omitempty"`
	Entries   []Entry           `json:"entries"` // ordered by path
}

// Entry is a file or a directory, as the hub lists it.
type Entry struct {
	Type string `json:"type"` // file or directory
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes
	OID  string `json:"oid"`  // of git: the blob's or the tree's
	LFS  *LFS   `json:"lfs,omitempty"`
}

// LFS is a file that git holds a pointer to.
type LFS struct {
	OID     string `json:"oid"`  // SHA-256 of the content
	Size    int64  `json:"size"` // bytes
	Pointer int64  `json:"pointerSize"`
}

// puller takes one repository.
type puller struct {
	Getter
	order
	work, dir string
	hub       Hub
	files     []artifact.File
}

func (p *puller) pull(ctx context.Context) (a artifact.Artifact, err error) {
	if err := os.MkdirAll(filepath.Join(p.work, p.dir), 0o755); err != nil {
		return a, err
	}
	if err := p.describe(ctx); err != nil {
		return a, err
	}
	entries, err := p.list(ctx)
	if err != nil {
		return a, err
	}
	if err := p.take(ctx, entries); err != nil {
		return a, err
	}
	b, err := json.MarshalIndent(p.hub, "", " ")
	if err != nil {
		return a, err
	}
	if err := p.write(HubFile, "hub", b, p.endpoint+p.api()+"/revision/"+p.hub.Commit); err != nil {
		return a, err
	}
	a = artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: p.path(), Version: p.hub.Commit}, Files: p.files, By: "enisle", Index: p.endpoint}
	return a, a.Ref.Check()
}

func (p *puller) write(path, name string, b []byte, from string) error {
	at := filepath.Join(p.dir, name)
	if err := os.WriteFile(filepath.Join(p.work, at), b, 0o600); err != nil {
		return err
	}
	p.files = append(p.files, artifact.File{Path: path, Size: int64(len(b)), Digest: artifact.Sum(b), Origin: ecosystem.Made(at, fetch.Clean(from))})
	return nil
}

func (p *puller) document(ctx context.Context, at string, limit int64) ([]byte, http.Header, error) {
	b, head, err := p.Document(ctx, at, http.Header{"Accept": {"*/*"}, "Accept-Encoding": {"identity"}}, limit)
	var status *fetch.StatusError
	if errors.As(err, &status) && (status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden) {
		err = fail.As(fail.Failed, "accept its terms at the hub, and set HF_TOKEN; or check the name", err)
	}
	return b, head, err
}

// describe pins the revision to a commit.
func (p *puller) describe(ctx context.Context) error {
	b, _, err := p.document(ctx, p.endpoint+p.api()+"/revision/"+url.PathEscape(p.revision), maxInfo)
	if err != nil {
		return err
	}
	var info struct {
		SHA      string    `json:"sha"`
		Tags     []string  `json:"tags"`
		Pipeline string    `json:"pipeline_tag"`
		Library  string    `json:"library_name"`
		Modified time.Time `json:"lastModified"`
	}
	if err := json.Unmarshal(b, &info); err != nil {
		return fmt.Errorf("the hub's description: %w", err)
	}
	if !commitForm.MatchString(info.SHA) {
		return fail.Refuse("use a hub that keeps git's commits", fmt.Errorf("the hub names no commit: %.80q", info.SHA))
	}
	if commitForm.MatchString(p.revision) && p.revision != info.SHA {
		return fail.Refuse("do not use this hub", fmt.Errorf("the hub answers with the commit %s", info.SHA))
	}
	kind := "model"
	if p.dataset {
		kind = "dataset"
	}
	p.hub = Hub{ID: p.name, Type: kind, Commit: info.SHA, Revisions: map[string]string{}, Modified: info.Modified.UTC(), Tags: info.Tags, Pipeline: info.Pipeline, Library: info.Library}
	if p.hub.Tags == nil {
		p.hub.Tags = []string{}
	}
	if !commitForm.MatchString(p.revision) {
		p.hub.Revisions[p.revision] = info.SHA
	}
	return nil
}

// nextLink is the address of another page; constant.
var nextLink = regexp.MustCompile(`<([^<>]+)>\s*;\s*rel="?next"?`)

// list reads the hub's whole listing of the commit.
func (p *puller) list(ctx context.Context) (out []Entry, err error) {
	at := p.endpoint + p.api() + "/tree/" + p.hub.Commit + "?recursive=true&expand=false"
	for range maxPages {
		b, head, err := p.document(ctx, at, maxInfo)
		if err != nil {
			return nil, err
		}
		var page []Entry
		if err := json.Unmarshal(b, &page); err != nil {
			return nil, fmt.Errorf("the hub's listing: %w", err)
		}
		if out = append(out, page...); len(out) > maxEntries {
			return nil, fail.Refuse("bring a part of it, from another repository", fmt.Errorf("it has more than %d files", maxEntries))
		}
		link := nextLink.FindStringSubmatch(head.Get("Link"))
		if link == nil {
			return out, nil
		}
		from, err := url.Parse(at)
		if err != nil {
			return nil, err
		}
		to, err := from.Parse(link[1])
		if err != nil || to.Host != from.Host || to.Scheme != from.Scheme {
			return nil, fail.Refuse("do not use this hub", errors.New("its listing goes on at another host"))
		}
		at = to.String()
	}
	return nil, fmt.Errorf("the hub's listing has more than %d pages", maxPages)
}

// take decides on every entry, and fetches what only git has a hash for.
func (p *puller) take(ctx context.Context, entries []Entry) error {
	kept := map[string]bool{} // directories with files that are brought
	for n, e := range entries {
		if e.Type != "file" || !p.takes(e.Path) {
			continue
		}
		if err := artifact.CheckPath(e.Path); err != nil {
			return fail.Refuse("leave it out: exclude: […]", err)
		}
		if strings.EqualFold(e.Path, HubFile) {
			return fail.Refuse("leave it out: exclude: ["+e.Path+"]", fmt.Errorf("the repository has a file %s of its own", e.Path))
		}
		if err := p.file(ctx, n, e); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		p.hub.Entries = append(p.hub.Entries, e)
		for dir := parent(e.Path); dir != ""; dir = parent(dir) {
			kept[dir] = true
		}
	}
	if len(p.hub.Entries) == 0 {
		return fail.As(fail.Usage, "loosen include and exclude", fmt.Errorf("none of its %d files is asked for", len(entries)))
	}
	for _, e := range entries {
		if e.Type == "directory" && kept[e.Path] {
			p.hub.Entries = append(p.hub.Entries, e)
		}
	}
	slices.SortFunc(p.hub.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

// parent is the directory of a path, empty at the top.
func parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	return path[:max(0, i)]
}

// file takes one: content in LFS by its SHA-256, to be fetched; any other at once,
// for git's hash is not one to keep it by.
func (p *puller) file(ctx context.Context, n int, e Entry) error {
	from := p.endpoint + "/" + p.path() + "/resolve/" + p.hub.Commit + "/" + escape(e.Path)
	if e.LFS != nil {
		d, err := artifact.ParseDigest("sha256:" + e.LFS.OID)
		if err != nil || e.LFS.Size < 0 || e.LFS.Size > maxFile {
			return fail.Refuse("accept its terms at the hub, and set HF_TOKEN", fmt.Errorf("the hub does not say which content it is: %.80q of %d bytes", e.LFS.OID, e.LFS.Size))
		}
		p.files = append(p.files, artifact.File{Path: e.Path, Size: e.LFS.Size, Digest: d, Origin: from, Published: p.hub.Modified.Truncate(time.Second)})
		return nil
	}
	if e.Size < 0 || e.Size > maxPlain {
		return fail.Refuse("leave it out: exclude: […]", fmt.Errorf("%d bytes are too many for a file that has no SHA-256", e.Size))
	}
	b, _, err := p.document(ctx, from, e.Size)
	if err != nil {
		return err
	}
	if got := blobName(b); int64(len(b)) != e.Size || got != e.OID {
		return fail.Refuse("do not use this hub", fmt.Errorf("%d bytes are not what git's hash %.80q says", len(b), e.OID))
	}
	return p.write(e.Path, fmt.Sprint(n), b, from)
}

// blobName is git's name of a content.
func blobName(b []byte) string {
	h := sha1.New() //nolint:gosec // see the import
	fmt.Fprintf(h, "blob %d\x00", len(b))
	_, _ = h.Write(b) // never fails
	return hex.EncodeToString(h.Sum(nil))
}

// escape escapes each element of a path.
func escape(path string) string {
	parts := strings.Split(path, "/")
	for i, e := range parts {
		parts[i] = url.PathEscape(e)
	}
	return strings.Join(parts, "/")
}
