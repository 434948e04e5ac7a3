package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/fail"
)

// The two sides.
const (
	Low  = "low"  // connected: collects and packs
	High = "high" // isolated: imports and serves
)

// maxRecovery is how many recovery recipients a site may have.
const maxRecovery = 4

const identityType = "application/vnd.enisle.identity.v1+json"

// Identity is what one site tells another by hand before the first shipment.
type Identity struct {
	Name      string `json:"name"`
	Side      string `json:"side"`
	Key       Public `json:"key"`
	Recipient string `json:"recipient"` // age recipient, post-quantum hybrid
	// Recovery are further recipients whose keys lie in a safe: what is sealed for the
	// site is sealed for them as well.
	Recovery []string `json:"recovery,omitempty"`
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// CheckName refuses names of sites and people other than up to 40 lower-case
// letters, digits and inner hyphens.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fail.As(fail.Usage, "use lower-case letters, digits and hyphens, at most 40", fmt.Errorf("name %.60q is not usable", name))
	}
	return nil
}

func (id Identity) check() error {
	if id.Side != Low && id.Side != High {
		return fmt.Errorf("identity: side %.20q", id.Side)
	}
	if !strings.HasPrefix(id.Recipient, "age1") || len(id.Recipient) > 4096 {
		return errors.New("identity: has no age recipient")
	}
	if len(id.Recovery) > maxRecovery {
		return fmt.Errorf("identity: has more than %d recovery recipients", maxRecovery)
	}
	for i, r := range id.Recovery {
		if !strings.HasPrefix(r, "age1pq1") || len(r) > 4096 || r == id.Recipient || slices.Contains(id.Recovery[:i], r) {
			return errors.New("identity: a recovery recipient is malformed, or stands twice")
		}
	}
	return errors.Join(CheckName(id.Name), id.Key.Check())
}

// Recipients are all that is sealed for the site is sealed for.
func (id Identity) Recipients() []string { return append([]string{id.Recipient}, id.Recovery...) }

// Fingerprint is for comparing by voice or on paper: 140 bits of a hash over
// all of the identity, as seven groups of four letters and digits (RFC 4648
// base32).
func (id Identity) Fingerprint() string {
	b, _ := json.Marshal(id) // plain strings and bytes; cannot fail
	sum := sha256.Sum256(append([]byte("enisle identity\n"), b...))
	s := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])[:28]
	var groups []string
	for ; s != ""; s = s[4:] {
		groups = append(groups, s[:4])
	}
	return strings.Join(groups, "-")
}

// Encode returns the identity signed by its own key.
func (id Identity) Encode(k *Key) ([]byte, error) { return selfSigned(k, identityType, id) }

// DecodeIdentity reads an identity and checks that its own key signed it. That
// it belongs to whom it says is for people to compare by fingerprint.
func DecodeIdentity(b []byte) (Identity, error) {
	var id Identity
	if len(b) > maxKeyFile {
		return id, errors.New("identity: too large")
	}
	if err := openSelfSigned(bytes.TrimSpace(b), identityType, &id, func() Public { return id.Key }); err != nil {
		return id, fmt.Errorf("identity: %w", err)
	}
	if err := id.check(); err != nil {
		return id, fail.Refuse("take the identity again from 'enisle identity' of the other site", err)
	}
	return id, nil
}

// SameFingerprint compares what a person typed with a fingerprint.
func SameFingerprint(typed, fpr string) bool {
	clean := func(s string) string {
		return strings.ToUpper(strings.NewReplacer("-", "", " ", "", "\n", "", "\t", "").Replace(s))
	}
	return clean(typed) == clean(fpr)
}

func selfSigned(k *Key, payloadType string, v any) ([]byte, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	b, err := Sign(payloadType, payload, k)
	return append(b, '\n'), err
}

// openSelfSigned decodes a payload into v and then verifies that the key which
// it names itself signed it, alone.
func openSelfSigned(b []byte, payloadType string, v any, key func() Public) error {
	b = bytes.TrimSuffix(b, []byte("\n"))
	e, err := Parse(b)
	if err == nil {
		err = decode(e.Payload, v)
	}
	if err != nil {
		return fail.Refuse("make or copy the file again", err)
	}
	_, signers, err := Verify(b, payloadType, func(id string) (Public, error) {
		if k := key(); k.ID() == id {
			return k, k.Check()
		}
		return nil, errors.New("is not the key it is about")
	})
	if err == nil && len(signers) != 1 {
		err = fail.Refuse("make or copy the file again", errors.New("signed more than once"))
	}
	return err
}
