// Package ecosystem defines what every package world must offer: a way to
// resolve a request with that world's own client on the connected side, and a
// read-only mirror for its unmodified clients on the isolated side.
//
// One folder an ecosystem. An ecosystem knows nothing of sites, shipments or
// signatures: it is given wants and returns artifacts, is given a release and
// returns a handler. What else it can do, it says by what it implements:
//
//	Prefixed, Kinded    its URLs and artifacts are called otherwise than it is
//	Downloader          it fetches files with its own client        collect
//	Proving             its origins sign what they offer            collect
//	Rehearser           its client proves that all is there         rehearse
//	Indexed             its index is signed by the site             release
//	Impersonator        it answers for the registries it knows      serve, mirror ca
//	Wanter              it names what was asked for and missing     misses
//	Configured          it knows the settings of its clients        mirror config
//
// and so does a Release: Signed has signed indexes, Explainer knows why something
// is not in it.
package ecosystem

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"enisle/internal/artifact"
)

// Target is the machine that the artifacts are for; the zero value is this one.
type Target struct {
	OS     string `yaml:"os" json:"os,omitempty"`
	Arch   string `yaml:"arch" json:"arch,omitempty"`
	Python string `yaml:"python" json:"python,omitempty"`
	Debian string `yaml:"debian" json:"debian,omitempty"`
}

// Want is what a request asks of one ecosystem.
type Want struct {
	// Items are the entries of the request, each a string ("requests>=2") or
	// an object ({"requirements": "requirements.txt"}) as decoded from YAML:
	// string or map[string]any.
	Items  []any
	Target Target
	// Dir is where relative paths of the request start.
	Dir string
	// Work is an empty directory of the ecosystem's own, removed afterwards.
	Work string
	// Hidden are paths that no client started for this want may read.
	Hidden []string
	// Alone are packages wanted without what they depend on, in place of
	// Items: sources of files that are taken out of them. A reference without
	// a version means the newest.
	Alone []artifact.Ref
}

// Runner runs a package client confined: with the network and the settings of
// this machine, without sight of the hidden paths, able to write only dir, a
// temporary directory of its own and the client's caches.
type Runner interface {
	Run(ctx context.Context, dir string, hidden []string, argv []string) (stdout, stderr []byte, err error)
}

// Ecosystem is one package world.
type Ecosystem interface {
	// Name is the kind of its artifacts and the first element of its URLs.
	Name() string
	// Resolve returns exactly what the wants come to for the target, with
	// every file's path, origin and at least one of Digest and a sha512 in
	// Hashes. It downloads no file for keeping.
	Resolve(ctx context.Context, want Want) ([]artifact.Artifact, error)
	// Handler returns the mirror of one immutable release. Paths arrive with
	// the prefix (/pypi) removed. nil means that the mirror of another
	// ecosystem with the same prefix shows what is its own.
	Handler(rel Release) (http.Handler, error)
}

// Downloader is an Ecosystem that can fetch one resolved file with its own
// client, for origins that only that client has the credentials for.
type Downloader interface {
	// Download writes the file into want.Work and returns its path. The
	// caller checks size and hashes.
	Download(ctx context.Context, want Want, a artifact.Artifact, f artifact.File) (string, error)
}

// Proving is an Ecosystem whose origins sign what they offer, by keys that its client is
// set to.
type Proving interface {
	// Prove verifies itself what Resolve found, before want.Work is removed. That
	// something is not signed, or not well, is no error: then it is in a Proof that
	// says why.
	Prove(ctx context.Context, want Want, found Found) ([]Proof, error)
}

// Found is what Resolve returned, with the files that it or its client wrote held.
type Found struct {
	Artifacts []artifact.Artifact
	// Open returns what is held of it, as its digest says.
	Open func(artifact.Digest) (Blob, error)
	At   time.Time // when signatures must count
}

// Proof says what follows from one signed document.
type Proof struct {
	// Why is not empty where nothing was verified of what is covered.
	Why      string
	Format   string   // names the way of signing: "sumdb"
	Keys     []string // that signed it
	Document string   // where it is: a clean path, without a scheme
	Digest   artifact.Digest
	Through  []artifact.File // documents between it and what is covered: Path and Digest
	// Trust covers all keys that would have counted.
	Trust artifact.Digest
	// Covers are artifacts with those of their files that follow from the document.
	Covers []artifact.Artifact
}

// Prefixed is an Ecosystem whose URLs begin with another element than its name.
type Prefixed interface {
	Prefix() string
}

// PrefixOf returns the first element of an ecosystem's URLs.
func PrefixOf(e Ecosystem) string {
	if p, ok := e.(Prefixed); ok {
		return p.Prefix()
	}
	return e.Name()
}

// Kinded is an Ecosystem whose artifacts have another kind than its name.
type Kinded interface {
	Kind() string
}

// KindOf returns the kind of an ecosystem's artifacts.
func KindOf(e Ecosystem) string {
	if k, ok := e.(Kinded); ok {
		return k.Kind()
	}
	return e.Name()
}

// Wanter is an Ecosystem that can say what a client wanted that asked for something
// which is not here.
type Wanter interface {
	// Wanted returns the entry of a request, below the ecosystem's name, that would
	// bring what a path asks for; false for paths that no package would answer. The
	// path is as the handler gets it, hostile, and at most 2,000 bytes.
	Wanted(path string) (item string, ok bool)
}

// Configured is an Ecosystem that knows the settings of its clients.
type Configured interface {
	// Clients lists them by the names that people call them.
	Clients() []string
	// Config returns the settings that make a client use the mirror at base, without
	// a slash at its end, and nothing else.
	Config(client, base string) string
}

// DigestHeader names the released file that an answer gives, as "sha256:" and hex
// digits, where the protocol wants an ETag that is not its SHA-256 in quotes.
const DigestHeader = "X-Enisle-Digest"

// Indexed is an Ecosystem whose clients trust an index by the signature on it.
type Indexed interface {
	// Index returns the texts that a release's index consists of and that are to be
	// signed, by name; none if the release has nothing of this ecosystem. They depend
	// on the release and the time alone.
	Index(rel Release, at time.Time) (map[string][]byte, error)
}

// Explainer is a Release that knows more of what is not in it.
type Explainer interface {
	// Why says in one line of ASCII why nothing is served under a reference; without a
	// version, why nothing of the name is. A name that begins with "*/" means every
	// name that ends with the rest of it. Names may be hostile.
	Why(ctx context.Context, ref artifact.Ref) string
}

// Signed is a Release whose index was signed by the site when it was released.
type Signed interface {
	// SignedIndex returns a text of Index with the site's signature; false if there is
	// none.
	SignedIndex(ecosystem, name string) ([]byte, bool)
	// SigningKey returns the public key that the site signs with.
	SigningKey() ([]byte, bool)
}

// Rehearser is an Ecosystem whose stock client can prove, before anything crosses, that
// what was collected is all that it will ask for.
type Rehearser interface {
	// Rehearse has the client install everything from a mirror that is all there is to
	// be reached. It runs nothing of what it installs. An error says what is missing;
	// ErrNoClient that there is no client on this machine.
	Rehearse(ctx context.Context, r Rehearsal) error
}

// ErrNoClient says that a stock client is not installed here.
var ErrNoClient = errors.New("its client is not installed here") // constant

// Rehearsal is what one ecosystem rehearses with.
type Rehearsal struct {
	Runner    Runner
	Base      string // address of the mirror, without a slash at its end
	Work      string // an empty directory, which is also the client's home
	Target    Target
	Artifacts []artifact.Artifact // of this ecosystem
}

// Impersonator is an Ecosystem whose mirror can answer in the place of the registry
// that an artifact came from, so that clients with that address built in, or written
// into their lockfiles, need no settings.
type Impersonator interface {
	// Origins returns where the registry of an artifact is, as it was recorded:
	// addresses without a slash at the end, each with the path of the handler that
	// answers what lies below it.
	Origins(a artifact.Artifact) map[string]string
}

// made begins the origin of a file that Resolve wrote into want.Work.
const made = "made:"

// Made is the origin of a file that Resolve itself wrote, or had a client write,
// below want.Work: it is taken from there, its size and digest are filled in, and
// from is kept as its origin. Whoever wrote it has verified it.
func Made(path, from string) string { return made + path + "\n" + from }

// ParseMade undoes Made.
func ParseMade(origin string) (path, from string, ok bool) {
	rest, ok := strings.CutPrefix(origin, made)
	path, from, _ = strings.Cut(rest, "\n")
	return path, from, ok
}

// Release is the released artifacts a mirror may show: immutable, and verified
// before it got here.
type Release interface {
	// Artifacts returns those of one kind, ordered by reference.
	Artifacts(kind string) []artifact.Artifact
	// Open returns a released blob; artifact.ErrNotHeld for any other.
	Open(d artifact.Digest) (Blob, error)
}

// Blob is an open blob. Size is in bytes.
type Blob interface {
	io.ReadSeekCloser
	io.ReaderAt
	Size() int64
}
