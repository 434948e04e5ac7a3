package app

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"enisle/internal/infer/gateway"
	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

func newTestCalls(t *testing.T, dir string, wait bool, seal string) *calls {
	t.Helper()
	f, err := openCalls(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCalls(f, wait, seal)
	if err != nil {
		t.Fatal(err)
	}
	kept := make(chan struct{})
	go func() {
		c.keep(t.Context())
		close(kept)
	}()
	t.Cleanup(func() {
		<-kept
		_ = f.Close()
	})
	return c
}

// Records of many calls at once are one chain, are summed up by user, and whatever is
// changed in the file is seen.
func TestCallsAreOneChain(t *testing.T) {
	for _, wait := range []bool{false, true} {
		dir := t.TempDir()
		c := newTestCalls(t, dir, wait, "")
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				id := string(rune('a'+i%26)) + strings.Repeat("x", i)
				user := []string{"ada", "eve"}[i%2]
				if err := c.Open(t.Context(), gateway.Opening{ID: id, At: time.Now(), User: user, Model: "m"}); err != nil {
					t.Error(err)
				}
				if i == 7 {
					return // a call that a crash cut off
				}
				if err := c.Close(t.Context(), gateway.Closing{ID: id, Outcome: gateway.Answered, Usage: openai.Usage{Prompt: 2, Completion: 3}}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		out, err := (&App{Dir: dir}).Usage(t.Context(), time.Now().Add(-time.Hour))
		if err != nil || len(out.Usage) != 2 || out.Usage[0].Calls != 25 || out.Usage[1].Prompt != 48 || len(out.Files) != 1 {
			t.Fatalf("%+v, %v", out, err)
		}
		if f := out.Files[0]; f.Broken != "" || f.Lines != 99 || f.Open != 1 {
			t.Errorf("%+v", f)
		}
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, callsDir, out.Files[0].Name)
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfter(whole, []byte("\n"))
		for what, b := range map[string][]byte{
			"a line changed":      bytes.Replace(whole, []byte(`"completion_tokens":3`), []byte(`"completion_tokens":1`), 1),
			"a line left out":     bytes.Join(append(append([][]byte{}, lines[:40]...), lines[41:]...), nil),
			"two lines exchanged": bytes.Join([][]byte{lines[1], lines[0], bytes.Join(lines[2:], nil)}, nil),
			"a line that is none": append(append([]byte{}, whole...), "hello\n"...),
		} {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if f, err := readCallsFile(name, func(callLine) {}); err != nil || f.Broken == "" {
				t.Errorf("%s: %+v, %v", what, f, err)
			}
		}
		// The half line of a power cut is no change.
		if err := os.WriteFile(name, append(append([]byte{}, whole...), `{"prev":"12`...), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := readCallsFile(name, func(callLine) {}); err != nil || f.Broken != "" || f.Lines != 99 {
			t.Errorf("a half line: %+v, %v", f, err)
		}
	}
}

// A judgement belongs to its call, and one that is not on record is told apart from none.
func TestJudgementsOfCalls(t *testing.T) {
	dir := t.TempDir()
	c := newTestCalls(t, dir, false, "")
	call := func(id string, judged bool) {
		t.Helper()
		found := []guard.Finding{{Rule: "r" + id}}
		err := errors.Join(c.Open(t.Context(), gateway.Opening{ID: id, At: time.Now(), User: "ada", Model: "m", Findings: found}),
			c.Close(t.Context(), gateway.Closing{ID: id, Outcome: gateway.Answered, Judged: judged}))
		if err != nil {
			t.Fatal(err)
		}
	}
	judge := func(id string, v guard.Verdict, why string) {
		t.Helper()
		if err := c.Judge(t.Context(), gateway.Judgement{ID: id, Verdict: v, Why: why, Judge: "j"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"1", "2", "3", "4"} {
		call(id, true)
	}
	call("5", false)
	judge("3", guard.Attack, "")
	judge("1", guard.NotJudged, "full")
	judge("2", guard.Clean, "")
	judge("5", guard.Attack, "") // which nobody asked for
	judge("9", guard.Attack, "")
	a := &App{Dir: dir}
	out, err := a.Judged(t.Context(), time.Now().Add(-time.Hour), []guard.Verdict{guard.Attack})
	if err != nil || len(out.Calls) != 1 || out.Calls[0].Judge.ID != "3" || out.Calls[0].User != "ada" || out.Calls[0].Findings[0].Rule != "r3" {
		t.Errorf("%+v, %v", out, err)
	}
	if out.Verdicts[guard.NotJudged] != 2 || out.Verdicts[guard.Clean] != 1 || out.Missed["full"] != 1 || out.Missed[unrecorded] != 1 || out.Files[0].Broken != "" || out.Files[0].Lines != 15 || out.Files[0].Open != 0 {
		t.Errorf("%+v", out)
	}
	u, err := a.Usage(t.Context(), time.Now().Add(-time.Hour))
	if err != nil || len(u.Usage) != 1 || u.Usage[0].Calls != 5 || u.Usage[0].Failed != 0 || u.Usage[0].Judgements[guard.Attack] != 1 || u.Usage[0].Judgements[guard.NotJudged] != 2 {
		t.Errorf("%+v, %v", u, err)
	}
	if out, err := a.Judged(t.Context(), time.Now().Add(time.Hour), []guard.Verdict{guard.Attack}); err != nil || len(out.Calls)+len(out.Verdicts) != 0 {
		t.Errorf("of later: %+v, %v", out, err)
	}
}

// Content that is sealed can be read by the officer's key and stands nowhere else.
func TestContentIsSealed(t *testing.T) {
	officer, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := newTestCalls(t, dir, false, officer.Recipient().String())
	secret := []byte("the prompt that nobody else may read")
	if err := c.Open(t.Context(), gateway.Opening{ID: "a", Content: secret}); err != nil {
		t.Fatal(err)
	}
	var sealed string
	if _, err := readCalls(dir, func(l callLine) { sealed = l.Sealed }); err != nil {
		t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(b), officer)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(r); err != nil || !bytes.Equal(got.Bytes(), secret) {
		t.Errorf("%q, %v", got.Bytes(), err)
	}
	if _, err := newCalls(nil, false, "age1nonsense"); err == nil {
		t.Error("a recipient that is none is taken")
	}
}

// A disk that is full means that nothing is recorded, and that is an error.
func TestARecordThatCannotBeWritten(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there is no /dev/full")
	}
	defer func() { _ = full.Close() }()
	c, err := newCalls(full, false, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Open(context.Background(), gateway.Opening{ID: "a"}); err == nil {
		t.Error("it says that it is recorded")
	}
}

// A limit holds for all who reserve at the same time, in several processes, to the
// last token.
func TestQuotasHold(t *testing.T) {
	dir := t.TempDir()
	var all []*quota
	for range 2 { // two descriptions of the file are two processes to the lock
		f, err := openQuota(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		q, err := newQuota(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, q)
	}
	const limit, tokens = 1000, 30
	now := time.Date(2026, 3, 1, 23, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	var settles []func(int64)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			settle, again, ok := all[i%2].Reserve("ada", tokens, limit, now)
			mu.Lock()
			defer mu.Unlock()
			if ok {
				settles = append(settles, settle)
			} else if again != time.Hour {
				t.Errorf("again in %v", again)
			}
		})
	}
	wg.Wait()
	if len(settles) != limit/tokens {
		t.Fatalf("%d calls of %d tokens were let through, want %d", len(settles), tokens, limit/tokens)
	}
	if _, _, ok := all[0].Reserve("eve", limit, limit, now); !ok {
		t.Error("another user has no tokens of her own")
	}
	for _, s := range settles {
		s(10)
	}
	if _, _, ok := all[1].Reserve("ada", limit-10*int64(len(settles)), limit, now); !ok {
		t.Error("what was not used was not given back")
	}
	if _, _, ok := all[0].Reserve("ada", 1, limit, now); ok {
		t.Error("there is more than the limit")
	}
	if _, _, ok := all[0].Reserve("ada", limit, limit, now.Add(2*time.Hour)); !ok {
		t.Error("a new day has no tokens")
	}
	if _, _, ok := all[0].Reserve("ada", 1, limit, now); ok {
		t.Error("a clock that goes back gives tokens")
	}
}

// Lines are as encoding/json writes them, member for member.
func TestLineIsJSON(t *testing.T) {
	finding := []guard.Finding{{Rule: "r", Where: "user, base64", Score: 0.5}}
	for _, l := range []callLine{
		{Prev: "00", Open: &gateway.Opening{}},
		{Prev: "0f", Close: &gateway.Closing{}},
		{Prev: "ab", Open: &gateway.Opening{
			ID: "req_1", At: time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("", 3600)), User: `ada "x"`, Project: "p\n", From: "[::1]:80", Route: "/v1/x", Model: "größe",
			Weights: "sha256:1", Streamed: true, Input: "sha256:2", Bytes: 3, Reserved: 1 << 40, Findings: finding, Content: []byte("never"),
		}, Sealed: "QUJD"},
		{Prev: "cd", Close: &gateway.Closing{
			ID: "req_1", Outcome: gateway.Blocked, Status: 400, Code: "c", Engine: "vllm", Usage: openai.Usage{Prompt: 1, Completion: 2, Total: 3}, Guessed: true,
			Queued: 4, First: 5, Duration: 6, Output: "sha256:7", Findings: finding, Content: []byte("never"), Judged: true,
		}, Sealed: "QUJD"},
		{Prev: "ef", Judge: &gateway.Judgement{ID: "req_1", Verdict: guard.Attack, Where: "tool", Judge: "m", Duration: 5}},
	} {
		want, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.append(nil); err != nil || string(got) != string(want) {
			t.Errorf("%s, %v; encoding/json: %s", got, err, want)
		}
	}
	if _, err := (&callLine{Open: &gateway.Opening{User: "\xff"}}).append(nil); err == nil {
		t.Error("a name that is no text is recorded")
	}
}
