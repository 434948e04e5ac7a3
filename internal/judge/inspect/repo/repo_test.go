package repo

import (
	"bytes"
	"context"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

type blob struct{ *bytes.Reader }

func (blob) Close() error  { return nil }
func (b blob) Size() int64 { return b.Reader.Size() }

func TestWhatRunsBesideTheWeights(t *testing.T) {
	for name, tc := range map[string]struct {
		kind, path, content string
		rule                string
		sev                 inspect.Severity
	}{
		"a configuration":           {"model", "config.json", `{"architectures":["LlamaForCausalLM"],"vocab_size":32000}`, "", ""},
		"one that names code":       {"hf", "config.json", `{"auto_map":{"AutoModel":"modeling_x.X"}}`, "auto-map", inspect.Warn},
		"one that hides it deep":    {"model", "tokenizer_config.json", `{"a":[{"b":{"auto_map":{"AutoTokenizer":["t.T",null]}}}]}`, "auto-map", inspect.Warn},
		"one that asks for trust":   {"model", "config.json", `{"trust_remote_code":true}`, "auto-map", inspect.Warn},
		"one that does not":         {"model", "config.json", `{"trust_remote_code":false}`, "", ""},
		"a target of Hydra":         {"model", "model_config.json", `{"model":{"_target_":"os.system"}}`, "auto-map", inspect.Warn},
		"no JSON":                   {"model", "config.json", `{"a":`, "config", inspect.Refuse},
		"code of Python":            {"model", "modeling_x.py", "import os\n", "custom-code", inspect.Warn},
		"a library":                 {"model", "x/libx.so", "\x7fELF\x02", "native-code", inspect.Refuse},
		"a library by another name": {"model", "weights.dat", "\x7fELF\x02", "native-code", inspect.Refuse},
		"a program of Windows":      {"hf", "setup.dat", "MZ\x90", "native-code", inspect.Refuse},
		"a script":                  {"model", "run", "#!/bin/sh\nid\n", "native-code", inspect.Refuse},
		"an engine's library":       {"engine", "libggml.so", "\x7fELF\x02", "", ""},
		"a package's code":          {"pypi", "x.py", "import os\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := inspect.Runner{Scanners: []inspect.Scanner{New()}}
			a := artifact.Artifact{Ref: artifact.Ref{Kind: tc.kind, Name: "m"}, Files: []artifact.File{{Path: tc.path, Size: int64(len(tc.content)), Digest: artifact.Sum([]byte(tc.content))}}}
			rep, err := r.Inspect(context.Background(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) {
				return blob{bytes.NewReader([]byte(tc.content))}, nil
			}, func(int64) {})
			if err != nil {
				t.Fatal(err)
			}
			var got []inspect.Finding
			for _, f := range rep.Findings {
				if f.Scanner == "repo" {
					got = append(got, f)
				}
			}
			if tc.rule == "" && len(got) > 0 || tc.rule != "" && (len(got) != 1 || got[0].Rule != tc.rule || got[0].Severity != tc.sev) {
				t.Errorf("%+v, want %s %s", got, tc.sev, tc.rule)
			}
		})
	}
}
