package trust

import (
	"strings"
	"testing"

	"enisle/internal/fail"
)

func TestEnginesThatAreStarted(t *testing.T) {
	good := EngineAddress{Name: "own", Kind: "llama-server", Program: "engine/llama-server", Models: []ServedModel{{Name: "tiny", Artifact: "model/tiny"}}}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(e *EngineAddress)
		want   string
	}{
		"an address as well":              {func(e *EngineAddress) { e.Address = "a:1" }, "has no address"},
		"a kind that is elsewhere":        {func(e *EngineAddress) { e.Kind = "vllm" }, "not started here"},
		"a program that is no engine":     {func(e *EngineAddress) { e.Program = "files/x" }, "is no engine"},
		"two models":                      {func(e *EngineAddress) { e.Models = append(e.Models, ServedModel{Name: "b", Artifact: "model/b"}) }, "serves one model"},
		"a name of its own for the model": {func(e *EngineAddress) { e.Models = []ServedModel{{"tiny", "org/tiny", "model/tiny"}} }, "serves one model"},
		"a task that is not known":        {func(e *EngineAddress) { e.Task = "painting" }, "no task"},
		"less than no memory":             {func(e *EngineAddress) { e.Memory = -1 }, "out of bounds"},
		"memory of one elsewhere":         {func(e *EngineAddress) { e.Program, e.Address, e.Memory = "", "a:1", 1 }, "settings of a program"},
		"neither address nor program":     {func(e *EngineAddress) { e.Program = "" }, "no port"},
	} {
		t.Run(name, func(t *testing.T) {
			e := good
			tc.change(&e)
			if err := e.check(); err == nil || !strings.Contains(err.Error(), tc.want) || fail.HintOf(err) == "" {
				t.Errorf("got %v (hint %q), want %q", err, fail.HintOf(err), tc.want)
			}
		})
	}
	other := good
	other.Memory = 1 << 30
	got := strings.Join(Root{Engines: []EngineAddress{good}}.engineChanges(Root{Engines: []EngineAddress{other}}), "\n")
	if got != "change engine own, llama-server started from engine/llama-server, for tiny (model/tiny)" {
		t.Errorf("got %q", got)
	}
}
