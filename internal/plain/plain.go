// Package plain makes text of strangers safe to print on a terminal: names on
// media, answers of models and errors of peers may hold escape sequences that
// clear a line, forge another or turn the direction of writing.
package plain

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"
)

// Line returns s on one line, with everything that is not printable as a Go
// escape.
func Line(s string) string { return escape(s, "") }

// Text is Line that keeps line ends and tabs.
func Text(s string) string { return escape(s, "\n\t") }

func escape(s, keep string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case strings.ContainsRune(keep, r):
			b.WriteRune(r)
		case r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], string(r)):
			fmt.Fprintf(&b, `\x%02x`, s[i]) // not UTF-8
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// Args returns the arguments of a format with every text in them as a Line.
func Args(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = a
		switch v := a.(type) {
		case error:
			out[i] = Line(v.Error())
		case fmt.Stringer:
			out[i] = Line(v.String())
		default:
			if r := reflect.ValueOf(a); r.IsValid() && r.Kind() == reflect.String {
				out[i] = Line(r.String())
			}
		}
	}
	return out
}
