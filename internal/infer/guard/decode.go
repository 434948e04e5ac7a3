package guard

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"html"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What is written in a code that models read is read here as well.

// coded is a text that was found in another.
type coded struct {
	how  string
	text string
}

const minCoded = 16 // characters of a run that may be a code

// Classes of bytes in codes. Constant.
var codeClass = func() (t [256]uint8) {
	for i := range t {
		switch c := byte(i); {
		case c >= 'a' && c <= 'z':
			t[i] = is64
		case c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '-' || c == '_' || c == '=':
			t[i] = is64 | notLow
		}
	}
	return t
}()

const (
	is64   = 1 << iota // of base64, as far as that and hexadecimal go
	notLow             // and no small letter
)

// decode returns what a text holds in codes. It is linear: each byte is in at most one
// run of each kind.
func decode(text string) (out []coded) {
	// A run is no shorter than from one byte that is looked at to the next.
	for i := minCoded - 1; i < len(text); i += minCoded {
		if codeClass[text[i]]&is64 == 0 {
			continue
		}
		start, any := i, uint8(0)
		for start > 0 && codeClass[text[start-1]]&is64 != 0 {
			start--
			any |= codeClass[text[start]]
		}
		for i < len(text) && codeClass[text[i]]&is64 != 0 {
			any |= codeClass[text[i]]
			i++
		}
		if any&notLow != 0 && i-start >= minCoded {
			out = append(out, run(text[start:i])...)
		}
	}
	count := func(any string) (n int) {
		for i := range len(any) {
			n += strings.Count(text, any[i:i+1])
		}
		return n
	}
	if count(`\`) >= 4 {
		out = append(out, whole("escapes", text, unescape(text))...)
	}
	if count("%") >= 4 {
		out = append(out, whole("percent", text, unpercent(text))...)
	}
	if count("&") >= 4 {
		out = append(out, whole("entities", text, html.UnescapeString(text))...)
	}
	if n := count(".-"); n >= 24 && n*4 > len(text) {
		out = append(out, whole("morse", "", unmorse(text))...)
	}
	if n := count("0123456789"); n >= 32 && n*3 > len(text) {
		out = append(out, numbers(text)...)
	}
	return out
}

func whole(how, text, got string) []coded {
	if got == text || !readable([]byte(got)) {
		return nil
	}
	return []coded{{how, got}}
}

// run reads one run of letters and digits.
func run(s string) (out []coded) {
	add := func(how string, b []byte, err error) {
		if err == nil && readable(b) {
			out = append(out, coded{how, string(b)})
		}
	}
	t := strings.TrimRight(s, "=")
	if b, err := hex.DecodeString(t[:len(t)&^1]); err == nil {
		add("hex", b, nil)
		return out
	}
	code := base64.RawStdEncoding
	if strings.ContainsAny(t, "-_") {
		code = base64.RawURLEncoding
	}
	if len(t)%4 == 1 {
		t = t[:len(t)-1]
	}
	b, err := code.DecodeString(t)
	add("base64", b, err)
	if t == strings.ToUpper(t) {
		b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(t)
		add("base32", b, err)
	}
	return out
}

// readable reports whether bytes are text: valid, and mostly letters and spaces.
func readable(b []byte) bool {
	if len(b) < 8 || !utf8.Valid(b) {
		return false
	}
	good := 0
	for _, c := range b {
		switch {
		case c == ' ' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80:
			good++
		case c < ' ' && c != '\n' && c != '\t' && c != '\r':
			return false
		}
	}
	return good*10 >= len(b)*6
}

// unescape reads \n, \xHH, \uHHHH and \u{H}.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 >= len(s) {
			b.WriteByte(s[i])
			continue
		}
		n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[i+1]]
		switch {
		case n > 0 && i+2+n <= len(s):
			if v, err := strconv.ParseUint(s[i+2:i+2+n], 16, 32); err == nil && v <= utf8.MaxRune {
				b.WriteRune(rune(v))
				i += 1 + n
				continue
			}
			b.WriteByte(s[i])
		case s[i+1] == 'n':
			b.WriteByte('\n')
			i++
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// unpercent reads what can be read of %HH, and leaves the rest.
func unpercent(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(v))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// morse is ITU-R M.1677-1, by letter. Constant.
var morse = func() map[string]byte {
	m := map[string]byte{}
	for i, s := range strings.Fields(".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..") {
		m[s] = byte(i) + 'a'
	}
	return m
}()

func unmorse(s string) string {
	b := make([]byte, 0, len(s)/3)
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return r == '/' || r == '|' || r == '\n' }) {
		for _, l := range strings.Fields(w) {
			if c := morse[l]; c != 0 {
				b = append(b, c)
			}
		}
		b = append(b, ' ')
	}
	return string(b)
}

// numbers reads texts spelt as numbers of bytes: in hexadecimal, binary or decimal.
func numbers(s string) (out []coded) {
	fields := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == ':' || r == '[' || r == ']' })
	for _, k := range []struct {
		how  string
		base int
		min  int
		max  int
	}{{"hex", 16, 2, 4}, {"binary", 2, 7, 8}, {"decimal", 10, 2, 3}} {
		b := make([]byte, 0, len(fields))
		for _, f := range fields {
			if k.base == 16 {
				f = strings.TrimPrefix(f, "0x")
			}
			if len(f) < k.min || len(f) > k.max {
				continue
			}
			if v, err := strconv.ParseUint(f, k.base, 8); err == nil {
				b = append(b, byte(v))
			}
		}
		if len(b)*2 > len(fields) {
			out = append(out, whole(k.how, "", string(b))...)
		}
	}
	return out
}
