package app

import (
	"context"
	"slices"
	"time"

	"enisle/internal/infer/gateway"
	"enisle/internal/infer/guard"
	"enisle/internal/plain"
)

// JudgedCall is a call that a judge was to be asked about.
type JudgedCall struct {
	At       time.Time         `json:"at"` // when it was asked
	User     string            `json:"user,omitempty"`
	Project  string            `json:"project,omitempty"`
	Route    string            `json:"route"`
	Model    string            `json:"model"`
	Outcome  gateway.Outcome   `json:"outcome"`
	Findings []guard.Finding   `json:"findings,omitempty"` // in prompt and answer
	Judge    gateway.Judgement `json:"judge"`
}

// JudgedReport lists calls that were to be judged, the last first.
type JudgedReport struct {
	Calls []JudgedCall `json:"calls"`
	// Verdicts counts all of them, and Missed those that were not judged by the reason.
	Verdicts map[guard.Verdict]int `json:"verdicts"`
	Missed   map[string]int        `json:"missed"`
	Files    []CallsFile           `json:"files"`
}

// maxListed is how many calls a report lists at most, the last ones.
const maxListed = 10_000

// Judged lists the calls since a time with one of some verdicts.
func (a *App) Judged(_ context.Context, since time.Time, verdicts []guard.Verdict) (out JudgedReport, err error) {
	out = JudgedReport{Calls: []JudgedCall{}, Verdicts: map[guard.Verdict]int{}, Missed: map[string]int{}}
	latest := func(x, y JudgedCall) int { return y.At.Compare(x.At) }
	out.Files, err = readEnded(a.Dir, since, func(e ended) {
		if e.judge == nil {
			return
		}
		out.Verdicts[e.judge.Verdict]++
		if e.judge.Verdict == guard.NotJudged {
			out.Missed[e.judge.Why]++
		}
		if !slices.Contains(verdicts, e.judge.Verdict) {
			return
		}
		out.Calls = append(out.Calls, JudgedCall{
			At: e.open.At, User: plain.Line(e.open.User), Project: plain.Line(e.open.Project), Route: e.open.Route, Model: plain.Line(e.open.Model),
			Outcome: e.closed.Outcome, Findings: append(e.open.Findings, e.closed.Findings...), Judge: *e.judge,
		})
		if len(out.Calls) >= 2*maxListed {
			slices.SortFunc(out.Calls, latest)
			out.Calls = out.Calls[:maxListed]
		}
	})
	slices.SortStableFunc(out.Calls, latest)
	out.Calls = out.Calls[:min(len(out.Calls), maxListed)]
	return out, err
}
