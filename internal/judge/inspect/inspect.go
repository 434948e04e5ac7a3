// Package inspect runs scanners over artifacts and collects what they find.
//
// A scanner reads bytes that a stranger made. It must be bounded in memory and
// time, execute nothing, open nothing, and answer with findings; what it could
// not read to the end it reports as Refuse, never as nothing. A scanner that
// meets a container hands every member back to the runner (Descend), so that a
// pickle inside a zip inside a wheel is judged by the pickle scanner.
package inspect

import (
	"context"
	"io"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/artifact"
)

// Severity says what a finding means for a decision.
type Severity string

// The severities, mildest first.
const (
	Info   Severity = "info"   // worth knowing
	Warn   Severity = "warn"   // an approver must see it
	Refuse Severity = "refuse" // not to be released as it is
)

// Finding is what one scanner says about one file.
type Finding struct {
	Scanner  string   `json:"scanner"`  // name of the scanner
	Rule     string   `json:"rule"`     // stable id, e.g. "pickle-global"
	Severity Severity `json:"severity"` //
	Artifact string   `json:"artifact"` // reference
	File     string   `json:"file"`     // path, members of containers after "!"
	Detail   string   `json:"detail"`   // one sentence
	// Score is how bad a known vulnerability is, from 0 to 10 (CVSS base score); 0
	// for all other findings.
	Score float64 `json:"score,omitempty"`
	// Advisory is the id under which a vulnerability is known; empty for all others.
	Advisory string `json:"advisory,omitempty"`
}

// Fact is something that a scanner read and that is neither good nor bad by
// itself: what people compare, and what later judgements are made from.
type Fact struct {
	Kind     string `json:"kind"`     // one of the Fact kinds below
	Artifact string `json:"artifact"` // reference
	File     string `json:"file"`     // path, members of containers after "!"
	Value    string `json:"value"`    // at most MaxFact bytes; more is cut, and ends in the digest of all
}

// Kinds of facts.
const (
	Component = "component" // a package, as a package URL: pkg:pypi/requests@2.32.5
	Licence   = "licence"   // an SPDX expression, or what the package says instead
	Template  = "template"  // the text of a chat template
	Format    = "format"    // of a model file: gguf, safetensors, pickle, onnx, keras …
	Code      = "code"      // a file that runs when a model or package is used or installed
	Model     = "model"     // what a model is: architecture, tensors, parameters
	Signer    = "signer"    // who signed it upstream, as a proven identity
	Label     = "label"     // a word that rules may ask for
)

// SignedUpstream is the label of an artifact that carries a signature of its maker.
// That it is good is not said by it.
const SignedUpstream = "signed-upstream"

// MaxFact is the most bytes of a fact that are kept.
const MaxFact = 64 << 10

// Subject is one piece of content to look at: a file of an artifact, or a
// member of one. Content is read at any offset; nothing in it may be trusted.
type Subject struct {
	Ref  artifact.Ref
	Path string // path in the artifact; a member of a container follows "!"
	Size int64  // bytes
	io.ReaderAt
	// Head is the first bytes of the content, at most 4096.
	Head []byte
	// Depth is 0 for a file of the artifact, 1 for a member of it, and so on.
	Depth int
}

// Packaged reports whether it is of a package of program code, by the kind of its
// artifact.
func (s Subject) Packaged() bool {
	return slices.Contains([]string{"pypi", "npm", "gomod", "cargo", "maven"}, s.Ref.Kind)
}

// Data is the severity of content that could not be read and does harm only if
// code opens it: Warn inside a package, whose own code runs anyway and is what an
// approver trusts, Refuse everywhere else.
func (s Subject) Data() Severity {
	if s.Depth > 0 && s.Packaged() {
		return Warn
	}
	return Refuse
}

// Milder returns a Run whose refusals are warnings for what lies inside a package
// that is not for Python or npm: neither a build nor a program in Go, Rust or Java
// opens an archive or a pickle in it unless its own code does, and their test data
// is full of broken ones. Rules in but stay what they are.
func (s Subject) Milder(run Run, but ...string) Run {
	if s.Depth == 0 || !slices.Contains([]string{"gomod", "cargo", "maven"}, s.Ref.Kind) {
		return run
	}
	return milder{run, but}
}

type milder struct {
	Run
	but []string
}

func (m milder) Report(rule string, sev Severity, detail string) {
	if sev == Refuse && !slices.Contains(m.but, rule) {
		sev = Warn
	}
	m.Run.Report(rule, sev, detail)
}

// tileForm is where tiles of a checksum database lie in the artifact of one; constant.
var tileForm = regexp.MustCompile(`^[^/]+/tile/8/[0-9]{1,2}/(x[0-9]{3}/)*[0-9]{3}(\.p/[0-9]{1,3})?$`)

// HashTile reports whether it is a tile of Go's checksum database: at most 256
// hashes one after the other, that go itself verifies. Some begin, by chance, like
// an archive does.
func (s Subject) HashTile() bool {
	return s.Depth == 0 && s.Ref.Kind == "gomod" && strings.HasPrefix(s.Ref.Name, "sumdb/") && s.Size%32 == 0 && s.Size <= 256*32 && tileForm.MatchString(s.Path)
}

// Member is the content of a member of an archive that says how large the members
// beside it are.
type Member interface {
	io.ReaderAt
	// Beside returns the size of a member in bytes, by its whole name in the archive.
	Beside(name string) (size int64, ok bool)
}

// Run is what a scanner is given to answer with.
type Run interface {
	// Report records a finding about the subject being scanned.
	Report(rule string, sev Severity, detail string)
	// Note records a fact about it.
	Note(kind, value string)
	// Descend offers a member of the subject for scanning. name is the
	// member's name in its container; size its exact length. The runner
	// enforces the limits on depth, count and total bytes, and an error
	// means the scan of this subject must stop (it is already reported).
	Descend(ctx context.Context, name string, r io.ReaderAt, size int64) error
}

// Scanner looks at one kind of content. Implementations are stateless.
type Scanner interface {
	// Name is stable and lower case; Version changes when verdicts may.
	Name() string
	Version() string
	// Wants says, from path and first bytes, whether Scan should be called.
	Wants(s Subject) bool
	// Scan reads the subject and reports. An error means it could not be
	// judged and counts as a refusal.
	Scan(ctx context.Context, s Subject, run Run) error
}

// Beside is a Scanner that looks at content of any kind for one thing beside others.
// That it wants a file does not mean that anybody knows what the file is.
type Beside interface {
	Scanner
	Beside()
}

// Blob is an open blob to inspect. Size is in bytes.
type Blob interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Open opens a blob by its digest.
type Open func(artifact.Digest) (Blob, error)
