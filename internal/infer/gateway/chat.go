package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"enisle/internal/infer/openai"
)

const (
	maxAnswer  = 16 << 20         // bytes of an answer that is not streamed
	maxEvent   = 1 << 20          // bytes of a line of a stream
	maxRefusal = 64 << 10         // bytes of an engine's error
	slowReader = 30 * time.Second // a client that takes nothing for so long is left
)

func (g *gateway) chat(w http.ResponseWriter, r *http.Request, id string) {
	began := time.Now()
	req, err := g.read(w, r)
	if err != nil {
		openai.WriteError(w, err)
		return
	}
	if len(g.serving(req.model)) == 0 {
		openai.WriteError(w, unknownModel(req.model))
		return
	}
	call := Call{ID: id, Model: req.model, Streamed: req.stream, Began: began, Status: http.StatusOK, Outcome: Refused}
	defer func() { g.ended(r.Context(), call) }()
	ctx, cancel := context.WithTimeout(r.Context(), g.opt.MaxTime)
	defer cancel()
	resp, err := g.forwardTo(ctx, req)
	if err != nil {
		call.Status = statusOf(err)
		if r.Context().Err() != nil {
			call.Outcome = Left
			return
		}
		openai.WriteError(w, err)
		return
	}
	defer resp.close()
	if req.stream {
		call.Usage, call.Outcome = g.relay(w, r, req, resp.Body)
		return
	}
	call.Usage, call.Status, call.Outcome = g.whole(w, r, resp.Body)
}

// reply is an engine's answer, and the place it takes among the calls.
type reply struct {
	*http.Response
	leave func()
}

func (p *reply) close() {
	_ = p.Body.Close() // whatever is left of the answer is not wanted
	p.leave()
}

// forwardTo gives the request to the first engine that takes it. Errors are
// *openai.Error.
func (g *gateway) forwardTo(ctx context.Context, req *request) (*reply, error) {
	leave, ok := g.enter(req.model)
	if !ok {
		return nil, openai.Errorf(http.StatusTooManyRequests, "overloaded", "%d calls to this model are under way", g.opt.MaxCalls).Retry(g.opt.RetryAfter)
	}
	var last error = openai.Errorf(http.StatusServiceUnavailable, "engine_down", "no engine runs this model").Retry(g.opt.RetryAfter)
	for _, e := range g.serving(req.model) {
		out, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/v1/chat/completions", bytes.NewReader(req.body))
		if err != nil {
			last = fmt.Errorf("request: %w", err)
			break
		}
		out.Header.Set("Content-Type", "application/json")
		resp, err := e.Transport().RoundTrip(out)
		if ctx.Err() != nil {
			last = openai.Errorf(http.StatusGatewayTimeout, "timeout", "the answer took longer than %s", g.opt.MaxTime)
		}
		if err != nil {
			g.opt.Log.WarnContext(ctx, "engine not reached", "model", req.model, "error", err)
			continue
		}
		if resp.StatusCode == http.StatusOK {
			return &reply{resp, leave}, nil
		}
		refusal := g.refusal(resp)
		last = refusal
		if refusal.Status != http.StatusTooManyRequests && refusal.Status < http.StatusInternalServerError {
			break // another engine would say the same
		}
	}
	leave()
	return nil, last
}

// refusal turns an engine's error into the client's.
func (g *gateway) refusal(resp *http.Response) *openai.Error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		b = nil
	}
	after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || after < 1 || after > 3600 {
		after = int(g.opt.RetryAfter / time.Second)
	}
	retry := time.Duration(max(after, 1)) * time.Second
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		return openai.Errorf(http.StatusTooManyRequests, "overloaded", "the model is busy").Retry(retry)
	case resp.StatusCode >= http.StatusInternalServerError:
		return openai.Errorf(http.StatusServiceUnavailable, "engine_error", "the engine could not answer").Retry(retry)
	case resp.StatusCode >= http.StatusBadRequest:
		if e := openai.ParseError(resp.StatusCode, b); e != nil {
			return e
		}
	}
	return openai.Errorf(http.StatusBadGateway, "engine_error", "the engine answered %d", resp.StatusCode)
}

func statusOf(err error) int {
	var e *openai.Error
	if errors.As(err, &e) {
		return e.Status
	}
	return http.StatusInternalServerError
}

// whole passes on an answer in one piece.
func (g *gateway) whole(w http.ResponseWriter, r *http.Request, body io.Reader) (u openai.Usage, status int, o Outcome) {
	b, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	var c struct {
		Usage *openai.Usage `json:"usage"`
	}
	if err == nil && len(b) <= maxAnswer {
		err = json.Unmarshal(b, &c)
	}
	switch {
	case r.Context().Err() != nil:
		return u, http.StatusOK, Left
	case err != nil || len(b) > maxAnswer:
		openai.WriteError(w, openai.Errorf(http.StatusBadGateway, "engine_error", "the engine stopped in the middle of the answer"))
		return u, http.StatusBadGateway, Broken
	}
	if c.Usage != nil {
		u = *c.Usage
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(b); err != nil {
		return u, http.StatusOK, Left
	}
	return u, http.StatusOK, Answered
}

// relay passes on a stream, event by event, and keeps back the counts that the
// client did not ask for.
func (g *gateway) relay(w http.ResponseWriter, r *http.Request, req *request, body io.Reader) (u openai.Usage, o Outcome) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold the stream back
	out := http.NewResponseController(w)
	in := bufio.NewReaderSize(body, 64<<10)
	for {
		data, err := nextEvent(in)
		if r.Context().Err() != nil {
			return u, Left
		}
		if err != nil {
			g.opt.Log.WarnContext(r.Context(), "stream broke", "model", req.model, "error", err)
			e := openai.Errorf(http.StatusBadGateway, "engine_error", "the engine stopped in the middle of the answer")
			_ = send(w, out, e.MarshalBody()) // the client may have gone as well
			return u, Broken
		}
		keep, failed := look(data, &u, req.wantUsage)
		if !keep {
			continue
		}
		if err := send(w, out, data); err != nil {
			return u, Left
		}
		switch {
		case failed:
			return u, Broken
		case string(data) == "[DONE]":
			return u, Answered
		}
	}
}

// look reads the counts out of an event, and says whether the client is to
// have it and whether it is an error.
func look(data []byte, u *openai.Usage, wantUsage bool) (keep, failed bool) {
	hasUsage, hasError := bytes.Contains(data, []byte(`"usage"`)), bytes.Contains(data, []byte(`"error"`))
	if !hasUsage && !hasError {
		return true, false
	}
	var c struct {
		Choices []json.RawMessage `json:"choices"`
		Usage   *openai.Usage     `json:"usage"`
		Error   json.RawMessage   `json:"error"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return true, false
	}
	if c.Usage != nil {
		*u = *c.Usage
	}
	failed = len(c.Error) > 0 && !bytes.Equal(c.Error, []byte("null"))
	return wantUsage || c.Usage == nil || len(c.Choices) > 0, failed
}

// nextEvent returns the data of the next event; its lines are joined by a line
// break. io.EOF before an end is io.ErrUnexpectedEOF.
func nextEvent(in *bufio.Reader) ([]byte, error) {
	var data []byte
	some := false
	for size := 0; ; {
		line, err := readLine(in, maxEvent-size)
		if err != nil {
			return nil, err
		}
		size += len(line)
		if len(line) == 0 {
			if some {
				return data, nil
			}
			continue
		}
		rest, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue // a comment, or a field that this API does not use
		}
		if some {
			data = append(data, '\n')
		}
		data, some = append(data, bytes.TrimPrefix(rest, []byte(" "))...), true
	}
}

// readLine returns a line of at most limit bytes, without its end.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit:
			return nil, fmt.Errorf("an event is longer than %d bytes", maxEvent)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		default:
			return bytes.TrimRight(line, "\r\n"), nil
		}
	}
}

func send(w io.Writer, out *http.ResponseController, data []byte) error {
	if err := out.SetWriteDeadline(time.Now().Add(slowReader)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		if _, err := fmt.Fprintf(w, "data: %s\n", line); err != nil {
			return err
		}
	}
	if _, err := w.Write([]byte("\n")); err != nil {
		return err
	}
	return out.Flush()
}
