package crossing_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"enisle/internal/crossing"
)

// The evidence says who decided, what was found and what the record says; a
// stranger's text does nothing on the page.
func TestEvidenceForTheAuditor(t *testing.T) {
	w := newWorld(t)
	w.must(os.WriteFile(w.path("note.txt"), []byte("x"), 0o600))
	w.must(os.MkdirAll(w.path("m"), 0o755))
	b, err := json.Marshal(map[string]string{"chat_template": "<script>alert(1)</script>{{ messages[0].content }} see https://collect.example/"})
	w.must(err)
	w.must(os.WriteFile(w.path("m/tokenizer_config.json"), b, 0o600))
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: test\nbring:\n  files: [ {path: m, as: model/m} ]\n"), 0o600))
	id := w.pack("media", 0)
	_, err = w.importFrom("media")
	w.must(err)
	w.inspect(id)
	w.must(w.approve(id, "alice"))
	w.must(w.approve(id, "bob"))
	out, err := w.app("high").Evidence(t.Context(), id, "stable")
	w.must(err)
	names, err := out.Write(w.path("evidence"))
	if err != nil || len(names) != 2 {
		t.Fatalf("%v, %v", names, err)
	}
	html, err := os.ReadFile(w.path("evidence/evidence.html"))
	w.must(err)
	for _, want := range []string{id, "alice", "bob", "template-link", "&lt;script&gt;", "import, intent", "refused-finding", "pickle"} {
		if !strings.Contains(string(html), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(string(html), "<script>") {
		t.Error("a stranger's text is markup")
	}
	raw, err := os.ReadFile(w.path("evidence/evidence.json"))
	w.must(err)
	var back crossing.Evidence
	if err := json.Unmarshal(raw, &back); err != nil || len(back.Decisions) != 2 || back.Decisions[0].Counts != "" || len(back.Records) < 8 {
		t.Errorf("%d decisions, %d records, %v", len(back.Decisions), len(back.Records), err)
	}
}
