package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/site"
)

// The files of an authority for a mirror that answers for other hosts.
const (
	AuthorityFile = "ca.pem"     // what clients trust
	authorityKey  = "ca.key"     // what issues; keep it off the mirror
	MirrorCert    = "mirror.pem" // what serve presents
	MirrorKey     = "mirror.key"
)

const (
	authorityYears = 5
	mirrorDays     = 398 // what clients accept at most of any certificate
)

// Authority says what was made.
type Authority struct {
	Directory string    `json:"directory"`
	Hosts     []string  `json:"hosts"` // the names that the mirror's certificate is for
	New       bool      `json:"new"`   // the authority is new: clients must be told
	Expires   time.Time `json:"expires"`
}

// MakeAuthority makes, in a directory, a certificate for the hosts that a channel's
// artifacts came from and for names of one's own, and the authority that vouches for
// it. The authority is constrained to these names: whoever has its key can vouch for
// nothing else. One that is there already, and may vouch for them, is used again.
func (a *App) MakeAuthority(ctx context.Context, channel, dir string, own []string) (out Authority, err error) {
	err = a.read(ctx, func(s *site.Site) error {
		v, err := crossing.ServedBy(ctx, s, channel)
		if err != nil {
			return err
		}
		out.Hosts = impersonatedHosts(&v, a.ecosystems(nil, nil))
		out.Hosts = append(out.Hosts, own...)
		slices.Sort(out.Hosts)
		out.Hosts = slices.Compact(out.Hosts)
		out.Directory = dir
		return out.make(s.Identity.Name, s.Now())
	})
	return out, err
}

func (o *Authority) make(name string, now time.Time) error {
	if len(o.Hosts) == 0 {
		return fail.As(fail.Usage, "name the mirror with --host", errors.New("nothing that is served came from a host"))
	}
	if err := os.MkdirAll(o.Directory, 0o755); err != nil {
		return err
	}
	ca, key, err := readAuthority(o.Directory)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if ca, key, err = o.newAuthority(name, now); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t, err := certificate("mirror of "+name, now, now.AddDate(0, 0, mirrorDays))
	if err != nil {
		return err
	}
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range o.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	if t.NotAfter.After(ca.NotAfter) {
		t.NotAfter = ca.NotAfter
	}
	o.Expires = t.NotAfter
	der, err := x509.CreateCertificate(rand.Reader, t, ca, leaf.Public(), key)
	if err != nil {
		return err
	}
	if err := verifies(der, ca, o.Hosts, now); err != nil {
		return fail.Refuse("make a new authority in another directory, and tell clients to trust that", fmt.Errorf("the authority in %s may not vouch for all of it: %w", o.Directory, err))
	}
	return errors.Join(writeKey(filepath.Join(o.Directory, MirrorKey), leaf), writePEM(filepath.Join(o.Directory, MirrorCert), "CERTIFICATE", der, 0o644))
}

func certificate(name string, from, to time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: from.Add(-time.Hour), NotAfter: to, BasicConstraintsValid: true,
	}, err
}

// newAuthority makes an authority that may vouch for the hosts and nothing else.
func (o *Authority) newAuthority(name string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t, err := certificate("mirror authority of "+name, now, now.AddDate(authorityYears, 0, 0))
	if err != nil {
		return nil, nil, err
	}
	t.IsCA, t.MaxPathLenZero, t.KeyUsage, t.PermittedDNSDomainsCritical = true, true, x509.KeyUsageCertSign, true
	for _, h := range o.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			bits := 8 * len(ip.To16())
			if four := ip.To4(); four != nil {
				ip, bits = four, 32
			}
			t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)})
		} else {
			t.PermittedDNSDomains = append(t.PermittedDNSDomains, h)
		}
	}
	if len(t.PermittedIPRanges) == 0 { // otherwise every address would be allowed
		_, all4, _ := net.ParseCIDR("0.0.0.0/0") // constants; cannot fail
		_, all6, _ := net.ParseCIDR("::/0")
		t.ExcludedIPRanges = []*net.IPNet{all4, all6}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	o.New = true
	return ca, key, errors.Join(writeKey(filepath.Join(o.Directory, authorityKey), key), writePEM(filepath.Join(o.Directory, AuthorityFile), "CERTIFICATE", der, 0o644))
}

func readAuthority(dir string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	var blocks [2][]byte
	for i, name := range []string{AuthorityFile, authorityKey} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, nil, err
		}
		p, _ := pem.Decode(b)
		if p == nil {
			return nil, nil, fail.As(fail.Failed, "use another directory", fmt.Errorf("%s: no PEM", name))
		}
		blocks[i] = p.Bytes
	}
	ca, err := x509.ParseCertificate(blocks[0])
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParseECPrivateKey(blocks[1])
	return ca, key, err
}

// verifies holds a certificate against its authority, for every name.
func verifies(der []byte, ca *x509.Certificate, hosts []string, now time.Time) error {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	for _, h := range hosts {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: h, CurrentTime: now}); err != nil {
			return err
		}
	}
	return nil
}

func writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(name, "EC PRIVATE KEY", der, 0o600)
}

// writePEM replaces a file in one step.
func writePEM(name, kind string, der []byte, mode fs.FileMode) error {
	if err := os.WriteFile(name+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// HostsFile is lines for /etc/hosts that lead the names to an address.
func (o Authority) HostsFile(address string) string {
	var b strings.Builder
	for _, h := range o.Hosts {
		if net.ParseIP(h) == nil {
			fmt.Fprintf(&b, "%s %s\n", address, h)
		}
	}
	return b.String()
}
