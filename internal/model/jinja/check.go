package jinja

import (
	"regexp"
	"slices"
	"strings"
)

// What a chat template may use; constant.
var (
	statements = []string{
		"for", "endfor", "if", "elif", "else", "endif", "set", "endset", "macro", "endmacro", "call", "endcall", "filter", "endfilter",
		"generation", "endgeneration", "break", "continue", "raw", "endraw", "with", "endwith", "block", "endblock", "do",
	}
	filters = []string{
		"abs", "batch", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "forceescape", "groupby", "indent", "int",
		"items", "join", "last", "length", "list", "lower", "map", "max", "min", "pprint", "reject", "rejectattr", "replace", "reverse", "round", "safe",
		"select", "selectattr", "slice", "sort", "string", "striptags", "sum", "title", "tojson", "trim", "truncate", "unique", "upper", "wordcount", "wordwrap",
		"from_json", "fromjson", "strip", "split", "keys", "values",
	}
	globals = []string{"raise_exception", "strftime_now", "range", "namespace", "dict", "caller", "loop", "enumerate", "zip", "len", "str", "int", "bool", "list", "max", "min", "sorted", "tojson", "date_string", "now"}
	methods = []string{
		"strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "replace", "startswith", "endswith", "upper", "lower", "title", "capitalize", "join", "find", "rfind",
		"index", "count", "isdigit", "isalpha", "isalnum", "isspace", "isupper", "islower", "removeprefix", "removesuffix", "partition", "rpartition", "zfill", "ljust", "rjust", "center",
		"items", "keys", "values", "get", "append", "extend", "insert", "pop", "update", "copy", "setdefault", "strftime", "cycle", "changed", "title", "swapcase", "tojson", "isoformat", "reverse", "sort",
	}
	tests = []string{
		"defined", "undefined", "none", "string", "number", "mapping", "iterable", "sequence", "true", "false", "boolean", "integer", "float", "even", "odd",
		"eq", "equalto", "ne", "lt", "le", "gt", "ge", "in", "sameas", "lower", "upper", "divisibleby", "callable", "filter", "test", "escaped", "not",
	}
)

// special are names by which Python objects lead to others.
var special = regexp.MustCompile(`__[A-Za-z]+__|^_+$|\bmro\b|func_globals|gi_frame|gi_code|cr_frame|f_globals|f_builtins|tb_frame|\bf_back\b|\bf_locals\b|\bf_code\b|func_code|ag_frame|co_code`)

var link = regexp.MustCompile(`(?i)\b(https?|ftp|wss?)://[^\s"'<>]+`)

// part judges one part of a template.
func (c *checker) part(p part) {
	if p.tokens == nil {
		c.told(p.text)
		c.words(p.text)
		return
	}
	t := p.tokens
	if p.statement {
		if t[0].kind != name || !slices.Contains(statements, t[0].text) {
			c.refuse("template-reach", "the statement %.40q has no place in a chat template", t[0].text)
			return
		}
	}
	c.branch(p)
	c.lookups(t)
	for i := range t {
		switch t[i].kind {
		case name:
			c.name(t, i, p.statement)
		case str:
			c.told(t[i].text)
			c.text(t, i)
		}
	}
}

// lookups judges what is looked up in brackets: a name that the template puts
// together itself may be any.
func (c *checker) lookups(t []token) {
	if len(t) > 3 && t[0].text == "set" && t[2].text == "=" && (c.computes(t[3:]) || halfName(t[3:])) {
		c.computed[t[1].text] = true
	}
	for i := 1; i < len(t); i++ {
		before := t[i-1]
		subscript := before.kind == name && !keyword(before.text) || before.kind == str || before.text == ")" || before.text == "]"
		if t[i].kind != operator || t[i].text != "[" || !subscript {
			continue
		}
		depth, end := 0, i
		for ; end < len(t); end++ {
			if t[end].kind == operator && t[end].text == "[" {
				depth++
			} else if t[end].kind == operator && t[end].text == "]" {
				if depth--; depth == 0 {
					break
				}
			}
		}
		inside := t[i+1 : min(end, len(t))]
		if c.computes(inside) || before.kind == str && anyName(inside) || c.joins(inside) {
			c.refuse("template-reach", "it looks something up under a name that it puts together")
		}
	}
}

// anyName reports whether what is looked up in a text may be the name of anything: a
// place in it, such as loop.index0, is none.
func anyName(t []token) bool {
	named := slices.ContainsFunc(t, func(k token) bool { return k.kind == name })
	return named && !slices.ContainsFunc(t, func(k token) bool { return k.kind == name && k.text == "loop" || k.text == ":" })
}

// joins reports whether an expression is a text that the template put together, or
// several.
func (c *checker) joins(t []token) bool {
	found := false
	for _, k := range t {
		found = found || k.kind == name && c.computed[k.text]
		if k.kind == operator && k.text != "+" && k.text != "(" && k.text != ")" || k.kind == number {
			return false
		}
	}
	return found
}

// computes reports whether an expression makes a text of others.
func (c *checker) computes(t []token) bool {
	for i, k := range t {
		near := func(j int) bool { return j >= 0 && j < len(t) && t[j].kind == str }
		switch {
		case k.kind == operator && (k.text == "~" || k.text == "%"), k.kind == operator && (k.text == "+" || k.text == "*") && (near(i-1) || near(i+1)):
			return true
		case k.kind == name && slices.Contains([]string{"join", "replace", "reverse", "format", "center", "ljust", "rjust", "string"}, k.text):
			return true
		case k.kind == str && i+1 < len(t) && t[i+1].kind == operator && t[i+1].text == "[":
			return true
		}
	}
	return false
}

// words judges text that goes to the model as it is.
func (c *checker) words(text string) {
	for _, l := range link.FindAllString(text, 10) {
		c.add(false, "template-link", "it holds the link %.100s", l)
	}
}

// text judges a string in an expression.
func (c *checker) text(t []token, i int) {
	s := t[i].text
	looked := i > 1 && t[i-1].text == "(" && slices.Contains([]string{"replace", "split", "rsplit", "strip", "lstrip", "rstrip", "startswith", "endswith"}, t[i-2].text)
	if special.MatchString(s) && !(looked && strings.Trim(s, "_") == "") {
		c.refuse("template-reach", "it holds the name %.60q", s)
	}
	c.words(s)
	// A word that a person may write decides what the model is told.
	if i+2 < len(t) && t[i+1].text == "in" && strings.ContainsAny(s, " ") && !strings.ContainsAny(s, "<>[]{}|") && len(strings.Fields(s)) > 1 {
		c.add(false, "template-trigger", "it does something else where %.60q stands in a text", s)
	}
}

// name judges a name by what stands around it.
func (c *checker) name(t []token, i int, statement bool) {
	n := t[i].text
	before, after := "", ""
	if i > 0 && t[i-1].kind == operator {
		before = t[i-1].text
	}
	if i+1 < len(t) && t[i+1].kind == operator {
		after = t[i+1].text
	}
	isTest := i > 0 && t[i-1].kind == name && (t[i-1].text == "is" || t[i-1].text == "not" && i > 1 && t[i-2].text == "is")
	switch {
	case strings.HasPrefix(n, "_") || special.MatchString(n):
		c.refuse("template-reach", "it uses the name %.60q", n)
	case before == "|":
		if !slices.Contains(filters, n) {
			c.refuse("template-call", "it uses the filter %.40q", n)
		}
	case isTest:
		if !slices.Contains(tests, n) {
			c.refuse("template-call", "it uses the test %.40q", n)
		}
	case after != "(":
		if before != "." && slices.Contains([]string{"lipsum", "cycler", "joiner", "self", "config", "request", "url_for", "get_flashed_messages"}, n) {
			c.refuse("template-reach", "it uses %.40q, which leads to Python's own", n)
		}
	case before == ".":
		if !slices.Contains(methods, n) {
			c.refuse("template-call", "it calls the method %.40q", n)
		}
	case statement && i == 1 && t[0].text == "macro", slices.Contains(globals, n), c.macros[n], keyword(n):
	default:
		c.refuse("template-call", "it calls %.40q", n)
	}
}

// keyword reports whether a name before a parenthesis is no call.
func keyword(n string) bool {
	return slices.Contains([]string{"if", "elif", "in", "and", "or", "not", "is", "else", "for", "set", "call"}, n)
}
