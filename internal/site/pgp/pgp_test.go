package pgp

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

func TestClearsign(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	text := []byte("Origin: enisle\n- a line with a dash\nSHA256:\n abc 1 x\n")
	sign := func(secret []byte) (public, signed []byte) {
		k, err := New(secret, "island")
		if err != nil {
			t.Fatal(err)
		}
		if public, err = k.Public(); err != nil {
			t.Fatal(err)
		}
		if signed, err = k.Clearsign(text, at); err != nil {
			t.Fatal(err)
		}
		return public, signed
	}
	public, signed := sign(secret)
	again, signedAgain := sign(secret)
	if !bytes.Equal(public, again) || !bytes.Equal(signed, signedAgain) {
		t.Error("the same secret gives another key or signature")
	}
	other, _ := sign(bytes.Repeat([]byte{8}, 32))
	check := func(public, signed []byte) error {
		ring, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(public))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := clearsign.Decode(signed)
		if block == nil {
			t.Fatal("no signed text")
		}
		if !bytes.Equal(bytes.TrimRight(block.Plaintext, "\n"), bytes.TrimRight(text, "\n")) {
			t.Errorf("signed %q", block.Plaintext)
		}
		_, err = block.VerifySignature(ring, nil)
		return err
	}
	if err := check(public, signed); err != nil {
		t.Error(err)
	}
	if check(other, signed) == nil {
		t.Error("another key verifies it")
	}
	if _, err := New([]byte("short"), "x"); err == nil {
		t.Error("a short secret was taken")
	}
	gpgv, err := exec.LookPath("gpgv")
	if err != nil {
		t.Skip("gpgv is not installed")
	}
	dir := t.TempDir()
	for name, b := range map[string][]byte{"key.asc": public, "text": signed} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Skip("gpg is not installed")
	}
	ring := filepath.Join(dir, "ring.gpg")
	if out, err := exec.Command(gpg, "--homedir", dir, "--batch", "--output", ring, "--dearmor", filepath.Join(dir, "key.asc")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command(gpgv, "--keyring", ring, filepath.Join(dir, "text")).CombinedOutput(); err != nil {
		t.Errorf("gpgv: %v: %s", err, out)
	}
}
