package release

import (
	"testing"

	"enisle/internal/artifact"
)

func TestAReleaseIsTheLatestSetOfEachRequest(t *testing.T) {
	var r Release
	set := func(name, content string) Request { return Request{Name: name, Content: artifact.Sum([]byte(content))} }
	r = r.With(set("b", "1")).With(set("a", "2")).With(set("b", "3"))
	if len(r.Requests) != 2 || r.Requests[0].Name != "a" || r.Requests[1] != set("b", "3") {
		t.Errorf("got %+v", r.Requests)
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(b)
	if err != nil || !back.Same(r) {
		t.Errorf("got %+v, %v", back, err)
	}
	if _, err := Decode(append(b, ' ')); err == nil {
		t.Error("another form of the same release was accepted")
	}
}
