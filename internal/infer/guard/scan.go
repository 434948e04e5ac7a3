package guard

// hit is a rule that matched in a text.
type hit struct {
	rule *promptRule
	how  string // how it was written, if not plainly
}

// scratch is memory that reading a text needs, for the next one to use again.
type scratch struct {
	folded, tight, window []byte
	joined                []byte
	texts                 []string // that are joined
	sums                  sums
	seen                  []seenBy // by rule
	hits                  []hit
	tooMany               bool // words that begin patterns to try them all
}

// seenBy is what a rule has seen of a text.
type seenBy struct {
	end   int // of the text, for rules that look back
	tries int // of its pattern
	hit   bool
}

const maxTries = 10_000 // of one pattern on one text

// scan applies the rules to one text, as it stands. Every byte is seen by a rule's
// pattern a bounded number of times.
func (r *Rules) scan(text string, from Source, s *scratch) []hit {
	return r.scanFolded(fold(s.folded, text), from, s)
}

func (r *Rules) scanFolded(f folded, from Source, s *scratch) []hit {
	s.folded, s.hits = f.text, s.hits[:0]
	if len(s.seen) != len(r.prompts) {
		s.seen = make([]seenBy, len(r.prompts))
	}
	clear(s.seen)
	s.tooMany = false
	r.words.find(f.text, func(word int32, end int) {
		w := r.wordOf[word]
		seen := &s.seen[w.rule.index]
		if !w.rule.on[from] || seen.hit {
			return
		}
		if w.rule.match == nil {
			s.hits, seen.hit = append(s.hits, hit{rule: w.rule}), true
			return
		}
		if seen.tries++; seen.tries > maxTries {
			s.tooMany = true
			return
		}
		begin := end - w.size
		a, b := max(begin-w.rule.Back, 0), min(begin+reach, len(f.text))
		switch {
		case w.how == backwards:
			a, b = max(end-reach, 0), min(end+w.rule.Back, len(f.text))
		case w.how == plainly && w.rule.Back > 0:
			if begin < seen.end-reach/2 {
				return // the pattern saw this word, and what is behind it
			}
			seen.end = b
		}
		part := f.text[a:b]
		if w.how != plainly {
			s.window = turned(s.window, part, w.how)
			part = s.window
		}
		if w.rule.match.Match(part) {
			s.hits, seen.hit = append(s.hits, hit{w.rule, w.how.String()}), true
		}
	})
	if len(r.tightOf) > 0 {
		s.tight = squeeze(s.tight, f.text)
		r.tight.find(s.tight, func(word int32, _ int) {
			if p := r.tightOf[word]; p.on[from] && !s.seen[p.index].hit {
				s.hits, s.seen[p.index].hit = append(s.hits, hit{p, "tight"}), true
			}
		})
	}
	return s.hits
}

func (d disguise) String() string {
	return [...]string{"", "rot13", "backwards"}[d]
}

// turned takes a disguise off a text, or puts it on.
func turned(buf, text []byte, how disguise) []byte {
	buf = append(buf[:0], text...)
	switch how {
	case rotated:
		for i, c := range buf {
			if c >= 'a' && c <= 'z' {
				buf[i] = (c-'a'+13)%26 + 'a'
			}
		}
	case backwards:
		for i, j := 0, len(buf)-1; i < j; i, j = i+1, j-1 {
			buf[i], buf[j] = buf[j], buf[i]
		}
	case plainly:
	}
	return buf
}
