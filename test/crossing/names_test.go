package crossing_test

import (
	"os"
	"testing"
)

// Two shipments may not bring names into one release that could be taken for one another.
func TestNamesThatLookAlikeAreNotReleasedTogether(t *testing.T) {
	w := newWorld(t)
	bring := func(request, name string) string {
		w.must(os.WriteFile(w.path(name), []byte(name), 0o600))
		w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: "+request+"\nbring:\n  files: [ "+name+" ]\n"), 0o600))
		id := w.pack(request, 0)
		_, err := w.importFrom(request)
		w.must(err)
		w.inspect(id)
		return id
	}
	id := bring("first", "coca.txt")
	w.must(w.approve(id, "alice"))
	w.must(w.approve(id, "bob"))
	_, err := w.release(id)
	w.must(err)
	id = bring("second", "соса.txt") // Cyrillic
	w.must(w.approve(id, "alice"))
	w.must(w.approve(id, "bob"))
	_, err = w.release(id)
	refused(t, err, "its name could be taken for that of files/coca.txt")
}
