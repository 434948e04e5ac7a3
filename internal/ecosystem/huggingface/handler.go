package huggingface

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

const (
	pageSize  = 1000    // entries of the listing, as at the hub
	maxAsked  = 1 << 20 // bytes of a question about paths
	maxListed = 1000    // repositories in one answer
)

// Handler returns the read-only hub of one release.
func (*Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	all, byID := read(rel)
	return &hub{rel, all, byID}, nil
}

type hub struct {
	rel  ecosystem.Release
	all  []*repository
	byID map[id]*repository
}

// call is what a path asks for.
type call struct {
	id       id
	what     string // list, info, tree, paths-info, refs, commits, resolve
	revision string
	path     string
}

// parseCall reads an escaped path by its markers; names of repositories have one
// element or two, and known says which of two readings is meant.
func parseCall(escaped string, known func(id) bool) (c call, ok bool) {
	parts := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	for i, e := range parts {
		s, err := url.PathUnescape(e)
		if err != nil || s == "" {
			return c, false
		}
		parts[i] = s
	}
	api := parts[0] == "api"
	dataset := parts[0] == "datasets"
	switch {
	case api && len(parts) > 1 && (parts[1] == "models" || parts[1] == "datasets"):
		dataset = parts[1] == "datasets"
		if parts = parts[2:]; len(parts) == 0 {
			return call{id: id{dataset: dataset}, what: "list"}, true
		}
	case api:
		return c, false
	case dataset:
		parts = parts[1:]
	}
	for _, n := range []int{2, 1} {
		if len(parts) < n {
			continue
		}
		i, valid := parseID(strings.Join(parts[:n], "/"))
		i.dataset = dataset
		got, fits := after(i, api, parts[n:])
		if !valid || !fits {
			continue
		}
		if !ok || known != nil && known(i) && !known(c.id) {
			c, ok = got, true
		}
	}
	return c, ok
}

// after reads what follows the name of a repository.
func after(i id, api bool, rest []string) (call, bool) {
	c := call{id: i, what: "info", revision: "main"}
	if len(rest) == 0 {
		return c, api
	}
	c.what = rest[0]
	if len(rest) > 1 {
		c.revision, c.path = rest[1], strings.Join(rest[2:], "/")
	}
	switch {
	case api && c.what == "refs":
		return c, len(rest) == 1
	case api && c.what == "revision":
		c.what = "info"
		return c, len(rest) == 2
	case api && (c.what == "commits" || c.what == "paths-info"):
		return c, len(rest) == 2
	case api && c.what == "tree":
		return c, len(rest) >= 2
	case !api && (c.what == "resolve" || c.what == "raw"):
		c.what = "resolve"
		return c, len(rest) > 2
	}
	return c, false
}

// ServeHTTP answers what the hub's libraries ask for in order to read.
func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	c, ok := parseCall(r.URL.EscapedPath(), func(i id) bool { return h.byID[i] != nil })
	// The one question that is asked with POST changes nothing.
	if r.Method != http.MethodGet && r.Method != http.MethodHead && (r.Method != http.MethodPost || c.what != "paths-info") {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "", "this mirror is read only")
		return
	}
	if !ok {
		refuse(w, http.StatusNotFound, "RepoNotFound", "this mirror has no such address")
		return
	}
	if c.what == "list" {
		h.list(w, r, c.id.dataset)
		return
	}
	repo := h.byID[c.id]
	if repo == nil {
		refuse(w, http.StatusNotFound, "RepoNotFound", h.why(r, c.id, ""))
		return
	}
	if c.what == "refs" {
		answer(w, repo.refs())
		return
	}
	at := repo.at(c.revision)
	if at == nil {
		refuse(w, http.StatusNotFound, "RevisionNotFound", h.why(r, c.id, c.revision))
		return
	}
	w.Header().Set("X-Repo-Commit", at.Commit)
	switch c.what {
	case "info":
		answer(w, at.info(r.URL.Query().Get("blobs") != ""))
	case "tree":
		at.tree(w, r, c.path)
	case "paths-info":
		at.paths(w, r)
	case "commits":
		answer(w, []map[string]any{{"id": at.Commit, "title": "", "message": "", "authors": []string{}, "date": at.Modified}})
	default:
		h.resolve(w, r, at, c.path)
	}
}

// why says why a repository, or a revision of it, is not here. Only commits are known by
// their names.
func (h *hub) why(r *http.Request, i id, revision string) string {
	ref := artifact.Ref{Kind: Kind, Name: i.path(), Version: revision}
	if !commitForm.MatchString(revision) {
		ref.Version = ""
	}
	if revision != "" && ref.Version == "" {
		return "no commit that is here was called so"
	}
	return ecosystem.Why(r, h.rel, ref)
}

// resolve gives a file, with the names that its hub has for it.
func (h *hub) resolve(w http.ResponseWriter, r *http.Request, at *commit, name string) {
	f, ok := at.files[name]
	if !ok {
		refuse(w, http.StatusNotFound, "EntryNotFound", "the commit has no such file here")
		return
	}
	b, err := h.rel.Open(f.digest)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "", "it cannot be read; have the operator run 'enisle check'")
		return
	}
	head := w.Header()
	head.Set("ETag", `"`+f.OID+`"`)
	if f.LFS != nil {
		head.Set("ETag", `"`+f.LFS.OID+`"`)
		head.Set("X-Linked-Etag", `"`+f.LFS.OID+`"`)
		head.Set("X-Linked-Size", strconv.FormatInt(f.Size, 10))
	}
	head.Set(ecosystem.DigestHeader, string(f.digest))
	// A stranger's file is never rendered by a browser.
	head.Set("Content-Type", "application/octet-stream")
	if v := mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(name)}); v != "" {
		head.Set("Content-Disposition", v)
	}
	head.Set("Cache-Control", "no-cache") // main may be another commit in the next release
	http.ServeContent(w, r, "", time.Time{}, b)
	_ = b.Close() // only read from
}

// info describes a repository at a commit.
func (c *commit) info(blobs bool) map[string]any {
	siblings := []map[string]any{}
	for _, e := range c.Entries {
		if e.Type != "file" {
			continue
		}
		s := map[string]any{"rfilename": e.Path}
		if blobs {
			s["size"], s["blobId"] = e.Size, e.OID
			if e.LFS != nil {
				s["lfs"] = map[string]any{"sha256": e.LFS.OID, "size": e.LFS.Size, "pointerSize": e.LFS.Pointer}
			}
		}
		siblings = append(siblings, s)
	}
	out := map[string]any{
		"id": c.ID, "sha": c.Commit, "private": false, "gated": false, "disabled": false, "downloads": 0, "likes": 0,
		"tags": c.Tags, "siblings": siblings,
	}
	if c.Type == "model" {
		out["modelId"] = c.ID
	}
	if !c.Modified.IsZero() {
		out["lastModified"] = c.Modified.Format("2006-01-02T15:04:05.000Z")
	}
	if c.Pipeline != "" {
		out["pipeline_tag"] = c.Pipeline
	}
	if c.Library != "" {
		out["library_name"] = c.Library
	}
	return out
}

// tree lists a directory, or all below it, in pages.
func (c *commit) tree(w http.ResponseWriter, r *http.Request, dir string) {
	q := r.URL.Query()
	recursive := q.Get("recursive") == "true" || q.Get("recursive") == "True" || q.Get("recursive") == "1"
	limit := pageSize
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > 0 {
		limit = min(n, pageSize)
	}
	found, cursor, more := []Entry{}, q.Get("cursor"), false
	below := ""
	if dir != "" {
		below = dir + "/"
	}
	exists := dir == ""
	for _, e := range c.Entries {
		rest, inside := strings.CutPrefix(e.Path, below)
		if exists = exists || inside; !inside || !recursive && strings.Contains(rest, "/") || e.Path <= cursor && cursor != "" {
			continue
		}
		if more = len(found) == limit; more {
			break
		}
		found = append(found, e)
	}
	if !exists {
		refuse(w, http.StatusNotFound, "EntryNotFound", "the commit has no such directory here")
		return
	}
	if more {
		q.Set("cursor", found[len(found)-1].Path)
		w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, base(r), q.Encode()))
	}
	answer(w, found)
}

// paths describes the files that were asked for, as a form or as JSON.
func (c *commit) paths(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		refuse(w, http.StatusMethodNotAllowed, "", "paths are asked for with POST")
		return
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAsked))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "", "ask for fewer paths at once")
		return
	}
	var asked struct {
		Paths []string `json:"paths"`
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		err = json.Unmarshal(b, &asked)
	} else {
		var form url.Values
		form, err = url.ParseQuery(string(b))
		asked.Paths = form["paths"]
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "", "ask with paths, as a form or as JSON")
		return
	}
	found := []Entry{}
	for _, name := range asked.Paths {
		i, ok := slices.BinarySearchFunc(c.Entries, strings.TrimSuffix(name, "/"), func(e Entry, s string) int { return strings.Compare(e.Path, s) })
		if ok && len(found) < len(c.Entries) {
			found = append(found, c.Entries[i])
		}
	}
	answer(w, found)
}

// refs lists the names that mean commits.
func (r *repository) refs() map[string]any {
	type ref struct {
		Name   string `json:"name"`
		Ref    string `json:"ref"`
		Commit string `json:"targetCommit"`
	}
	branches := []ref{}
	for _, name := range slices.Sorted(maps.Keys(r.names)) {
		branches = append(branches, ref{name, "refs/heads/" + name, r.names[name].Commit})
	}
	return map[string]any{"branches": branches, "tags": []ref{}, "converts": []ref{}}
}

// list names the repositories of one type.
func (h *hub) list(w http.ResponseWriter, r *http.Request, dataset bool) {
	q := r.URL.Query()
	found := []map[string]any{}
	for _, repo := range h.all {
		c := repo.names["main"]
		if repo.dataset != dataset || c == nil || !strings.Contains(strings.ToLower(repo.name), strings.ToLower(q.Get("search"))) ||
			q.Get("author") != "" && !strings.HasPrefix(repo.name, q.Get("author")+"/") || len(found) == maxListed {
			continue
		}
		info := c.info(false)
		delete(info, "siblings")
		found = append(found, info)
	}
	answer(w, found)
}

// base is the address that the client used, which is not what arrives here, without
// its query.
func base(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	path := r.URL.EscapedPath()
	if asked, err := url.ParseRequestURI(r.RequestURI); err == nil {
		path = asked.EscapedPath()
	}
	return scheme + "://" + r.Host + path
}

func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "", "the answer cannot be written")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	// The client may be gone; there is nobody left to tell.
	_, _ = w.Write(b)
}

// refuse answers as hubs do: the code decides what a client makes of it.
func refuse(w http.ResponseWriter, status int, code, message string) {
	if code != "" {
		w.Header().Set("X-Error-Code", code)
	}
	w.Header().Set("X-Error-Message", message)
	b, _ := json.Marshal(map[string]string{"error": message}) // strings only; cannot fail
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	// The client may be gone; there is nobody left to tell.
	_, _ = w.Write(b)
}
