package token

import (
	"strings"
	"testing"
)

func TestURIs(t *testing.T) {
	t.Setenv(ModuleVariable, "")
	a, err := parse("pkcs11:token=my%20token;object=alice?module-path=/usr/lib/m.so")
	if err != nil || a.token != "my token" || a.object != "alice" || a.module != "/usr/lib/m.so" {
		t.Errorf("%+v, %v", a, err)
	}
	for uri, want := range map[string]string{
		"pkcs11:token=a;object=b":                              "names no module",
		"pkcs11:object=b?module-path=/m":                       "not one token",
		"pkcs11:token=a;serial=1;object=b?module-path=/m":      "not one token",
		"pkcs11:token=a?module-path=/m":                        "no object",
		"pkcs11:token=a;object=b?module-path=/m&pin-value=123": "pin-value",
		"pkcs11:token=%zz;object=b?module-path=/m":             "invalid URL escape",
		"pkcs11:token=a;object=b;type=cert?module-path=/m":     "only private keys",
	} {
		if _, err := parse(uri); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", uri, err, want)
		}
	}
}

func TestWrappedSecretsAreInTheirForm(t *testing.T) {
	for _, bad := range []string{"", "{}", `{"format":"enisle-wrapped/2"}`, `{"format":"enisle-wrapped/1","key":"pkcs11:x","nonce":"AAAA","secret":"AAAA"}`, `{"x":1}`} {
		if _, err := parseWrapped([]byte(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
