package gateway

import (
	"time"

	"enisle/internal/infer/openai"
)

// usage is how the three APIs count.
type usage struct {
	openai.Usage
	Input, Output int
}

// field is where a count goes.
func (u *usage) field(name string) *int {
	switch name {
	case "prompt_tokens":
		return &u.Prompt
	case "completion_tokens":
		return &u.Completion
	case "total_tokens":
		return &u.Total
	case "input_tokens":
		return &u.Input
	case "output_tokens":
		return &u.Output
	}
	return nil
}

func (u usage) sum() openai.Usage {
	out := u.Usage
	out.Prompt, out.Completion = max(out.Prompt, u.Input), max(out.Completion, u.Output)
	out.Total = max(out.Total, out.Prompt+out.Completion)
	return out
}

// count takes what an answer says of its tokens; without it they are guessed from the bytes
// of its text.
func (c *call) count(u *usage, textOut int) {
	if u != nil {
		got := u.sum()
		c.end.Usage.Prompt = max(c.end.Usage.Prompt, got.Prompt)
		c.end.Usage.Completion = max(c.end.Usage.Completion, got.Completion)
		c.end.Usage.Total = max(got.Total, c.end.Usage.Prompt+c.end.Usage.Completion)
	}
	if c.end.Usage.Total == 0 && textOut > 0 {
		c.end.Guessed = true
		c.end.Usage = openai.Usage{Prompt: c.prompt(), Completion: textOut/4 + 1, Total: c.prompt() + textOut/4 + 1}
	}
}

// partly counts what was taken of a stream that did not come to its end: an engine may have
// counted at its beginning alone. textOut is bytes of text.
func (c *call) partly(textOut int) {
	if c.abandoned(); textOut/4 > c.end.Usage.Completion {
		c.end.Guessed = true
		c.end.Usage.Completion = textOut / 4
		c.end.Usage.Total = max(c.end.Usage.Total, c.end.Usage.Prompt+c.end.Usage.Completion)
	}
}

// guessedRate is how many tokens a second an engine is taken to have worked on an answer of
// which nothing is known: a small model on processors, or one of many calls at a larger.
const guessedRate = 20

// abandoned counts what an engine was given by a call that nobody waited for: the prompt,
// and what it may have made of it by now. Else who leaves before the end would work it for
// nothing, and before all others.
func (c *call) abandoned() {
	if c.end.Usage.Total == 0 {
		c.end.Guessed = true
		worked := (time.Since(c.began) - c.end.Queued).Seconds() * guessedRate
		u := openai.Usage{Prompt: c.prompt(), Completion: int(min(worked, float64(c.answers())))}
		u.Total = u.Prompt + u.Completion
		c.end.Usage = u
	}
}
