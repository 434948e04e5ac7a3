package tree

import (
	"fmt"
	"strings"
	"testing"
)

func TestJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":[1,{"b":null}],"c":"x"}`:     "map[a:[1 map[b:<nil>]] c:x]",
		`{"a":1,"a":2}`:                    "stands twice",
		`{"a":1,"\u0061":2}`:               "stands twice",
		`{} {}`:                            "behind its end",
		`{"a":[NaN,-Infinity,"NaN\"NaN"]}`: `map[a:[0 -0 NaN"NaN]]`,
		`{"a":NaNa}`:                       "invalid",
		"\xff\xfe{\x00}\x00":               "UTF-8",
		`{"a":`:                            "EOF",
		strings.Repeat("[", 300) + strings.Repeat("]", 300): "nest deeper",
	} {
		v, err := JSON([]byte(in))
		got := fmt.Sprint(v)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%.40s: %s, want %s", in, got, want)
		}
	}
}

func TestYAML(t *testing.T) {
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 9; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), i-1)
	}
	for in, want := range map[string]string{
		"a: 1\nb: [x, {c: d}]\n":                                      "[map[a:1 b:[x map[c:d]]]] []",
		"--- {a: 1}\n--- {b: 2}\n":                                    "[map[a:1] map[b:2]] []",
		"a: !!python/object/apply:os.system [x]":                      "[map[a:[x]]] [!!python/object/apply:os.system]",
		"%TAG ! tag:yaml.org,2002:\n---\na: !python/name:os.system x": "[!!python/name:os.system]",
		"a: !mine x":            "[!mine]",
		"a: &x {b: 1}\nc: *x\n": "[map[a:map[b:1] c:map[b:1]]] []",
		"a: 1\na: 2\n":          "twice",
		"a: &x [*x]\n":          "deeper",
		bomb:                    "more than",
	} {
		var tags []string
		v, err := YAML([]byte(in), func(tag string) { tags = append(tags, tag) })
		got := fmt.Sprint(v, tags)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%.60s: %.200s, want %s", in, got, want)
		}
	}
}

func TestWalkSeesEveryObject(t *testing.T) {
	v, err := JSON([]byte(`{"a":[{"b":{}}],"c":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	Walk(v, func(path string, _ Map) bool { got = append(got, path); return true })
	if fmt.Sprint(got) != "[ a.0 a.0.b c]" {
		t.Errorf("%q", got)
	}
}

func FuzzYAML(f *testing.F) {
	f.Add([]byte("a: &x {b: !t 1}\nc: *x\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = YAML(b, func(string) {})
		_, _ = JSON(b)
	})
}
