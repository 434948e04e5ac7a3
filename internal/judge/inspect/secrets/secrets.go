// Package secrets finds keys and tokens that were left in what is brought: they
// have leaked, and whoever holds them may be at risk.
//
// It looks for the fixed beginnings that issuers give their tokens, in texts of a
// moderate size. It shows where one stands, never what it is.
package secrets

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"

	"enisle/internal/judge/inspect"
)

// Scanner finds secrets; the zero value works.
type Scanner struct{}

var _ inspect.Beside = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Beside says that other scanners judge what the files are.
func (Scanner) Beside() {}

// Name returns "secrets".
func (Scanner) Name() string { return "secrets" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "1" }

const (
	maxText  = 8 << 20 // bytes of a text that is read
	maxFound = 5       // of one kind in one text
)

// kinds are what is looked for: a beginning that is cheap to find, and the whole.
// Constant.
var kinds = []struct {
	what  string
	begin []byte
	whole *regexp.Regexp
}{
	{"a private key", []byte("PRIVATE KEY-----"), regexp.MustCompile(`-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----\s+[A-Za-z0-9+/=:,\-\s]{64}`)},
	{"a private key for age", []byte("AGE-SECRET-KEY-"), regexp.MustCompile(`AGE-SECRET-KEY-(PQ-)?1[0-9A-Z]{50,}`)},
	{"an access key of AWS", []byte("AKIA"), regexp.MustCompile(`\bAKIA[A-Z2-7]{16}\b`)},
	{"a token of GitHub", []byte("gh"), regexp.MustCompile(`\bgh[pousr]_[A-Za-z0-9]{36}\b`)},
	{"a token of GitHub", []byte("github_pat_"), regexp.MustCompile(`\bgithub_pat_[A-Za-z0-9_]{82}\b`)},
	{"a token of GitLab", []byte("glpat-"), regexp.MustCompile(`\bglpat-[A-Za-z0-9_\-]{20}\b`)},
	{"a token of Slack", []byte("xox"), regexp.MustCompile(`\bxox[abprs]-[0-9]{8,14}-[A-Za-z0-9\-]{10,}`)},
	{"a key of Google", []byte("AIza"), regexp.MustCompile(`\bAIza[0-9A-Za-z_\-]{35}\b`)},
	{"a token of Hugging Face", []byte("hf_"), regexp.MustCompile(`\bhf_[A-Za-z]{34}\b`)},
	{"a token of npm", []byte("npm_"), regexp.MustCompile(`\bnpm_[A-Za-z0-9]{36}\b`)},
	{"a token of PyPI", []byte("pypi-AgE"), regexp.MustCompile(`\bpypi-AgE[A-Za-z0-9_\-]{50,}`)},
	{"a key of OpenAI", []byte("sk-"), regexp.MustCompile(`\bsk-(proj-)?[A-Za-z0-9_\-]{20,}T3BlbkFJ[A-Za-z0-9_\-]{20,}`)},
	{"a key of Anthropic", []byte("sk-ant-"), regexp.MustCompile(`\bsk-ant-[a-z0-9]{3,6}-[A-Za-z0-9_\-]{80,}`)},
	{"a key of Stripe", []byte("_live_"), regexp.MustCompile(`\b[rs]k_live_[A-Za-z0-9]{24,}\b`)},
}

// Wants takes what begins as text and is not too large.
func (Scanner) Wants(s inspect.Subject) bool {
	return s.Size > 20 && s.Size <= maxText && !bytes.Contains(s.Head, []byte{0})
}

// Scan reports each secret with its line.
func (Scanner) Scan(_ context.Context, s inspect.Subject, run inspect.Run) error {
	b := s.Head
	if s.Size > int64(len(b)) {
		b = make([]byte, s.Size)
		if _, err := io.ReadFull(io.NewSectionReader(s, 0, s.Size), b); err != nil {
			return err
		}
	}
	for _, k := range kinds {
		if !bytes.Contains(b, k.begin) {
			continue
		}
		for _, at := range k.whole.FindAllIndex(b, maxFound) {
			run.Report("secret", inspect.Warn, fmt.Sprintf("%s stands in line %d", k.what, 1+bytes.Count(b[:at[0]], []byte("\n"))))
		}
	}
	return nil
}
