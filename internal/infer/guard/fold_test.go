package guard

import (
	"bytes"
	"testing"
	"unicode/utf8"
)

// What is looked up of a character is what is found when it is looked at.
func TestCharactersAreFoldedAsTheyAre(t *testing.T) {
	for r := rune(utf8.RuneSelf); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		s := string(r)
		known, looked := folded{text: []byte{'a'}}, folded{text: []byte{'a'}}
		if n := known.others(s); n != len(s) {
			t.Fatalf("%U: %d of %d bytes", r, n, len(s))
		}
		looked.wide(r, s)
		if !bytes.Equal(known.text, looked.text) || known.lookalike != looked.lookalike || known.invisible != looked.invisible || !bytes.Equal(known.hidden, looked.hidden) {
			t.Fatalf("%U: %+v, and looked at %+v", r, known, looked)
		}
	}
}

func TestPlainTextIsFolded(t *testing.T) {
	for text, want := range map[string]string{
		"Two  Keys": "two keys", " a": "a", "a \n b": "a\nb", "a\n  b": "a\nb", "A\tb\t\tc ": "a b c ", "é  É": "e e", "a\u00a0 b": "a b", "a\x1b[31mb": "ab", "  ": "", "\n \n": "", "a\x7f b": "a b",
	} {
		if got := fold([]byte("old"), text).text; string(got) != want {
			t.Errorf("%q is folded to %q, want %q", text, got, want)
		}
	}
}

func BenchmarkFold(b *testing.B) {
	for name, text := range map[string]string{"Latin": "Who may cross the bridge? ", "German": "Wer darf über die Brücke? ", "Cyrillic": "Кому можно перейти мост? ", "Han": "谁可以过桥？"} {
		all := bytes.Repeat([]byte(text), 100)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(all)))
			var buf []byte
			for b.Loop() {
				buf = fold(buf, string(all)).text
			}
		})
	}
}
