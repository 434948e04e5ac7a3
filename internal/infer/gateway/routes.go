package gateway

// route is one path of the API.
type route struct {
	path      string
	input     []string // fields of which one must be there
	generates bool     // the answer is text of the model
	limit     string   // the field that every engine takes as the bound of an answer
	counts    bool     // its streams count tokens only if asked to, as chat does
}

func makeRoutes() map[string]*route {
	out := map[string]*route{}
	for _, r := range []route{
		{"/v1/chat/completions", []string{"messages"}, true, "max_tokens", true},
		{"/v1/completions", []string{"prompt"}, true, "max_tokens", true},
		{"/v1/responses", []string{"input"}, true, "max_output_tokens", false},
		{"/v1/messages", []string{"messages"}, true, "max_tokens", false},
		{"/v1/embeddings", []string{"input", "messages"}, false, "", false},
		{"/v1/rerank", []string{"query"}, false, "", false},
		{"/rerank", []string{"query"}, false, "", false},
		{"/tokenize", []string{"prompt", "content", "messages"}, false, "", false},
		{"/detokenize", []string{"tokens"}, false, "", false},
	} {
		out[r.path] = &r
	}
	return out
}

// Paths lists what is answered here beside /v1/.
func Paths() []string {
	return append(unreleased(),
		"/rerank", "/tokenize", "/detokenize",
		"/api/version", "/api/tags", "/api/ps", "/api/show", "/api/chat", "/api/generate", "/api/embed", "/api/embeddings",
	)
}

// unreleased are paths at which Ollama's clients change what models there are.
func unreleased() []string {
	return []string{"/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs/"}
}
