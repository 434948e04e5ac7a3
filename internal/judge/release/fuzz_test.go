package release

import "testing"

// FuzzDecode reads releases: what is accepted has one form only.
func FuzzDecode(f *testing.F) {
	b, err := Release{Format: Format, Number: 1, Requests: []Request{{Name: "a"}}}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := r.Encode(); err != nil || string(again) != string(b) {
			t.Error("two encodings of one release")
		}
	})
}
