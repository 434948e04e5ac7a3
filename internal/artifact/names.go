package artifact

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// separators of the names of Python's projects (PEP 503); constant.
var separators = regexp.MustCompile(`[-_.]+`)

// Normal returns a name in the form in which the registries of its kind take two names
// for one. Where they tell case apart, it is folded nevertheless: people do not.
func Normal(kind, name string) string {
	name = strings.ToLower(norm.NFKC.String(name))
	switch kind {
	case "pypi":
		return separators.ReplaceAllString(name, "-")
	case "cargo":
		return strings.ReplaceAll(name, "_", "-")
	}
	return name
}

// lookalikes fold what PyPI takes for one letter when names are registered: its
// ultranormalize_name; constant.
var lookalikes = strings.NewReplacer("-", "", "_", "", ".", "", "l", "1", "i", "1", "o", "0")

// homoglyphs of Latin letters in other scripts, the letters that look the same in most
// typefaces (Unicode UTS 39, confusables.txt); constant.
var homoglyphs = strings.NewReplacer(
	"а", "a", "е", "e", "о", "o", "р", "p", "с", "c", "у", "y", "х", "x", "і", "i", "ѕ", "s", "ј", "j", "һ", "h", "ԁ", "d", "ԛ", "q", "ԝ", "w", "ӏ", "l",
	"А", "A", "В", "B", "Е", "E", "К", "K", "М", "M", "Н", "H", "О", "O", "Р", "P", "С", "C", "Т", "T", "У", "Y", "Х", "X", "І", "I", "Ѕ", "S", "Ј", "J",
	"ο", "o", "α", "a", "ν", "v", "ι", "i", "κ", "k", "ρ", "p", "υ", "u", "ı", "i", "ɡ", "g", "ɑ", "a", "օ", "o", "ѵ", "v",
	"Α", "A", "Β", "B", "Ε", "E", "Ζ", "Z", "Η", "H", "Ι", "I", "Κ", "K", "Μ", "M", "Ν", "N", "Ο", "O", "Ρ", "P", "Τ", "T", "Υ", "Y", "Χ", "X",
)

// skeleton is the same for two names of a kind that people, or its registries, take for
// one another.
func skeleton(kind, name string) string {
	switch kind {
	case "pypi":
		return lookalikes.Replace(Normal(kind, name))
	case "npm", "cargo", "hf", "ollama", "oci", "helm":
		return Normal(kind, name)
	case "gomod", "maven", "debian":
		return name // they tell case apart, and builds name both
	}
	return homoglyphs.Replace(norm.NFKC.String(name))
}

// registered are the kinds whose registries take names in ASCII alone; constant.
var registered = []string{"pypi", "npm", "cargo", "hf", "ollama", "oci", "helm", "gomod", "maven", "debian"}

// Alike is a reference whose name could be taken for another, and why.
type Alike struct {
	Ref Ref
	Why string
}

// Lookalikes returns those of the references whose names could be taken for others: two
// of one kind that look alike, letters of two scripts in one word, or letters that no
// registry of the kind knows. It is empty where every name means itself.
func Lookalikes(refs []Ref) (out []Alike) {
	type key struct{ kind, form string }
	first := map[key]string{}
	for _, r := range refs {
		switch s, other := skeleton(r.Kind, r.Name), ""; {
		case slices.Contains(registered, r.Kind) && strings.IndexFunc(r.Name, func(c rune) bool { return c > unicode.MaxASCII }) >= 0:
			out = append(out, Alike{r, "no registry of its kind has names with such letters"})
		case mixed(r.Name):
			out = append(out, Alike{r, "its name has letters of two scripts in one word"})
		default:
			if other = first[key{r.Kind, s}]; other == "" {
				first[key{r.Kind, s}] = r.Name
			}
			if other != "" && other != r.Name {
				out = append(out, Alike{r, "its name could be taken for that of " + r.Kind + "/" + other})
			}
		}
	}
	return out
}

// mixed reports whether a word has letters of two of the scripts that look alike.
func mixed(name string) bool {
	for word := range strings.FieldsFuncSeq(name, func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsMark(c) }) {
		scripts := 0
		for _, t := range []*unicode.RangeTable{unicode.Latin, unicode.Cyrillic, unicode.Greek, unicode.Armenian} {
			if strings.IndexFunc(word, func(c rune) bool { return unicode.Is(t, c) }) >= 0 {
				scripts++
			}
		}
		if scripts > 1 {
			return true
		}
	}
	return false
}
