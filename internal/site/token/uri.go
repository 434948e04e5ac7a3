// Package token signs with keys that never leave a PKCS#11 token: a smart card, a
// hardware security module. It is built with -tags pkcs11, which needs cgo; without,
// every token is refused with a hint.
//
// Keys are ECDSA P-384, which every token knows. A key is named by a URI (RFC
// 7512) such as pkcs11:token=signing;object=alice?module-path=/usr/lib/module.so.
package token

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"enisle/internal/fail"
)

// Scheme begins the name of a key in a token.
const Scheme = "pkcs11:"

// ModuleVariable names the environment variable with the module of URIs that
// name none.
const ModuleVariable = "ENISLE_PKCS11_MODULE"

// Is reports whether a key is named as one in a token.
func Is(key string) bool { return strings.HasPrefix(key, Scheme) }

// address is where a key is.
type address struct{ module, token, serial, object string }

// parse reads a URI. Attributes that are not known are refused: they may narrow
// down what is meant. A PIN in it is refused as well: command lines are public.
func parse(uri string) (a address, err error) {
	bad := func(err error) error {
		return fail.As(fail.Usage, "write pkcs11:token=LABEL;object=LABEL?module-path=FILE, or set "+ModuleVariable, err)
	}
	path, query, _ := strings.Cut(strings.TrimPrefix(uri, Scheme), "?")
	fields := strings.FieldsFunc(path, func(r rune) bool { return r == ';' })
	fields = append(fields, strings.FieldsFunc(query, func(r rune) bool { return r == '&' })...)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		if value, err = url.PathUnescape(value); err != nil {
			return a, bad(err)
		}
		switch name {
		case "token":
			a.token = value
		case "serial":
			a.serial = value
		case "object":
			a.object = value
		case "module-path":
			a.module = value
		case "type":
			if value != "private" {
				return a, bad(errors.New("only private keys sign"))
			}
		default:
			return a, bad(fmt.Errorf("attribute %.40q is not understood", name))
		}
	}
	if a.module == "" {
		a.module = os.Getenv(ModuleVariable)
	}
	if (a.token == "") == (a.serial == "") || a.object == "" || a.module == "" {
		return a, bad(errors.New("it names no module, no object, or not one token by label or serial"))
	}
	return a, nil
}
