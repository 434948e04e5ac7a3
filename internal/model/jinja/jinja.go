// Package jinja reads chat templates as Jinja does, far enough to say what in them
// reaches beyond the conversation. It renders nothing.
//
// A template decides what a model is told, and engines run it: some in a sandbox,
// some once did not. What is refused here has no use in a chat template, and is how
// such sandboxes were left. Syntax: Jinja 3, the documentation for template designers.
package jinja

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Concern is something to know about a template.
type Concern struct {
	Refuse bool   // it has no place in a chat template; otherwise people should read it
	Rule   string // template-syntax, template-reach, template-call, template-link, template-trigger
	Detail string
}

const maxTemplate = 1 << 20 // bytes

type kind uint8

const (
	name kind = iota
	str
	number
	operator
)

type token struct {
	kind kind
	text string
}

// checker is the reading of one template.
type checker struct {
	out    []Concern
	macros map[string]bool
	// computed are variables that hold a text which the template put together.
	computed map[string]bool
	// triggers are the conditions that are open, innermost last: the word that a person
	// may write, or the date, on which one depends; "" for all other conditions.
	triggers []string
}

// Check reads a template and returns what is to be known about it, each once.
func Check(template string) []Concern {
	c := &checker{macros: map[string]bool{}, computed: map[string]bool{}}
	if len(template) > maxTemplate {
		c.refuse("template-syntax", "it has %d bytes", len(template))
		return c.out
	}
	parts, err := split(template)
	if err != nil {
		c.refuse("template-syntax", "%v", err)
		return c.out
	}
	for _, p := range parts {
		if p.statement && len(p.tokens) > 1 && p.tokens[0].text == "macro" {
			c.macros[p.tokens[1].text] = true
		}
	}
	for _, p := range parts {
		c.part(p)
	}
	return c.out
}

func (c *checker) add(refuse bool, rule, format string, args ...any) {
	n := Concern{refuse, rule, fmt.Sprintf(format, args...)}
	if !slices.Contains(c.out, n) && len(c.out) < 100 {
		c.out = append(c.out, n)
	}
}

func (c *checker) refuse(rule, format string, args ...any) { c.add(true, rule, format, args...) }

// part is text, or what stands between two delimiters.
type part struct {
	text      string
	statement bool // {% %}
	tokens    []token
}

// split cuts a template at its delimiters.
func split(t string) (parts []part, err error) {
	for len(t) > 0 {
		i := strings.IndexByte(t, '{')
		for i >= 0 && (i+1 == len(t) || !strings.ContainsRune("{%#", rune(t[i+1]))) {
			n := strings.IndexByte(t[i+1:], '{')
			if n < 0 {
				i = -1
				break
			}
			i += 1 + n
		}
		if i < 0 {
			return append(parts, part{text: t}), nil
		}
		parts = append(parts, part{text: t[:i]})
		var p part
		if p, t, err = delimited(t[i:]); err != nil {
			return nil, err
		}
		parts = append(parts, p)
		if p.statement && len(p.tokens) == 1 && p.tokens[0].text == "raw" {
			end := regexp.MustCompile(`\{%[-+]?\s*endraw\s*[-+]?%\}`).FindStringIndex(t)
			if end == nil {
				return nil, fmt.Errorf("a raw part does not end")
			}
			parts = append(parts, part{text: t[:end[0]]})
			t = t[end[1]:]
		}
	}
	return parts, nil
}

// delimited reads from an opening delimiter to its end.
func delimited(t string) (p part, rest string, err error) {
	if t[1] == '#' {
		end := strings.Index(t, "#}")
		if end < 0 {
			return p, "", fmt.Errorf("a comment does not end")
		}
		return p, t[end+2:], nil
	}
	p.statement = t[1] == '%'
	closing := map[bool]string{true: "%}", false: "}}"}[p.statement]
	s := strings.TrimLeft(t[2:], "-+")
	depth := 0
	for {
		s = strings.TrimLeft(s, " \t\r\n")
		switch {
		case s == "":
			return p, "", fmt.Errorf("a block does not end: %.40q", t)
		case depth == 0 && strings.HasPrefix(strings.TrimLeft(s, "-+"), closing) && len(s)-len(strings.TrimLeft(s, "-+")) <= 1:
			return p, strings.TrimLeft(s, "-+")[2:], nil
		}
		var k token
		if k, s, err = next(s); err != nil {
			return p, "", err
		}
		switch k.text {
		case "(", "[", "{":
			if k.kind == operator {
				depth++
			}
		case ")", "]", "}":
			if k.kind == operator {
				depth--
			}
		}
		p.tokens = append(p.tokens, k)
	}
}

var (
	nameStart   = regexp.MustCompile(`^[\pL_][\pL\pN_]*`)
	numberStart = regexp.MustCompile(`^\d[\d_]*(\.\d+)?([eE][+-]?\d+)?`)
)

// next takes one token off an expression.
func next(s string) (token, string, error) {
	if m := nameStart.FindString(s); m != "" {
		return token{name, m}, s[len(m):], nil
	}
	if m := numberStart.FindString(s); m != "" {
		return token{number, m}, s[len(m):], nil
	}
	if s[0] == '\'' || s[0] == '"' {
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case s[0]:
				return token{str, unescape(s[1:i])}, s[i+1:], nil
			}
		}
		return token{}, "", fmt.Errorf("a string does not end: %.40q", s)
	}
	for _, op := range []string{"**", "//", "==", "!=", ">=", "<="} {
		if strings.HasPrefix(s, op) {
			return token{operator, op}, s[2:], nil
		}
	}
	if strings.IndexByte("+-*/%~()[]{}.,:|=<>;", s[0]) < 0 {
		return token{}, "", fmt.Errorf("unexpected character in %.20q", s)
	}
	return token{operator, s[:1]}, s[1:], nil
}

var escapes = regexp.MustCompile(`\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)`)

// unescape decodes the escapes of a string, as Python does.
func unescape(s string) string {
	return escapes.ReplaceAllStringFunc(s, func(e string) string {
		var r rune
		switch {
		case strings.IndexByte("xuU", e[1]) >= 0 && len(e) > 2:
			_, _ = fmt.Sscanf(e[2:], "%x", &r)
			return string(r)
		case e[1] >= '0' && e[1] <= '7':
			_, _ = fmt.Sscanf(e[1:], "%o", &r)
			return string(r)
		case e[1] == 'n':
			return "\n"
		case e[1] == 't':
			return "\t"
		}
		return e[1:]
	})
}
