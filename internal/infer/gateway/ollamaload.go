package gateway

import (
	"net/http"
	"slices"
	"time"
)

// asksNothing reports whether a request is to have a model loaded or unloaded.
func (q *ollamaRequest) asksNothing(path string) bool {
	switch path {
	case "/api/generate":
		return q.Prompt == "" && q.Suffix == "" && len(q.Images) == 0
	case "/api/chat":
		return len(q.Messages) == 0
	}
	return false
}

// unloads reports whether the client wants the model out of memory.
func (q *ollamaRequest) unloads() bool {
	switch k := q.Keep.(type) {
	case float64:
		return k == 0
	case string:
		d, err := time.ParseDuration(k)
		return err == nil && d == 0
	}
	return false
}

// ollamaLoad answers what asks nothing of a model. Which are loaded is the site's to say,
// so nothing is done.
func (g *gateway) ollamaLoad(w http.ResponseWriter, r *http.Request, q ollamaRequest) {
	all := g.list(g.opt.Who(r))
	if !slices.ContainsFunc(all, func(e entry) bool { return e.ID == q.Model }) {
		err := g.notServed(q.Model, g.opt.Who(r), all)
		ollamaError(w, err.Status, err.Message)
		return
	}
	o := ollamaWriter{q: q, path: r.URL.Path, began: time.Now(), reason: "load"}
	if q.unloads() {
		o.reason = "unload"
	}
	writeJSON(w, o.answer(ollamaPiece{}, true))
}
