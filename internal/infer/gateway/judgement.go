package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

const (
	judgePath    = "/v1/chat/completions"
	judgeTokens  = 8           // of a judge's answer
	judgeTime    = time.Minute // of one question
	maxPiece     = 4 << 10     // bytes of a text that a judge is asked about at once
	aroundPiece  = 600         // tokens, and bytes, of what is asked beside it; a token has at least one byte
	maxJudgeBody = 64 << 10    // bytes of a judge's answer
)

// Judgement is what became of the judgement of a call.
type Judgement struct {
	ID      string        `json:"id"` // of the call
	At      time.Time     `json:"at"`
	Verdict guard.Verdict `json:"verdict"`
	Why     string        `json:"why,omitempty"`   // it is not judged, or unclear
	Where   string        `json:"where,omitempty"` // source of the text that is an attack, or "answer"
	Judge   string        `json:"judge"`           // name of the model
	Weights string        `json:"weights,omitempty"`
	Engine  string        `json:"engine,omitempty"` // kind
	Asked   int           `json:"asked"`            // questions
	Read    int           `json:"read"`             // bytes in them
	Cut     bool          `json:"cut,omitempty"`    // there was more than is judged
	Usage   openai.Usage  `json:"usage"`
	// Duration is nanoseconds since the call ended.
	Duration time.Duration `json:"duration"`
}

// Why a verdict is unclear.
const (
	unclearSaid = "said-something-else"
	unclearLong = "too-long"
	unclearSize = "context-too-small"
	unclearRead = "refused" // by the engine
)

// judged asks the judge about one piece after the other. An attack in one is an attack;
// clean is what is clean in all of them, and has no more. An error means that the judge
// could not be asked; what it said before is kept.
func (g *gateway) judged(ctx context.Context, n *judgement, engines []engine.Engine, m engine.Model) (v guard.Verdict, why string, err error) {
	if n.pieces == nil {
		size := maxPiece
		if m.Context > 0 {
			size = min(size, m.Context-aroundPiece)
		}
		if size < guard.MinPiece {
			return guard.Unclear, unclearSize, nil
		}
		for _, t := range n.texts {
			for _, p := range guard.Pieces(t.text, size) {
				n.pieces = append(n.pieces, judgedText{t.of, p})
			}
		}
		if len(n.pieces) > maxPieces {
			n.pieces, n.out.Cut = n.pieces[:maxPieces], true
		}
	}
	n.out.Weights = m.Weights
	for ; n.next < len(n.pieces); n.next++ {
		p := n.pieces[n.next]
		v, why, err := g.askJudge(ctx, n, p, engines, m)
		if err != nil {
			return guard.NotJudged, "", err
		}
		n.out.Asked++
		n.out.Read += len(p.text)
		switch v {
		case guard.Attack:
			n.out.Where = p.of
			return v, "", nil
		case guard.Unclear, guard.NotJudged:
			n.out.Why = why
		case guard.Clean:
		}
	}
	switch {
	case n.out.Why != "":
		return guard.Unclear, n.out.Why, nil
	case n.out.Cut:
		return guard.Unclear, unclearLong, nil
	}
	return guard.Clean, "", nil
}

// question is a request to a judge. Engines pass over what they do not know: the first
// way to hold one to a choice is vLLM's and that of llama.cpp in a child, the second that
// of llama.cpp's server.
type question struct {
	Model       string           `json:"model"`
	Messages    []openai.Message `json:"messages"`
	MaxTokens   int              `json:"max_tokens"`
	Temperature int              `json:"temperature"`
	Structured  struct {
		Choice []string `json:"choice"`
	} `json:"structured_outputs"`
	Grammar  string `json:"grammar"`
	Template struct {
		Thinking bool `json:"enable_thinking"`
	} `json:"chat_template_kwargs"`
}

// askJudge asks one question, on the way that calls go, as a tenant that only the judge
// of this call's tenant is: its prompts share no cache with anybody's.
func (g *gateway) askJudge(ctx context.Context, n *judgement, p judgedText, engines []engine.Engine, m engine.Model) (v guard.Verdict, why string, err error) {
	q := question{Model: m.ID, MaxTokens: judgeTokens, Grammar: `root ::= "` + strings.Join(guard.Verdicts(), `" | "`) + `"`}
	q.Structured.Choice = guard.Verdicts()
	q.Messages = []openai.Message{{Role: "user", Content: openai.Content(guard.Ask(p.of, p.text, guard.Mark(rand.Text())))}}
	body, err := json.Marshal(q)
	if err != nil {
		return guard.NotJudged, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, judgeTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, judgePath, nil)
	if err != nil {
		return guard.NotJudged, "", err
	}
	w := &kept{header: http.Header{}}
	c := &call{g: g, user: User{Project: "\x00judge of " + n.user.tenant()}, began: time.Now(), model: m, line: n.line, ticket: n.ticket, share: share{of: &g.room}, out: newShaper(w, Shape{}, false, g.opt.MaxStall)}
	defer c.share.free()
	if c.request, err = parse(body, g.routes[judgePath]); err != nil {
		return guard.NotJudged, "", err
	}
	err = c.forward(ctx, r, engines, nil, c.tokens(m.Context))
	n.out.Engine = c.end.Engine
	n.out.Usage.Prompt += c.end.Usage.Prompt
	n.out.Usage.Completion += c.end.Usage.Completion
	n.out.Usage.Total += c.end.Usage.Total
	if err != nil {
		return refused(ctx, err)
	}
	c.out.over()
	if v = verdict(w.Bytes()); v == guard.Unclear {
		why = unclearSaid
	}
	return v, why, nil
}

// refused is what an error of the gateway means for a judgement.
func refused(ctx context.Context, err error) (guard.Verdict, string, error) {
	var e *openai.Error
	switch {
	case ctx.Err() != nil || !errors.As(err, &e):
		return guard.NotJudged, "", err
	case e.Code != nil && *e.Code == "overloaded":
		return guard.NotJudged, "", errBusy
	case e.Status < http.StatusInternalServerError:
		return guard.Unclear, unclearRead, nil
	}
	return guard.NotJudged, "", err
}

// verdict reads an answer of a judge: one choice, ended by the model itself, that is a
// verdict and nothing else.
func verdict(answer []byte) guard.Verdict {
	var a struct {
		Choices []struct {
			Finish  string `json:"finish_reason"`
			Message struct {
				Content string            `json:"content"`
				Tools   []json.RawMessage `json:"tool_calls"`
			} `json:"message"`
		} `json:"choices"`
	}
	if len(answer) > maxJudgeBody || json.Unmarshal(answer, &a) != nil || len(a.Choices) != 1 || a.Choices[0].Finish != "stop" || len(a.Choices[0].Message.Tools) > 0 {
		return guard.Unclear
	}
	return guard.ParseVerdict(a.Choices[0].Message.Content)
}

// kept is a client that keeps its answer.
type kept struct {
	bytes.Buffer
	header http.Header
}

// Header implements http.ResponseWriter.
func (k *kept) Header() http.Header { return k.header }

// WriteHeader implements http.ResponseWriter: errors do not come this way.
func (k *kept) WriteHeader(int) {}

var _ http.ResponseWriter = (*kept)(nil)
