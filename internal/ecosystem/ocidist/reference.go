// Package ocidist speaks the protocol of container registries: it says what an
// image at one consists of, and is a read-only registry over what is released
// (distribution-spec 1.1).
//
// It knows nothing of kinds, requests or sites. Manifests stay as they were, byte
// for byte, so that digests and signatures outlive the crossing.
package ocidist

import (
	"fmt"
	"net"
	"regexp"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// Forms of distribution-spec 1.1, "Pulling manifests"; constant.
var (
	nameForm = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	hostForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?$`)
)

// maxName is the longest name of a repository, in bytes; distribution-spec 1.1
// says that many clients allow no more, host included.
const maxName = 255

// Reference names an image at a registry.
type Reference struct {
	Host   string // with port if it has one
	Path   string // team/app
	Tag    string
	Digest artifact.Digest // of the manifest; wins over the tag
}

// ParseReference reads HOST/PATH:TAG, HOST/PATH@DIGEST or both.
func ParseReference(s string) (Reference, error) {
	bad := func(why string) (Reference, error) {
		return Reference{}, fail.As(fail.Usage, `write "registry.example/team/app:1.4" or "registry.example/team/app@sha256:…", with the registry's host`,
			fmt.Errorf("image %.120q: %s", s, why))
	}
	var r Reference
	name, digest, pinned := strings.Cut(s, "@")
	if pinned {
		d, err := artifact.ParseDigest(digest)
		if err != nil {
			return bad(err.Error())
		}
		r.Digest = d
	}
	host, rest, ok := strings.Cut(name, "/")
	if !ok || !hostForm.MatchString(host) || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return bad("names no registry")
	}
	r.Host, r.Path = host, rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		r.Path, r.Tag = rest[:i], rest[i+1:]
		if !tagForm.MatchString(r.Tag) {
			return bad("its tag is none")
		}
	}
	if !nameForm.MatchString(r.Path) || len(r.Name()) > maxName {
		return bad("its name is none")
	}
	if r.Tag == "" && r.Digest == "" {
		return bad("names neither tag nor digest")
	}
	return r, nil
}

// hostElement is a host as an element of a path: a port follows an underscore,
// which no host has.
func hostElement(host string) string { return strings.ReplaceAll(host, ":", "_") }

// Name is what the repository is called here: the host is its first element.
func (r Reference) Name() string { return hostElement(r.Host) + "/" + r.Path }

// Version is the tag, or the digest where there is none.
func (r Reference) Version() string {
	if r.Tag != "" {
		return r.Tag
	}
	return string(r.Digest)
}

// Base is the address of the host's registry: https, but for loopback.
func (r Reference) Base() string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() || host == "localhost" {
		return "http://" + r.Host
	}
	return "https://" + r.Host
}
