package repo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

type blob struct{ *bytes.Reader }

func (blob) Close() error  { return nil }
func (b blob) Size() int64 { return b.Reader.Size() }

// bomb is YAML whose aliases come to a thousand million values.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String()
}

func TestWhatRunsBesideTheWeights(t *testing.T) {
	for name, tc := range map[string]struct {
		kind, path, content string
		rule                string
		sev                 inspect.Severity
	}{
		"a configuration":             {"model", "config.json", `{"architectures":["LlamaForCausalLM"],"vocab_size":32000}`, "", ""},
		"one that names code":         {"hf", "config.json", `{"auto_map":{"AutoModel":"modeling_x.X"}}`, "auto-map", inspect.Warn},
		"one that hides it deep":      {"model", "tokenizer_config.json", `{"a":[{"b":{"auto_map":{"AutoTokenizer":["t.T",null]}}}]}`, "auto-map", inspect.Warn},
		"one that asks for trust":     {"model", "config.json", `{"trust_remote_code":true}`, "auto-map", inspect.Warn},
		"one that does not":           {"model", "config.json", `{"trust_remote_code":false}`, "", ""},
		"a target of Hydra":           {"model", "model_config.json", `{"model":{"_target_":"os.system"}}`, "target", inspect.Refuse},
		"a class of NeMo":             {"model", "model_config.json", `{"_target_":"nemo.collections.asr.modules.ConvASREncoder"}`, "target", inspect.Warn},
		"a target in another file":    {"model", "x/hparams.json", `{"a":[{"_target_":"builtins.eval"}]}`, "target", inspect.Refuse},
		"an escaped target":           {"model", "hparams.json", `{"\u005ftarget_":"os.system"}`, "target", inspect.Refuse},
		"a number of Python":          {"model", "config.json", `{"time_step_limit":[0.0,Infinity]}`, "", ""},
		"depth without end":           {"model", "config.json", strings.Repeat(`{"a":`, 250) + "1" + strings.Repeat("}", 250), "config", inspect.Refuse},
		"a configuration in YAML":     {"model", "model_config.yaml", "a: 1\nencoder:\n  feat_in: 80\n", "", ""},
		"a class in YAML":             {"model", "m.nemo!model_config.yaml", "e:\n  _target_: torch.nn.Linear\n", "target", inspect.Warn},
		"a partial class":             {"model", "m.yaml", "e: {_target_: torch.optim.Adam, _partial_: true}\n", "target", inspect.Warn},
		"a command in YAML":           {"model", "model_config.yml", "e: {_target_: subprocess.Popen, args: [id]}\n", "target", inspect.Refuse},
		"an alias of a command":       {"model", "m.yaml", "x: &x os.system\ny: {_target_: *x}\n", "target", inspect.Refuse},
		"a merged command":            {"model", "m.yaml", "x: &x {_target_: os.system}\ny: {<<: *x}\n", "target", inspect.Refuse},
		"an interpolation":            {"model", "m.yaml", "y: {_target_: \"${x}.system\"}\n", "target", inspect.Refuse},
		"a target that is a list":     {"model", "m.yaml", "y: {_target_: [os, system]}\n", "target", inspect.Refuse},
		"an unknown library":          {"model", "m.yaml", "y: {_target_: evil.lib.Thing}\n", "target", inspect.Refuse},
		"a function of NeMo":          {"model", "m.yaml", "y: {_target_: nemo.utils.run_something}\n", "target", inspect.Refuse},
		"a re-export":                 {"model", "m.yaml", "y: {_target_: nemo.utils.app_state.subprocess.Popen}\n", "target", inspect.Refuse},
		"torch.load":                  {"model", "m.yaml", "y: {_target_: torch.load}\n", "target", inspect.Refuse},
		"torch.hub":                   {"model", "m.yaml", "y: {_target_: torch.hub.load}\n", "target", inspect.Refuse},
		"Hydra's own":                 {"model", "m.yaml", "y: {_target_: hydra.utils.get_method}\n", "target", inspect.Refuse},
		"a dunder":                    {"model", "m.yaml", "y: {_target_: torch.nn.Module.__init__.__globals__}\n", "target", inspect.Refuse},
		"a class of NeMo's own key":   {"model", "m.yaml", "target: nemo.collections.asr.models.EncDecCTCModel\n", "target", inspect.Warn},
		"a command in that key":       {"model", "m.yaml", "target: os.system\n", "target", inspect.Refuse},
		"another use of that key":     {"model", "m.yaml", "target: loudness\ncls: 3\n", "", ""},
		"a tag of Python":             {"model", "m.yaml", "a: !!python/object/apply:os.system [id]\n", "yaml-tag", inspect.Refuse},
		"a tag in another file":       {"model", "hyper.cfg", "a: !!python/object/apply:os.system [id]\n", "yaml-tag", inspect.Refuse},
		"a tag by its whole name":     {"model", "hyper", "a: !<tag:yaml.org,2002:python/object/new:os.x> [id]\n", "yaml-tag", inspect.Refuse},
		"a card that speaks of tags":  {"model", "README.md", "never write !!python/object/apply\n", "", ""},
		"a tag that applies":          {"model", "hyperparams.yaml", "a: !apply:os.system [id]\n", "yaml-tag", inspect.Refuse},
		"a tag that builds":           {"model", "hyperparams.yaml", "a: !new:speechbrain.nnet.RNN.LSTM\n  x: !ref <y>\n", "target", inspect.Warn},
		"a tag that builds a class":   {"model", "hyperparams.yaml", "a: !new:speechbrain.nnet.linear.Linear\n  x: !ref <y>\n", "target", inspect.Warn},
		"no YAML":                     {"model", "m.yaml", "a: [\n", "config", inspect.Refuse},
		"a bomb of aliases":           {"model", "m.yaml", bomb(), "config", inspect.Refuse},
		"YAML of a package":           {"pypi", "m.yaml", "y: {_target_: os.system}\n", "", ""},
		"no JSON":                     {"model", "config.json", `{"a":`, "config", inspect.Refuse},
		"code of Python":              {"model", "modeling_x.py", "import os\n", "custom-code", inspect.Warn},
		"code that starts a program":  {"model", "modeling_x.py", "import os\nos.system('id')\n", "starting-code", inspect.Refuse},
		"the same, imported":          {"model", "x.PY", "from os import path, popen\n", "starting-code", inspect.Refuse},
		"code that runs text":         {"model", "x.py", "x = eval(y)\n", "starting-code", inspect.Refuse},
		"a model in its eval mode":    {"model", "x.py", "model.eval()\nre.compile('x')\ntorch.compile(m)\n# os.system\n", "custom-code", inspect.Warn},
		"code that unpickles":         {"model", "x.py", "import torch, sys\nimport pickle\n", "starting-code", inspect.Refuse},
		"a target in TOML":            {"model", "m.toml", "[model]\n_target_ = \"os.system\"\n", "target", inspect.Refuse},
		"a dotted key of TOML":        {"model", "m.toml", "model.\"_target_\" = 'os.system'\n", "target", inspect.Refuse},
		"an escaped key of TOML":      {"model", "m.toml", "\"\\u005ftarget_\" = 'os.system'\n", "target", inspect.Refuse},
		"a class in TOML":             {"model", "m.toml", "_target_ = \"torch.nn.Linear\"\n", "target", inspect.Warn},
		"a target in JSON5":           {"model", "m.json5", "{ /* x */ _target_: 'builtins.exec', }", "target", inspect.Refuse},
		"a target in capitals":        {"model", "m.ini", "[a]\n_TARGET_: os.system\n", "target", inspect.Refuse},
		"a target in Jsonnet":         {"model", "m.jsonnet", "{ '_target_'+: \"os.system\" }", "target", inspect.Refuse},
		"a key that Jsonnet computes": {"model", "m.jsonnet", "{ ['_tar' + 'get_']: \"os.system\" }", "target", inspect.Refuse},
		"a key that has a name":       {"model", "m.jsonnet", "local t = '_target_'; {[t]: \"os.system\" }", "target", inspect.Refuse},
		"a target that stands twice":  {"model", "m.json", "{\"_target_\":\"os.system\",\"_target_\":\"torch.nn.Linear\"}", "config", inspect.Refuse},
		"a long escape of TOML":       {"model", "m.toml", "\"\\U0000005ftarget_\" = 'os.system'\n", "target", inspect.Refuse},
		"a code that loads a library": {"model", "x.py", "torch.ops.load_library('x')\n", "starting-code", inspect.Refuse},
		"a spaced call":               {"model", "x.py", "os . system('id')\n", "starting-code", inspect.Refuse},
		"a name that is joined":       {"model", "x.py", "import_module('o' + 's')\n", "starting-code", inspect.Refuse},
		"a file that Jsonnet reads":   {"model", "m.jsonnet", "{ a: importstr '/etc/passwd' }", "target", inspect.Refuse},
		"plain Jsonnet":               {"model", "m.jsonnet", "local x = import 'base.libsonnet';\nx + { a: [1, 2], b: 'c' }", "", ""},
		"a registry of spaCy":         {"model", "config.cfg", "[components.tagger.model]\n@architectures = \"spacy.Tagger.v2\"\n", "target", inspect.Warn},
		"another thing by that key":   {"model", "config.cfg", "[a]\n@call = \"os.system\"\n", "target", inspect.Refuse},
		"a text with an address":      {"model", "LICENSE", "write to @somebody = x\n", "", ""},
		"an object of jsonpickle":     {"model", "m.json", "{\"py/reduce\":[{\"py/type\":\"os.system\"}]}", "target", inspect.Refuse},
		"a library":                   {"model", "x/libx.so", "\x7fELF\x02", "native-code", inspect.Refuse},
		"a library by another name":   {"model", "weights.dat", "\x7fELF\x02", "native-code", inspect.Refuse},
		"a program of Windows":        {"hf", "setup.dat", "MZ\x90", "native-code", inspect.Refuse},
		"a class path of Lightning":   {"model", "pipeline.json", `{"class_path":"subprocess.Popen"}`, "target", inspect.Refuse},
		"a program in capitals":       {"model", "SETUP.EXE", "x", "native-code", inspect.Refuse},
		"a script":                    {"model", "run", "#!/bin/sh\nid\n", "native-code", inspect.Refuse},
		"an engine's library":         {"engine", "libggml.so", "\x7fELF\x02", "", ""},
		"a package's code":            {"pypi", "x.py", "import os\n", "", ""},
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
			if tc.rule == "" && len(got) > 0 || tc.rule != "" && (len(got) < 1 || got[0].Rule != tc.rule || got[0].Severity != tc.sev) {
				t.Errorf("%+v, want %s %s", got, tc.sev, tc.rule)
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("a: &x {_target_: os.system}\nb: !new:x.Y {<<: *x}\n"))
	f.Add([]byte(`{"auto_map":{"a":"b"},"_target_":"os.system"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, path := range []string{"m.yaml", "config.json", "x.json"} {
			s := inspect.Subject{Ref: artifact.Ref{Kind: "model", Name: "m"}, Path: path, Size: int64(len(b)), ReaderAt: bytes.NewReader(b), Head: b}
			if New().Wants(s) {
				_ = New().Scan(t.Context(), s, silent{})
			}
		}
	})
}

// silent hears nothing.
type silent struct{}

func (silent) Report(string, inspect.Severity, string)                   {}
func (silent) Note(string, string)                                       {}
func (silent) Descend(context.Context, string, io.ReaderAt, int64) error { return nil }
