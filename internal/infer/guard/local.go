package guard

import (
	"crypto/hmac"
	"crypto/sha256"
	_ "embed"
	"encoding/base32"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
)

// standardRules are those that are shipped; constant.
//
//go:embed rules.yaml
var standardRules []byte

// standardClassifier is the one that is shipped; constant.
//
//go:embed classifier.bin
var standardClassifier []byte

// Names of the files of an artifact rules/guard. Either may be missing.
const (
	RulesFile      = "rules.yaml"
	ClassifierFile = "classifier.bin"
)

// Options are what a guard is made of; what is nil is the standard one.
type Options struct {
	Rules, Classifier, Policy []byte
	Mode                      Mode      // no stricter than this; "" means as the policy says
	Random                    io.Reader // of marks and canaries; needed
}

// Local is a guard of rules, a classifier, and where each text came from.
type Local struct {
	rules      *Rules
	classifier *Classifier
	policy     *Policy
	key        [32]byte // of marks; another in every guard
	scratches  sync.Pool
	macs       sync.Pool // of HMAC with the key
}

var _ Guard = (*Local)(nil)

// New makes a guard. Everything is checked before it is used.
func New(opt Options) (*Local, error) {
	or := func(b, standard []byte) []byte {
		if b == nil {
			return standard
		}
		return b
	}
	g := &Local{}
	g.scratches.New = func() any { return &scratch{} }
	g.macs.New = func() any { return hmac.New(sha256.New, g.key[:]) }
	var err error
	if g.rules, err = ParseRules(or(opt.Rules, standardRules)); err != nil {
		return nil, err
	}
	if g.classifier, err = ParseClassifier(or(opt.Classifier, standardClassifier)); err != nil {
		return nil, err
	}
	if g.policy, err = ParsePolicy(or(opt.Policy, standardPolicy), g.rules); err != nil {
		return nil, err
	}
	if opt.Mode != "" {
		g.policy = g.policy.AtMost(opt.Mode)
	}
	if opt.Random == nil {
		return nil, errors.New("guard: it has no source of chance")
	}
	_, err = io.ReadFull(opt.Random, g.key[:])
	return g, err
}

// Check says whether a file of an artifact rules/guard can be used.
func Check(name string, b []byte) error {
	switch name {
	case RulesFile:
		_, err := ParseRules(b)
		return err
	case ClassifierFile:
		_, err := ParseClassifier(b)
		return err
	}
	return fmt.Errorf("guard: it consists of %s and %s, not %.80q", RulesFile, ClassifierFile, name)
}

// Rules returns what it looks for.
func (g *Local) Rules() []RuleInfo { return g.rules.Names() }

// Policy returns the policy in force.
func (g *Local) Policy() *Policy { return g.policy }

// Standard returns the rules and the policy that are shipped, as they are written.
func Standard() (rules, policy []byte) { return standardRules, standardPolicy }

// letterCode writes bytes as small letters and digits. Constant.
var letterCode = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// mark returns a word that nobody outside can guess, the same for the same text: what
// engines remember of a prompt's beginning stays good.
func (g *Local) mark(of string) string {
	h := g.macs.Get().(hash.Hash) //nolint:forcetypeassert // the pool holds nothing else
	h.Reset()
	_, _ = io.WriteString(h, of) // of a hash; cannot fail
	var sum [sha256.Size]byte
	word := letterCode.EncodeToString(h.Sum(sum[:0])[:10]) // 16 letters
	g.macs.Put(h)
	return word
}
