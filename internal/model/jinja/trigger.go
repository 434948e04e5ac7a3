package jinja

import (
	"regexp"
	"slices"
	"strings"
)

// A template may run no code and still serve somebody: where a message holds a word, or
// from a day on, it tells the model something that nobody sees. Honest templates look
// for marks of their format in messages, such as </think>, and for no words of people.

var (
	plainWords = regexp.MustCompile(`^[\pL\pN][\pL\pN ,.'!?:;-]{2,}$`)
	sentence   = regexp.MustCompile(`(?:[\pL']{2,}[\s,;:-]+){2,}[\pL']{2,}`)
	// halfNames are texts that become a name like __class__ beside another.
	halfNames = regexp.MustCompile(`^__|__$`)
)

// parts of messages that templates do tell apart; constant.
var known = []string{
	"text", "image", "image_url", "video", "audio", "file", "document", "input_text", "output_text", "input_image", "input_audio", "tool", "function", "tool_use", "tool_result",
	"tool_call", "tool_response", "tool_calls", "user", "assistant", "system", "developer", "content", "role", "type", "name", "string", "thinking", "reasoning", "json", "reasoning_content", "True", "False", "true", "false", "none", "None",
}

// trigger returns the word or the date that a condition depends on.
func trigger(t []token) string {
	for len(t) > 0 {
		end := slices.IndexFunc(t, func(k token) bool { return k.kind == name && (k.text == "and" || k.text == "or") })
		if end < 0 {
			end = len(t)
		}
		if w := clause(t[:end]); w != "" {
			return w
		}
		t = t[min(end+1, len(t)):]
	}
	return ""
}

// clause is trigger for one comparison.
func clause(t []token) string {
	content, dated, compares := false, "", false
	for i, k := range t {
		switch {
		case k.kind != operator && slices.Contains([]string{"role", "type", "name", "mime_type"}, k.text):
			return ""
		case k.kind == name && slices.Contains([]string{"strftime_now", "date_string", "now"}, k.text):
			dated = k.text
		case k.kind == operator && slices.Contains([]string{"==", "!=", "<", ">", "<=", ">="}, k.text), k.kind == name && k.text == "in":
			compares = true
		case k.kind != operator && ofPeople(k.text):
			content = true
		case k.kind == name && slices.Contains([]string{"startswith", "endswith", "find", "count", "index"}, k.text) && i > 0 && t[i-1].text == ".":
			compares = true
		}
	}
	if dated != "" && compares {
		return dated
	}
	for i, k := range t {
		subscript := i+1 < len(t) && t[i+1].text == "]" || i > 1 && t[i-1].text == "(" && t[i-2].text == "get"
		if content && compares && k.kind == str && !subscript && plainWords.MatchString(k.text) && !slices.Contains(known, k.text) {
			return k.text
		}
	}
	return ""
}

// ofPeople reports whether a name is one for what a person has written.
func ofPeople(name string) bool {
	if name == "add_generation_prompt" {
		return false
	}
	lower := strings.ToLower(name)
	return strings.Contains(lower, "content") || strings.Contains(lower, "query") || strings.Contains(lower, "prompt")
}

// branch follows the conditions that a part opens and closes, or has in itself.
func (c *checker) branch(p part) {
	t := p.tokens
	last := len(c.triggers) - 1
	switch {
	case p.statement && t[0].text == "if":
		c.triggers = append(c.triggers, trigger(t[1:]))
	case p.statement && t[0].text == "elif" && last >= 0:
		c.triggers[last] = trigger(t[1:])
	case p.statement && t[0].text == "else" && last >= 0:
		c.triggers[last] = ""
	case p.statement && t[0].text == "endif" && last >= 0:
		c.triggers = c.triggers[:last]
	}
	// An expression with a condition of its own: a if b else c.
	if i := slices.IndexFunc(t, func(k token) bool { return k.kind == name && k.text == "if" }); i > 0 && (!p.statement || t[0].text == "set") {
		if w := trigger(t[i+1:]); w != "" {
			for _, k := range t[:i] {
				if k.kind == str {
					c.speaks(w, k.text)
				}
			}
		}
	}
}

// told judges a text by the conditions under which the model is told it.
func (c *checker) told(text string) {
	for _, w := range c.triggers {
		if w != "" {
			c.speaks(w, text)
		}
	}
}

func (c *checker) speaks(word, text string) {
	if sentence.MatchString(text) || link.MatchString(text) || strings.Contains(text, "<script") {
		c.refuse("template-trigger", "where %.60q is so, it tells the model %.80q", word, strings.TrimSpace(text))
	}
}

// halfName reports whether a value is a text that becomes a special name beside
// another.
func halfName(t []token) bool {
	return len(t) == 1 && t[0].kind == str && halfNames.MatchString(t[0].text)
}
