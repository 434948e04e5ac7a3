package guard

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// folded is a text as rules and classifier read it: compatibility forms, accents, letter
// case, look-alikes, invisible characters and escapes of terminals are gone, and a run
// of white space is one space, or one newline if it has any. What is lost is counted.
type folded struct {
	text      []byte
	invisible int    // characters that nobody sees
	lookalike int    // letters that stand for Latin ones of another script
	escapes   int    // sequences that steer a terminal
	hidden    []byte // what invisible characters spell
}

// Classes of ASCII for folding. Constant.
var asciiFold = func() (t [128]byte) {
	for i := range t {
		switch {
		case i >= 'A' && i <= 'Z':
			t[i] = byte(i) + 'a' - 'A'
		case i >= '!' && i < 127:
			t[i] = byte(i)
		}
	}
	return t
}()

// fold appends to buf, which may be nil. It is linear in the length of text.
func fold(buf []byte, text string) (f folded) {
	f.text = buf[:0]
	if cap(f.text) < len(text) {
		f.text = make([]byte, 0, len(text)+16)
	}
	for i := 0; i < len(text); {
		b := text[i]
		if b < utf8.RuneSelf {
			if c := asciiFold[b]; c != 0 {
				f.text = append(f.text, c)
				i++
				continue
			}
			i += f.control(text[i:])
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		f.wide(r, text[i:i+n])
		i += n
	}
	return f
}

// control takes white space, or a control character, and returns its length.
func (f *folded) control(s string) int {
	switch s[0] {
	case ' ', '\t':
		f.space(' ')
	case '\n', '\r', '\v', '\f':
		f.space('\n')
	case 0x1b:
		f.escapes++
		return escapeLength(s)
	default:
		f.invisible++
	}
	return 1
}

func (f *folded) space(b byte) {
	n := len(f.text)
	switch {
	case n == 0 || f.text[n-1] == '\n':
	case f.text[n-1] == ' ':
		f.text[n-1] = max(' ', b)
		if b == '\n' {
			f.text[n-1] = b
		}
	default:
		f.text = append(f.text, b)
	}
}

// escapeLength is how long an escape of a terminal is (ECMA-48), at most 64 bytes.
func escapeLength(s string) int {
	if len(s) < 2 || s[1] != '[' && s[1] != ']' {
		return min(len(s), 2)
	}
	for i := 2; i < min(len(s), 64); i++ {
		if c := s[i]; s[1] == '[' && c >= '@' && c <= '~' || s[1] == ']' && c == 7 {
			return i + 1
		}
	}
	return 2
}

// wide takes one character beyond ASCII.
func (f *folded) wide(r rune, s string) {
	switch {
	case r == utf8.RuneError || r == 0x85 || r == 0x2028 || r == 0x2029:
		f.space('\n')
	case r >= 0xE0020 && r < 0xE007F: // tags, which spell ASCII
		f.invisible++
		f.hidden = append(f.hidden, byte(r-0xE0000))
	case r >= 0xE0100 && r <= 0xE01EF: // variation selectors, which can spell bytes
		f.invisible++
		f.hidden = append(f.hidden, byte(r-0xE0100+16))
	case unicode.Is(unicode.Cf, r) || r == 0x115F || r == 0x1160 || r == 0x3164 || r == 0xFFA0 || r >= 0xFE00 && r <= 0xFE0F || r >= 0xE0000 && r < 0xE1000:
		if r != 0x200D && r != 0xFE0F && r != 0x200C { // as in emoji, and in scripts that join letters
			f.invisible++
		}
	case unicode.IsSpace(r) || unicode.Is(unicode.Zs, r) || r == 0x2800:
		f.space(' ')
	default:
		if d := norm.NFKD.PropertiesString(s).Decomposition(); d != nil {
			for len(d) > 0 {
				r, n := utf8.DecodeRune(d)
				f.letter(r)
				d = d[n:]
			}
			return
		}
		f.letter(r)
	}
}

func (f *folded) letter(r rune) {
	if r < utf8.RuneSelf {
		if c := asciiFold[r]; c != 0 {
			f.text = append(f.text, c)
		} else {
			f.space(' ')
		}
		return
	}
	if unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r) {
		return
	}
	r = unicode.ToLower(r)
	if l := latin(r); l != 0 {
		f.lookalike++
		f.text = append(f.text, l)
		return
	}
	f.text = utf8.AppendRune(f.text, r)
}

// squeeze appends the letters of a folded text alone, digits and signs that stand for
// letters read as them: what is left of "1 g-n_0 r 3".
func squeeze(buf, text []byte) []byte {
	buf = buf[:0]
	for _, b := range text {
		if c := leet[b]; c != 0 {
			buf = append(buf, c)
		}
	}
	return buf
}

// leet is what stands for which letter. Constant.
var leet = func() (t [256]byte) {
	for c := 'a'; c <= 'z'; c++ {
		t[c] = byte(c)
	}
	for i := 128; i < 256; i++ {
		t[i] = byte(i)
	}
	for i, c := range "0134578@$!|" {
		t[c] = "oieastbasil"[i]
	}
	return t
}()
