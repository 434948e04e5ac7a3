package gateway

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// parts is a client that notes in which pieces an answer comes.
type parts struct {
	http.ResponseWriter
	sizes []int
	n     int
}

func (p *parts) Write(b []byte) (int, error) { p.n += len(b); return p.ResponseWriter.Write(b) }
func (p *parts) Flush()                      { p.sizes = append(p.sizes, p.n); p.n = 0 }

func shaped(t *testing.T, s Shape, events ...string) (p *parts, text string) {
	t.Helper()
	rec := httptest.NewRecorder()
	p = &parts{ResponseWriter: rec}
	out := newShaper(p, s, true, time.Second)
	defer out.stop()
	out.open()
	for _, e := range events {
		out.event([]byte(e))
		out.flush()
	}
	out.finish()
	return p, rec.Body.String()
}

// data returns the data of the events, as a client reads them.
func data(stream string) (out []string) {
	for e := range strings.SplitSeq(stream, "\n\n") {
		for l := range strings.SplitSeq(e, "\n") {
			if d, ok := strings.CutPrefix(l, "data: "); ok {
				out = append(out, d)
			}
		}
	}
	return out
}

// In every form a client reads the same events, and sizes tell no more than the form says.
func TestForms(t *testing.T) {
	events := []string{"data: a\n\n", "data: " + strings.Repeat("b", 700) + "\n\n", "data: cc\n\n", "data: [DONE]\n\n"}
	want := data(strings.Join(events, ""))
	for name, tc := range map[string]struct {
		shape Shape
		check func(sizes []int) bool
	}{
		"off":   {Shape{}, func(s []int) bool { return len(s) == 4 && s[0] == len(events[0]) }},
		"batch": {Shape{Mode: Batch, Every: 5 * time.Millisecond}, func(s []int) bool { return len(s) <= 2 }},
		"pad":   {Shape{Mode: Pad, Size: 64}, func(s []int) bool { return s[0] == 64 && s[1]%64 == 0 && s[2] == 64 && s[3] == 64 }},
		"constant": {Shape{Mode: Constant, Size: 100, Every: time.Millisecond}, func(s []int) bool {
			for _, n := range s {
				if n != 100 {
					return false
				}
			}
			return len(s) == minTicks
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p, text := shaped(t, tc.shape, events...)
			if got := data(text); strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("a client reads %q", got)
			}
			if !tc.check(p.sizes) {
				t.Errorf("records of %v bytes", p.sizes)
			}
		})
	}
}

func TestCommentsOfEverySize(t *testing.T) {
	for n := 1; n < 20; n++ {
		c := string(comment(n))
		if len(c) != n || len(data("data: x\n\n"+c+"data: y\n\n")) != 2 || n > 1 && c[0] != ':' {
			t.Errorf("%d: %q", n, c)
		}
	}
}
