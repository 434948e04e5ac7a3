package guard

import (
	"bytes"
	"slices"
)

// What no lane of an answer has by itself, but two together: half of it at the end of one,
// half at the beginning of another. Clients show lanes one below the other, in an order of
// their own.

const (
	seamSize   = 256 // bytes of the end of a lane, and of the beginning of another, that are joined, to the next end of a word
	seamLanes  = 8   // lanes before a lane, and behind it, that it is joined to
	maxMarking = 100 // bytes of a marking
)

// seam reads the end of a lane and the beginning of another one as one text.
type seam struct {
	lane    *lane
	before  *lane
	length  int    // of the lane before, when it was joined
	cut     int    // where what follows begins in the text
	read    int    // bytes of what follows that were read
	passed  bool   // nothing can lie over it any more
	letters []byte // the last ones, for the canary
}

// seam joins what a lane ends in to what follows. Numbers that are arguments of a call are
// mostly numbers of their own: what two of them make together is only noted. So is nothing
// made of addresses there, whose parts other arguments may well be.
func (a *answer) seam(before, behind *lane) *seam {
	l := a.lane()
	if l.call = before.call || behind.call; l.call {
		a.arguments(l)
	} else {
		l.known = func(v []byte) bool { return twice(v) || a.known(v) }
	}
	end := before.ending()
	l.add(end)
	l.hits, l.bad = nil, nil // those were found in the lane
	s := &seam{lane: l, before: before, length: before.length(), cut: len(end)}
	if a.secret != nil {
		s.letters = letters(nil, end)
	}
	return s
}

// arguments has a lane read what was joined of the arguments of a call.
func (a *answer) arguments(l *lane) {
	l.call, l.link = true, nil
	l.acts = func(r *answerRule) Action {
		do := a.policy.action(r.Name, r.Action)
		switch {
		case r.Before > 0:
			return ActionOff
		case r.Numbers && do == ActionBlock:
			return ActionFlag
		}
		return do
	}
}

// twice reports whether a number is another one, said twice: an answer often begins with
// what the thoughts before it ended in.
func twice(v []byte) bool {
	b := letters(nil, v)
	return bytes.Equal(b[:len(b)/2], b[(len(b)+1)/2:])
}

// begins joins a lane that begins to those that are there.
func (a *answer) begins(l *lane) {
	for _, before := range a.order[max(0, len(a.order)-seamLanes):] {
		if before.length() > 0 {
			l.seams = append(l.seams, a.seam(before, l))
		}
	}
	l.joining = len(l.seams) > 0
}

// join reads what a lane begins with as it goes on from others.
func (a *answer) join(l *lane) {
	text, open := l.beginning()
	for _, s := range l.seams {
		a.follow(s, text)
		a.pass(s, l)
	}
	l.joining = open
}

// pass has a lane end where another one of the same answer has gone on past it: mostly
// thoughts, which often end in a word without white space. It may begin again.
func (a *answer) pass(s *seam, behind *lane) {
	b := s.before
	if s.passed || b.call || b.of != behind.of || b.length() != s.length || s.lane.safe() < s.cut {
		return
	}
	s.passed = true
	b.end()
	a.hits(b)
}

// follow reads what follows at a seam: all that there is of it so far.
func (a *answer) follow(s *seam, text []byte) {
	more := text[s.read:]
	s.read = len(text)
	s.lane.add(more)
	a.hits(s.lane)
	if a.secret != nil {
		a.canary(&s.letters, more)
	}
	if len(a.policy.Markings) > 0 {
		a.markings(s.lane, len(more))
		a.parted(s)
	}
}

// parted looks for markings between whose words a seam is: white space there is lost.
func (a *answer) parted(s *seam) {
	before, behind := bytes.TrimRight(s.lane.buf[:s.cut], " \t\r\n"), bytes.TrimLeft(s.lane.buf[s.cut:], " \t\r\n")
	text := slices.Concat(before[max(0, len(before)-maxMarking):], []byte(" "), behind[:min(len(behind), maxMarking)])
	for _, m := range a.policy.Markings {
		if bytes.Contains(text, []byte(m)) {
			a.found(markingSeen, "it has the marking "+m, a.policy.action(markingSeen, ActionBlock))
		}
	}
}

// joined reads what no lane begins or ends with any more, both ways. What was joined when
// a lane began is not again, unless the lane before has gone on.
func (a *answer) joined() {
	for i, behind := range a.order {
		text, open := behind.beginning()
		if len(text) == 0 {
			continue
		}
		for j := max(0, i-seamLanes); j < min(len(a.order), i+seamLanes+1); j++ {
			before := a.order[j]
			if j == i || before.length() == 0 {
				continue
			}
			at := slices.IndexFunc(behind.seams, func(s *seam) bool { return s.before == before && s.length == before.length() })
			var s *seam
			if at >= 0 {
				s = behind.seams[at]
			} else {
				s = a.seam(before, behind)
				a.follow(s, text)
			}
			if open { // it is all of the lane
				s.lane.end()
				a.hits(s.lane)
			}
		}
	}
}

// length is how long the text is.
func (l *lane) length() int { return l.base + len(l.buf) }

// ending is what the text ends with, from the beginning of a word on.
func (l *lane) ending() []byte {
	i := max(0, len(l.buf)-seamSize)
	for i > 0 && len(l.buf)-i < maxURL && !ends[l.buf[i-1]] {
		i--
	}
	return l.buf[i:]
}

// beginning is what the text begins with, up to the end of a word. It is open while more
// may come.
func (l *lane) beginning() (b []byte, open bool) {
	if b = l.buf; l.base > 0 {
		b = l.head
	}
	for i := seamSize; i < len(b); i++ {
		if ends[b[i]] || i == maxURL {
			return b[:i+1], false
		}
	}
	return b, true
}
