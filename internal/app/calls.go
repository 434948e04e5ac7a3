package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"enisle/internal/fail"
	"enisle/internal/infer/gateway"
	"enisle/internal/infer/guard"
	"enisle/internal/plain"
)

// Who asked which model what, and what became of it, is a file of lines of JSON in the
// site's directory, a new one at every start of serve. Each line names the hash of the
// one before, and the start of serve records in the ledger how the older files end: no
// line can be changed, left out or added behind its time without it being seen. Content
// is hashed, or sealed to a key that is not here.

const (
	callsDir  = "access/calls"
	callsEnd  = ".jsonl"
	syncEvery = 40 * time.Millisecond // 50 are promised
	chainSize = 16                    // bytes of a hash that are named
	maxCall   = 64 << 20              // bytes of a line: sealed content is in it
	keepLine  = 64 << 10              // bytes of a line whose memory is used again
)

// callLine is one line.
type callLine struct {
	Prev  string           `json:"prev"`
	Open  *gateway.Opening `json:"open,omitempty"`
	Close *gateway.Closing `json:"close,omitempty"`
	// Judge follows a Close that says so.
	Judge *gateway.Judgement `json:"judge,omitempty"`
	// Sealed is the request or the answer as an age file, in base64.
	Sealed string `json:"sealed,omitempty"`
}

// append appends the line as encoding/json writes it, at a tenth of what that costs: a
// call has two.
func (l *callLine) append(b []byte) (_ []byte, err error) {
	b = append(append(append(b, `{"prev":"`...), l.Prev...), '"')
	if l.Open != nil {
		b, err = l.Open.AppendJSON(append(b, `,"open":`...))
	}
	if l.Close != nil && err == nil {
		b, err = l.Close.AppendJSON(append(b, `,"close":`...))
	}
	if l.Judge != nil && err == nil {
		var judge []byte
		judge, err = json.Marshal(l.Judge)
		b = append(append(b, `,"judge":`...), judge...)
	}
	if l.Sealed != "" {
		b = append(append(append(b, `,"sealed":"`...), l.Sealed...), '"')
	}
	return append(b, '}'), err
}

// one reports whether it is about one thing.
func (l *callLine) one() bool {
	n := 0
	for _, is := range []bool{l.Open != nil, l.Close != nil, l.Judge != nil} {
		if is {
			n++
		}
	}
	return n == 1
}

// openCalls makes the file of this start.
func openCalls(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Join(dir, callsDir), 0o700); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	name := fmt.Sprintf("%s-%d%s", time.Now().UTC().Format("20060102T150405.000000000"), os.Getpid(), callsEnd)
	f, err := os.OpenFile(filepath.Join(dir, callsDir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	return f, nil
}

// calls appends to the record. It is safe for concurrent use.
//
// Lines are put into a mapping of space that the file system has set aside: that is as
// good as written when this process dies, costs no system call, and does not wait while
// the disk is written to. What of the space is not used yet is zeros.
type calls struct {
	to   *os.File
	sync bool // wait until the disk has it
	seal age.Recipient

	mu     sync.Mutex
	window []byte // of the file, from a page's beginning; guarded by mu, like the rest
	start  int64  // of the window in the file
	used   int64  // bytes of the file
	space  int64  // bytes that are set aside
	prev   string
	line   []byte // of the last one, to be used again
	dirty  bool
	wake   chan struct{}
	synced chan struct{} // closed at the next sync
	err    error         // after which nothing is recorded any more
}

var _ gateway.Recorder = (*calls)(nil)

// newCalls records to a file; with a recipient, content is sealed to it.
func newCalls(to *os.File, wait bool, seal string) (*calls, error) {
	c := &calls{to: to, sync: wait, wake: make(chan struct{}, 1), synced: make(chan struct{}), prev: strings.Repeat("0", 2*chainSize)}
	if seal != "" {
		r, err := age.ParseRecipients(strings.NewReader(seal))
		if err != nil || len(r) != 1 {
			return nil, fail.As(fail.Usage, "give one recipient of age: age1…", errors.New("serve: the key that content is sealed to cannot be read"))
		}
		c.seal = r[0]
	}
	return c, nil
}

// keep writes what was recorded to the disk, at most syncEvery after the first line.
func (c *calls) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		if !c.sync {
			time.Sleep(syncEvery)
		}
		c.mu.Lock()
		c.dirty = false
		done := c.synced
		c.synced = make(chan struct{})
		c.mu.Unlock()
		if err := unix.Fdatasync(int(c.to.Fd())); err != nil {
			c.mu.Lock()
			c.err = fmt.Errorf("calls: %w", err)
			c.mu.Unlock()
		}
		close(done)
	}
}

// Open records a call before it goes on.
func (c *calls) Open(ctx context.Context, o gateway.Opening) error {
	return c.add(ctx, callLine{Open: &o}, o.Content, c.sync)
}

// Close records how it ended.
func (c *calls) Close(ctx context.Context, e gateway.Closing) error {
	return c.add(ctx, callLine{Close: &e}, e.Content, false)
}

// Judge records what became of its judgement.
func (c *calls) Judge(ctx context.Context, j gateway.Judgement) error {
	return c.add(ctx, callLine{Judge: &j}, nil, false)
}

func (c *calls) add(ctx context.Context, l callLine, content []byte, wait bool) error {
	if c.seal != nil && len(content) > 0 {
		sealed, err := c.sealed(content)
		if err != nil {
			return err
		}
		l.Sealed = sealed
	}
	synced, err := c.write(l)
	if err != nil || !wait {
		return err
	}
	select {
	case <-synced:
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *calls) write(l callLine) (synced chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	l.Prev = c.prev
	b, err := l.append(c.line[:0])
	if err != nil {
		return nil, fmt.Errorf("calls: %w", err)
	}
	if err := c.put(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("calls: %w", err)
	}
	if c.prev = chained(b); cap(b) <= keepLine {
		c.line = b
	}
	if !c.dirty {
		c.dirty = true
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	return c.synced, nil
}

// segment is how many bytes are set aside at a time.
const segment = 4 << 20

// put copies a line to the end of what is used. Its first byte is written last, so that
// a reader, or a crash, finds all of it or none.
func (c *calls) put(line []byte) error {
	if end := c.used + int64(len(line)); end > c.start+int64(len(c.window)) {
		if err := c.more(end); err != nil {
			return err
		}
	}
	at := c.window[c.used-c.start:]
	copy(at[1:], line[1:])
	at[0] = line[0]
	c.used += int64(len(line))
	return nil
}

// more sets space aside, so that a full disk is an error here and not a fault later, and
// moves the window to where the next line goes.
func (c *calls) more(end int64) error {
	if end > c.space {
		space := end + segment - end%segment
		if err := unix.Fallocate(int(c.to.Fd()), 0, c.space, space-c.space); errors.Is(err, unix.EOPNOTSUPP) {
			_, err = c.to.WriteAt(make([]byte, space-c.space), c.space)
			if err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		c.space = space
	}
	start := c.used - c.used%int64(os.Getpagesize())
	window, err := unix.Mmap(int(c.to.Fd()), start, int(c.space-start), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if c.window != nil {
		err = unix.Munmap(c.window)
	}
	c.window, c.start = window, start
	return err
}

// close gives back the space that was not used.
func (c *calls) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = errors.New("calls: the record is closed")
	var err error
	if c.window != nil {
		err = unix.Munmap(c.window)
		c.window = nil
	}
	return errors.Join(err, c.to.Truncate(c.used), c.to.Sync())
}

func (c *calls) sealed(content []byte) (string, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, c.seal)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return "", fmt.Errorf("calls: sealing: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
}

// chained is what the next line names of a line.
func chained(line []byte) string {
	h := sha256.Sum256(line)
	return hex.EncodeToString(h[:chainSize])
}

// CallsFile is one file of the record of calls.
type CallsFile struct {
	Name string `json:"name"`
	// Lines is how many are whole; Ends is what a line after the last would name.
	Lines int    `json:"lines"`
	Ends  string `json:"ends"`
	// Open are calls whose end is not recorded: under way, or cut off by a crash.
	Open int `json:"open"`
	// Broken says where the chain does not hold; empty: it does.
	Broken string `json:"broken,omitempty"`
}

// readCalls reads every file of the record, oldest first, and calls do for every line
// up to where a chain breaks.
func readCalls(dir string, do func(callLine)) (out []CallsFile, err error) {
	names, err := filepath.Glob(filepath.Join(dir, callsDir, "*"+callsEnd))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	out = []CallsFile{}
	for _, name := range names {
		f, err := readCallsFile(name, do)
		if err != nil {
			return nil, fmt.Errorf("calls: %w", err)
		}
		out = append(out, f)
	}
	return out, nil
}

func readCallsFile(name string, do func(callLine)) (out CallsFile, err error) {
	out = CallsFile{Name: filepath.Base(name), Ends: strings.Repeat("0", 2*chainSize)}
	f, err := os.Open(name)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	open := map[string]bool{}
	err = eachLine(f, maxCall, func(line []byte) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		var l callLine
		switch {
		case out.Broken != "":
			return
		case json.Unmarshal(line, &l) != nil || !l.one():
			out.Broken = fmt.Sprintf("line %d cannot be read", out.Lines+1)
			return
		case l.Prev != out.Ends:
			out.Broken = fmt.Sprintf("line %d does not follow the one before", out.Lines+1)
			return
		}
		out.Lines++
		out.Ends = chained(line)
		if l.Open != nil {
			open[l.Open.ID] = true
		} else if l.Close != nil {
			delete(open, l.Close.ID)
		}
		do(l)
	})
	out.Open = len(open)
	return out, err
}

// callsSoFar says how the record ends, for the ledger.
func callsSoFar(dir string) (string, error) {
	all, err := readCalls(dir, func(callLine) {})
	if err != nil || len(all) == 0 {
		return "", err
	}
	last := all[len(all)-1]
	return fmt.Sprintf("%d files; %s has %d lines and ends %s", len(all), last.Name, last.Lines, last.Ends), nil
}

// Usage is what somebody used.
type Usage struct {
	User       string    `json:"user"` // empty: whoever needed no key
	Project    string    `json:"project,omitempty"`
	Model      string    `json:"model"`
	Calls      int       `json:"calls"`
	Failed     int       `json:"failed"`
	Prompt     int64     `json:"prompt_tokens"`
	Completion int64     `json:"completion_tokens"`
	Last       time.Time `json:"last"`
	// Judgements of the calls, by verdict; none where no judge was to be asked.
	Judgements map[guard.Verdict]int `json:"judgements,omitempty"`
}

// CallsReport is what the record of calls says.
type CallsReport struct {
	Usage []Usage     `json:"usage"`
	Files []CallsFile `json:"files"`
}

// ended is a call whose end is on record, and its judgement if there was to be one.
type ended struct {
	open   *gateway.Opening
	closed *gateway.Closing
	judge  *gateway.Judgement
}

// unrecorded is why a call was not judged whose judgement is not on record: it is still to
// come, or the process was killed before.
const unrecorded = "not-recorded"

// readEnded calls do for every call since a time that ended.
func readEnded(dir string, since time.Time, do func(ended)) ([]CallsFile, error) {
	opened, toJudge := map[string]*gateway.Opening{}, map[string]ended{}
	files, err := readCalls(dir, func(l callLine) {
		switch {
		case l.Open != nil:
			opened[l.Open.ID] = l.Open
		case l.Close != nil:
			e := ended{open: opened[l.Close.ID], closed: l.Close}
			if delete(opened, l.Close.ID); e.open == nil || e.open.At.Before(since) {
				return
			}
			if l.Close.Judged {
				toJudge[l.Close.ID] = e
				return
			}
			do(e)
		default:
			e, ok := toJudge[l.Judge.ID]
			if delete(toJudge, l.Judge.ID); ok {
				e.judge = l.Judge
				do(e)
			}
		}
	})
	for id, e := range toJudge {
		e.judge = &gateway.Judgement{ID: id, Verdict: guard.NotJudged, Why: unrecorded}
		do(e)
	}
	return files, err
}

// Usage sums up the record of calls since a time, by user, project and model.
func (a *App) Usage(_ context.Context, since time.Time) (out CallsReport, err error) {
	type key struct{ user, project, model string }
	sums := map[key]*Usage{}
	out.Files, err = readEnded(a.Dir, since, func(e ended) {
		k := key{e.open.User, e.open.Project, e.open.Model}
		u := sums[k]
		if u == nil {
			u = &Usage{User: plain.Line(k.user), Project: plain.Line(k.project), Model: plain.Line(k.model)}
			sums[k] = u
		}
		u.Calls++
		if e.closed.Outcome != gateway.Answered {
			u.Failed++
		}
		u.Prompt += int64(e.closed.Usage.Prompt)
		u.Completion += int64(e.closed.Usage.Completion)
		if e.open.At.After(u.Last) {
			u.Last = e.open.At
		}
		if e.judge != nil {
			if u.Judgements == nil {
				u.Judgements = map[guard.Verdict]int{}
			}
			u.Judgements[e.judge.Verdict]++
		}
	})
	out.Usage = []Usage{}
	for _, u := range sums {
		out.Usage = append(out.Usage, *u)
	}
	slices.SortFunc(out.Usage, func(x, y Usage) int {
		return strings.Compare(x.User+"\x00"+x.Project+"\x00"+x.Model, y.User+"\x00"+y.Project+"\x00"+y.Model)
	})
	return out, err
}
