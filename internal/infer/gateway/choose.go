package gateway

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"enisle/internal/infer/engine"
)

const (
	// block is how many bytes of a prompt make one link of the chain by which equal
	// beginnings are found.
	block = 1 << 10
	// maxLinks bounds how much of a prompt is looked at.
	maxLinks = 16
	// maxPrefixes is how many beginnings are remembered for all engines.
	maxPrefixes = 20_000
	// slack is how many tokens more an engine may have to do than the least loaded one
	// and still get a call because it knows the beginning of the prompt.
	slack = 4096

	tripAfter = 3                // failures in a row
	firstRest = time.Second      // of an engine that tripped
	maxRest   = 30 * time.Second // after many

	staleLoad = 5 * time.Second
)

// chooser knows how loaded and how well the engines are, and who read which prompts.
type chooser struct {
	mu       sync.Mutex
	engines  map[engine.Engine]*health
	prefixes map[uint64]*list.Element // of *prefix
	recent   list.List
}

type health struct {
	outstanding int64 // tokens
	calls       int
	failures    int // in a row
	rest        time.Duration
	until       time.Time // no call before, but for one that tries
	trying      bool
	tried       time.Time     // when the last one began to
	heard       atomic.Uint64 // reads that brought something of an answer, to any call
}

// rests reports whether calls go to others. It is called with mu.
func (h *health) rests(now time.Time) bool {
	return h.failures >= tripAfter && (h.trying || now.Before(h.until))
}

// listened is the body of an answer; whoever reads it hears its engine.
type listened struct {
	io.ReadCloser
	from *health
	some bool // a byte came
}

func (l *listened) Read(b []byte) (int, error) {
	n, err := l.ReadCloser.Read(b)
	if n > 0 {
		l.some = true
		l.from.heard.Add(1)
	}
	return n, err
}

type prefix struct {
	key    uint64
	engine engine.Engine
}

func newChooser() *chooser {
	return &chooser{engines: map[engine.Engine]*health{}, prefixes: map[uint64]*list.Element{}}
}

// chain hashes the beginnings of a prompt, the shortest first. The tenant is part of
// them, so that nobody can find out by timing what another asked.
func chain(tenant, model string, prompt []span) (keys []uint64) {
	h := sha256.New()
	h.Write([]byte(tenant + "\x00" + model))
	var n int
	var sum [sha256.Size]byte
	for _, s := range prompt {
		h.Write([]byte{0, byte(s.Source)})
		for text := s.Text; len(text) > 0 && len(keys) < maxLinks; {
			take := min(len(text), block-n)
			h.Write([]byte(text[:take]))
			if text, n = text[take:], n+take; n == block {
				keys, n = append(keys, binary.LittleEndian.Uint64(h.Sum(sum[:0]))), 0
			}
		}
	}
	return keys
}

// order returns the engines in the order in which they should be tried, those that
// rest left out. after is when the first of them may be tried again, if none is left. Where
// all rest, one that is tried for long already is tried by others as well: it may be that
// call alone that takes so long.
func (c *chooser) order(all []engine.Engine, keys []uint64, now time.Time) (out []engine.Engine, after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	after = maxRest
	var slow []engine.Engine
	for _, e := range all {
		h := c.health(e)
		if !h.rests(now) {
			out = append(out, e)
			continue
		}
		after = min(after, max(h.until.Sub(now), 0))
		if h.trying && now.Sub(h.tried) >= maxRest {
			slow = append(slow, e)
		}
	}
	if len(out) == 0 {
		out = slow
	}
	slices.SortStableFunc(out, func(a, b engine.Engine) int {
		x, y := c.engines[a].outstanding+told(a, now), c.engines[b].outstanding+told(b, now)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	for i := len(keys) - 1; i >= 0 && len(out) > 1; i-- {
		el := c.prefixes[keys[i]]
		if el == nil {
			continue
		}
		p := el.Value.(*prefix) //nolint:forcetypeassert // the list holds nothing else
		if at := slices.Index(out, p.engine); at > 0 && c.engines[p.engine].outstanding <= c.engines[out[0]].outstanding+slack {
			out = slices.Insert(slices.Delete(out, at, at+1), 0, p.engine)
		}
		break
	}
	return out, after
}

// told is what an engine says waits there, in tokens: others may send it calls. What it
// said long ago does not count.
func told(e engine.Engine, now time.Time) int64 {
	l, ok := e.(engine.Loaded)
	if !ok {
		return 0
	}
	load := l.Load()
	if now.Sub(load.At) > staleLoad {
		return 0
	}
	return int64(load.Waiting) * defaultMax
}

// seats says of engines how many calls they take at a time, and whether they rest.
func (c *chooser) seats(all []engine.Engine, now time.Time) []seat {
	out := make([]seat, len(all))
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range all {
		out[i] = seat{engine: e, places: max(e.Traits().Parallel, 1), rests: c.health(e).rests(now)}
	}
	return out
}

func (c *chooser) health(e engine.Engine) *health {
	h := c.engines[e]
	if h == nil {
		h = &health{}
		c.engines[e] = h
	}
	return h
}

// begin counts a call that is sent to an engine, whose health it returns.
func (c *chooser) begin(e engine.Engine, tokens int64, keys []uint64, now time.Time) *health {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.health(e)
	h.outstanding += tokens
	h.calls++
	if h.trying = h.failures >= tripAfter; h.trying {
		h.tried = now
	}
	for _, k := range keys {
		if el := c.prefixes[k]; el != nil {
			el.Value.(*prefix).engine = e //nolint:forcetypeassert // as above
			c.recent.MoveToFront(el)
			continue
		}
		c.prefixes[k] = c.recent.PushFront(&prefix{k, e})
		if c.recent.Len() > maxPrefixes {
			last := c.recent.Remove(c.recent.Back()).(*prefix) //nolint:forcetypeassert // as above
			delete(c.prefixes, last.key)
		}
	}
	return h
}

// over ends a call that was sent to an engine. It is called with mu.
func (c *chooser) over(e engine.Engine, tokens int64) *health {
	h := c.health(e)
	h.outstanding -= tokens
	h.calls--
	h.trying = false
	return h
}

// left ends one of which nobody knows what would have become.
func (c *chooser) left(e engine.Engine, tokens int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over(e, tokens)
}

// end counts what became of it. An engine that failed several times in a row rests, a
// single one as well: its clients are told at once, and it is not asked in vain.
func (c *chooser) end(e engine.Engine, tokens int64, good bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.over(e, tokens)
	if good {
		h.failures, h.rest = 0, 0
		return
	}
	if h.failures++; h.failures >= tripAfter {
		h.rest = min(max(2*h.rest, firstRest), maxRest)
		h.until = now.Add(h.rest)
	}
}

// keep forgets engines that are gone.
func (c *chooser) keep(all []engine.Engine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e, h := range c.engines {
		if h.calls == 0 && !slices.Contains(all, e) {
			delete(c.engines, e)
		}
	}
}

// load returns what an engine has to do: calls and tokens.
func (c *chooser) load(e engine.Engine) (calls int, tokens int64, resting bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.health(e)
	return h.calls, h.outstanding, h.rests(time.Now())
}
