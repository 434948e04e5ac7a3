package guard

import (
	"slices"
	"sync"
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

// asciiFold is what bytes become that stand for themselves, or for a small letter; 0: it
// takes more to tell. Constant.
var asciiFold = func() (t [256]byte) {
	for i := range byte(127) {
		switch {
		case i >= 'A' && i <= 'Z':
			t[i] = i + 'a' - 'A'
		case i >= ' ':
			t[i] = i
		}
	}
	return t
}()

// fold appends to buf, which may be nil. It is linear in the length of text.
func fold(buf []byte, text string) (f folded) {
	f.text = buf[:0]
	for {
		text = text[f.plain(text):]
		if text == "" {
			return f
		}
		if text[0] < utf8.RuneSelf {
			text = text[f.control(text):]
			continue
		}
		text = text[f.others(text):]
	}
}

// others takes the characters beyond ASCII at the beginning of a text, and returns their
// length.
func (f *folded) others(text string) (n int) {
	known := foldOf()
	for n < len(text) && text[n] >= utf8.RuneSelf {
		r, size := utf8.DecodeRuneInString(text[n:])
		switch {
		case int(r) < len(known) && known[r] != 0:
			f.lookalike += int(known[r] >> 31)
			f.text = utf8.AppendRune(f.text, rune(known[r]&^drawnAlike))
		case r >= 0x4E00 && r <= 0x9FFF: // Han, which nothing of this is about
			f.text = append(f.text, text[n:n+size]...)
		default:
			f.wide(r, text[n:n+size])
		}
		n += size
	}
	return n
}

// drawnAlike marks a letter that stands for one of another script.
const drawnAlike = 1 << 31

// foldOf is what characters of the alphabets become, where that is one character; 0: it is
// none, or more. It is made when it is needed. Constant.
var foldOf = sync.OnceValue(func() *[0x3000]uint32 {
	t := new([0x3000]uint32)
	for r := rune(utf8.RuneSelf); int(r) < len(t); r++ {
		f := folded{text: []byte{'a'}} // behind which space is a character as well
		f.wide(r, string(r))
		to, n := utf8.DecodeRune(f.text[1:])
		if n > 0 && n == len(f.text)-1 && to > ' ' && f.invisible == 0 {
			t[r] = uint32(to) | uint32(f.lookalike)<<31
		}
	}
	return t
})

// plain takes what is plain ASCII at the beginning of a text, most of most texts, and
// returns its length. Where words end, no processor foretells: so it does not ask.
func (f *folded) plain(text string) int {
	n := len(f.text)
	f.text = slices.Grow(f.text, len(text))
	out := f.text[n : n+len(text)]
	space := one(n == 0 || f.text[n-1] <= ' ') // another is none
	n = 0
	for i := range len(text) {
		c := asciiFold[text[i]]
		if c == 0 {
			f.text = f.text[:len(f.text)+n]
			return i
		}
		is := one(c == ' ')
		out[n] = c
		n += 1 - is&space
		space = is
	}
	f.text = f.text[:len(f.text)+n]
	return len(text)
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
		if c := asciiFold[r]; c > ' ' {
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
	buf = slices.Grow(buf[:0], len(text))[:len(text)]
	n := 0
	for _, b := range text {
		c := leet[b]
		buf[n] = c
		n += one(c != 0)
	}
	return buf[:n]
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
