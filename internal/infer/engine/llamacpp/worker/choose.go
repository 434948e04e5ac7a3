//go:build !noengine

package worker

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"unsafe"

	"github.com/hybridgroup/yzma/pkg/llama"
)

// chooser picks the next token of an answer. A grammar is asked about the token that was
// picked, and about all of them only where that does not fit: a vocabulary is large, and
// models that were asked for JSON mostly write some.
type chooser struct {
	m       *model
	free    llama.Sampler
	grammar llama.Sampler     // 0: there is none
	all     []llama.TokenData // the vocabulary, where there is a grammar
}

// newChooser returns one for what comes after a prompt, that the caller closes.
func newChooser(m *model, s sampling, prompt []llama.Token) (*chooser, error) {
	c := &chooser{m: m}
	if s.grammar != "" {
		if c.grammar = llama.SamplerInitGrammar(m.vocab, s.grammar, "root"); c.grammar == 0 {
			return nil, errors.New("llama.cpp does not read the grammar")
		}
		c.all = make([]llama.TokenData, llama.VocabNTokens(m.vocab))
	}
	c.free = llama.SamplerChainInit(llama.SamplerChainDefaultParams())
	n, all := llama.VocabNTokens(m.vocab), int32(min(m.context, math.MaxInt32))
	if s.presence != 0 || s.frequency != 0 {
		llama.SamplerChainAdd(c.free, llama.SamplerInitPenalties(n, all, 1, s.frequency, s.presence))
	}
	if last := s.repeatLast; s.repeat != 1 && last != 0 {
		if last < 0 || last > all {
			last = all
		}
		said := llama.SamplerInitPenalties(n, last, s.repeat, 0, 0)
		for _, t := range prompt {
			llama.SamplerAccept(said, t)
		}
		llama.SamplerChainAdd(c.free, said)
	}
	if s.temperature == 0 {
		llama.SamplerChainAdd(c.free, llama.SamplerInitGreedy())
		return c, nil
	}
	if s.topK > 0 {
		llama.SamplerChainAdd(c.free, llama.SamplerInitTopK(s.topK))
	}
	if s.typicalP < 1 {
		llama.SamplerChainAdd(c.free, llama.SamplerInitTypical(s.typicalP, 1))
	}
	if s.topP < 1 {
		llama.SamplerChainAdd(c.free, llama.SamplerInitTopP(s.topP, 1))
	}
	if s.minP > 0 {
		llama.SamplerChainAdd(c.free, llama.SamplerInitMinP(s.minP, 1))
	}
	llama.SamplerChainAdd(c.free, llama.SamplerInitTemp(s.temperature))
	llama.SamplerChainAdd(c.free, llama.SamplerInitDist(s.seed))
	return c, nil
}

func (c *chooser) close() {
	llama.SamplerFree(c.free)
	if c.grammar != 0 {
		llama.SamplerFree(c.grammar)
	}
}

// next returns the next token, after what was decoded last.
func (c *chooser) next() (llama.Token, error) {
	if c.grammar == 0 {
		return llama.SamplerSample(c.free, c.m.ctx, -1), nil
	}
	token, err := c.pick(false)
	if err == nil && !c.fits(token) {
		if token, err = c.pick(true); err == nil && !c.fits(token) {
			err = errors.New("no token fits the grammar")
		}
	}
	if err != nil {
		return 0, fmt.Errorf("sample: %w", err)
	}
	llama.SamplerAccept(c.grammar, token)
	llama.SamplerAccept(c.free, token)
	return token, nil
}

// pick returns a token of all, or of those that fit the grammar.
func (c *chooser) pick(fitting bool) (llama.Token, error) {
	logits, err := llama.GetLogitsIth(c.m.ctx, -1, len(c.all))
	if err != nil || len(logits) != len(c.all) {
		return 0, errors.Join(errors.New("there are no logits"), err)
	}
	for i, l := range logits {
		c.all[i] = llama.TokenData{Id: llama.Token(i), Logit: l}
	}
	list := llama.TokenDataArray{Data: &c.all[0], Size: uint64(len(c.all)), Selected: -1}
	if fitting {
		llama.SamplerApply(c.grammar, &list)
	}
	llama.SamplerApply(c.free, &list)
	runtime.KeepAlive(c.all)
	if list.Selected < 0 || uint64(list.Selected) >= list.Size {
		return 0, errors.New("none was selected")
	}
	return unsafe.Slice(list.Data, list.Size)[list.Selected].Id, nil // samplers may sort elsewhere
}

// fits reports whether the grammar lets a token come next.
func (c *chooser) fits(token llama.Token) bool {
	one := llama.TokenData{Id: token}
	list := llama.TokenDataArray{Data: &one, Size: 1, Selected: -1}
	llama.SamplerApply(c.grammar, &list)
	runtime.KeepAlive(&one)
	return !math.IsInf(float64(one.Logit), -1)
}
