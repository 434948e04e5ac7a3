package gateway

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"enisle/internal/infer/guard"
)

// Whatever an engine answers, only what is exactly a verdict is one.
func FuzzJudgesAnswer(f *testing.F) {
	for _, s := range []string{
		`{"choices":[{"message":{"content":"clean"},"finish_reason":"stop"}]}`,
		`{"choices":[{"message":{"content":" Attack\n"},"finish_reason":"stop"}]}`,
		`{"choices":[{"message":{"content":"clean"},"finish_reason":"length"}]}`,
		`{"choices":[{"message":{"content":["clean"]},"finish_reason":"stop"}]}`,
		`{"choices":[{"message":{"content":"clean","tool_calls":[]},"finish_reason":"stop"},null]}`,
		`{"choices":null}`, `[]`, `{`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v := verdict([]byte(s))
		if v == guard.Unclear {
			return
		}
		var a struct {
			Choices []struct {
				Finish  any `json:"finish_reason"`
				Message struct {
					Content any `json:"content"`
				}
			}
		}
		if err := json.Unmarshal([]byte(s), &a); err != nil || len(a.Choices) != 1 || a.Choices[0].Finish != "stop" {
			t.Fatalf("%s is %s: %v", s, v, err)
		}
		if content, ok := a.Choices[0].Message.Content.(string); !ok || guard.ParseVerdict(content) != v {
			t.Errorf("%s is %s", s, v)
		}
	})
}

// What makes way takes no place that somebody waits for, nor the last, nor more than an
// eighth; and one user with all others is not kept from the last place by it.
func TestSparePlaces(t *testing.T) {
	l := newLine(100)
	enter := func(user string, places int) *ticket {
		t.Helper()
		k, refused := l.join(user, 1, 10, of(l, places), time.Now())
		if refused != nil {
			t.Fatal(refused.why)
		}
		return k
	}
	var spare *ticket
	take := func(places int) bool {
		k := l.takeSpare(of(l, places))
		if k != nil {
			spare = k
		}
		return k != nil
	}
	if !take(1) || take(1) {
		t.Fatal("an idle engine of one place has not exactly one to spare")
	}
	k := enter("ada", 1)
	if waiting, running := l.state(); waiting != 1 || running != 0 {
		t.Fatalf("%d wait, %d run", waiting, running)
	}
	l.giveSpare(spare)
	if err := l.wait(context.Background(), k, 10); err != nil {
		t.Fatal(err)
	}
	if take(1) || take(2) {
		t.Error("the last place is taken")
	}
	if !take(3) || take(4) {
		t.Error("of few places not exactly one is there to spare")
	}
	second := enter("ada", 3) // with nobody else there
	if !second.taken {
		t.Error("a person does not get the last place beside what makes way")
	}
	l.giveSpare(spare)
	l.done(k, 10, 10)
	l.done(second, 10, 10)
	n := 0
	for take(64) {
		n++
	}
	if n != 64/spareShare {
		t.Errorf("%d of 64 places are taken", n)
	}
}
