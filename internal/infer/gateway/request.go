package gateway

import (
	"bytes"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

// A request goes on as it came, byte for byte: what is not known here is for the
// engine to understand. It is read once, strictly (RFC 7493: no name twice, no broken
// UTF-8), so that the engine cannot read it in another way, and changed only where the
// site has to have its way.

const (
	maxModelName     = 256    // bytes
	maxDepth         = 64     // of arrays and objects
	maxFields        = 1000   // of the request's object
	maxSpans         = 10_000 // texts of a prompt
	maxParts         = 20_000 // messages, and parts of them
	mediaTokens      = 1024   // that a picture counts as
	turnTokens       = 4      // of what a template writes around a message
	maxTools         = 1000
	maxToolWords     = 100_000 // short texts in the definitions of tools, most of them names
	shortDescription = 16      // bytes from which on a text in the definition of a tool is no short one
	maxOptions       = 4 << 10 // bytes of stream_options
	defaultMax       = 512     // tokens of an answer, for estimates, where a request names no bound
	quotaMax         = 4096    // tokens of an answer to a user with a quota, where a request names no bound
	quotaParts       = 8       // or this part of the quota, if that is less
)

// field is one member of the request's object, by where it stands.
type field struct {
	name             string
	from, start, end int // of the name, and of the value
}

// span is a text of the prompt, and where its string stands.
type span struct {
	guard.Span
	start, end int
}

// request is what the gateway needs to know of a request.
type request struct {
	route     *route
	body      []byte
	fields    []field
	media     []field // what the client calls its pictures, by name
	model     string
	stream    bool
	options   []byte // stream_options, as they came
	wantUsage bool
	limit     int  // tokens of the answer that were asked for; 0: none named
	limited   bool // in the field that every engine takes
	nothing   bool // that field says 0
	bound     bool // limit is put there
	choices   int
	spans     []span
	tools     []string
	// descriptions are the texts in the definitions of tools, but for their names.
	descriptions []guard.Description
	words        int  // of those, the short ones
	textBytes    int  // that are read, in strings
	parts        int  // messages, and parts of them
	units        int  // tokens of what is no text: numbers of tokens, pictures, what is around messages
	prompts      int  // that are answered one by one; 0: one
	embeds       int  // and prompts that are not text
	unread       bool // there is a prompt that is not text: tokens, or what became of them
}

// maxReserved is the most tokens that a call is charged before it begins: sums of more
// than anybody asks for would not be exact, or overflow.
const maxReserved = 1 << 31

// prompt estimates the tokens of the prompt: four bytes a token, which is about right for
// English and too few for most else.
func (q *request) prompt() int { return q.textBytes/4 + q.units + 1 }

// tokens estimates what a request comes to, prompt and answer together: whatever it asks
// for, an answer is no longer than the context, if that is known.
func (q *request) tokens(context int) int64 {
	out := q.answers()
	if context > 0 {
		out = min(out, int64(context)*int64(max(q.choices, 1))*q.asked())
	}
	return min(int64(q.prompt())+out, maxReserved)
}

// most is what a request comes to at most: a token has at least one byte.
func (q *request) most() int64 {
	return min(int64(q.textBytes)+int64(q.units)+1+q.answers(), maxReserved)
}

// answers is how many tokens the answers may have.
func (q *request) answers() int64 {
	limit := q.limit
	if limit == 0 && q.route.generates {
		limit = defaultMax
	}
	return min(int64(limit)*int64(max(q.choices, 1)), maxReserved) * q.asked()
}

// asked is how many prompts are answered.
func (q *request) asked() int64 { return int64(max(q.prompts, 1) + q.embeds) }

// limitTo bounds the answer to a user with a quota in the field that every engine takes:
// what a request names elsewhere, an engine may pass over, and without a bound it goes on
// as long as there is room.
func (q *request) limitTo(context int, quota int64) {
	if !q.route.generates || q.limited {
		return
	}
	if q.bound = true; q.limit > 0 && q.limit < math.MaxInt32 {
		return
	}
	if q.nothing && q.limit == 0 {
		q.limit = 1
		return
	}
	q.limit = int(max(min(quotaMax, quota/quotaParts), 1))
	if context > 0 { // some engines refuse what would not fit
		q.limit = min(q.limit, max(context-2*q.prompt(), context/quotaParts, 1))
	}
}

// read reads the body of a request; its errors are *openai.Error.
func (g *gateway) read(w http.ResponseWriter, r *http.Request, rt *route, s *share) (*request, error) {
	if !isJSON(r.Header.Get("Content-Type")) {
		return nil, openai.Errorf(http.StatusUnsupportedMediaType, "unsupported_media_type", "send JSON, with the header Content-Type: application/json")
	}
	if r.ContentLength > g.opt.MaxBody {
		return nil, tooLarge(g.opt.MaxBody)
	}
	b, err := g.upload(w, r, s)
	if err != nil {
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			return nil, tooLarge(tooLong.Limit)
		}
		if errors.Is(err, errNoRoom) {
			return nil, g.noRoom()
		}
		return nil, openai.Errorf(http.StatusBadRequest, "incomplete_request", "the request was not sent to its end")
	}
	return parse(b, rt)
}

func isJSON(contentType string) bool {
	const is = "application/json"
	if contentType == is {
		return true
	}
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == is
}

// upload returns the body of a request. Who sends slowly is not waited for, and what was
// announced is not set aside: both would let a client hold memory for nothing.
func (g *gateway) upload(w http.ResponseWriter, r *http.Request, s *share) ([]byte, error) {
	rc := http.NewResponseController(w)
	if err := supported(rc.SetReadDeadline(time.Now().Add(g.opt.MaxUpload))); err != nil {
		return nil, err
	}
	b, err := readAll(counted{http.MaxBytesReader(w, r.Body, g.opt.MaxBody), s}, min(r.ContentLength, bufSize))
	if reset := supported(rc.SetReadDeadline(time.Time{})); err == nil {
		err = reset
	}
	return b, err
}

// readAll is io.ReadAll for a body whose length is usually known.
func readAll(r io.Reader, length int64) ([]byte, error) {
	var buf bytes.Buffer
	if length > 0 {
		buf.Grow(int(length) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(r)
	return buf.Bytes(), err
}

// noRoom tells a client that others hold what it would need.
func (g *gateway) noRoom() error {
	return openai.Errorf(http.StatusServiceUnavailable, "overloaded", "the gateway holds as many requests and answers as it may").Retry(g.opt.RetryAfter)
}

func tooLarge(limit int64) error {
	return openai.Errorf(http.StatusRequestEntityTooLarge, "request_too_large", "the request is longer than %d bytes", limit)
}

// parse reads a request; its errors are *openai.Error.
func parse(b []byte, rt *route) (*request, error) {
	d, done := decoder(b)
	defer done()
	p := parser{dec: d, q: &request{route: rt, body: b, choices: 1}}
	if err := p.whole(); err != nil {
		var e *openai.Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, openai.Errorf(http.StatusBadRequest, "invalid_json", "the request can not be read: %v", readable(err))
	}
	q := p.q
	if q.model == "" || len(q.model) > maxModelName {
		return nil, openai.Errorf(http.StatusBadRequest, "invalid_value", "name a model").On("model")
	}
	if !slices.ContainsFunc(q.fields, func(f field) bool { return slices.Contains(rt.input, f.name) }) {
		return nil, openai.Errorf(http.StatusBadRequest, "invalid_value", "there is no %s", rt.input[0]).On(rt.input[0])
	}
	q.stream = q.stream && rt.generates // of what is no text engines make no stream
	return q, nil
}

// readable leaves out of an error what only a programmer understands.
func readable(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("it ends too early")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "jsontext: "))
}
