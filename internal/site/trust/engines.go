package trust

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"enisle/internal/fail"
)

// EngineAddress is an engine beside the embedded one, as two admins allow it. It runs
// elsewhere, at an address, and what serves can have connections to no other; or what
// serves starts its program as a confined child.
type EngineAddress struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`               // vllm, ollama, tgi, llama-server
	Address  string `json:"address,omitempty"`  // HOST:PORT, or unix:/PATH; empty: Program is started
	CA       string `json:"ca,omitempty"`       // PEM; with it the engine is spoken to by TLS
	Parallel int    `json:"parallel,omitempty"` // calls that it works on at a time; 0: as usual for its kind
	// For is the tenant whose calls an engine gets that keeps tenants' prompts apart in
	// no way: a user or a project; "*" accepts that they are not kept apart.
	For     string        `json:"for,omitempty"`
	Models  []ServedModel `json:"models"`
	Program string        `json:"program,omitempty"` // reference of a released artifact that has its program
	Task    string        `json:"task,omitempty"`    // of EngineTasks, of a program; empty: chat and texts
	Context int           `json:"context,omitempty"` // tokens of one call, of a program; 0: 4096
	Memory  int64         `json:"memory,omitempty"`  // bytes beside the weights, of a program; 0: 2 GiB and as much as the weights
}

// Started reports whether what serves starts the engine itself.
func (e EngineAddress) Started() bool { return e.Program != "" }

// StartedKinds lists the kinds that can be started.
func StartedKinds() []string { return []string{"llama-server"} }

// EngineTasks lists what a program can be started for, beside chat.
func EngineTasks() []string { return []string{"embeddings", "ranking"} }

// ServedModel says which released artifact a model of an engine is.
type ServedModel struct {
	Name     string `json:"name"`               // that clients ask for
	Upstream string `json:"upstream,omitempty"` // that the engine knows it by; empty: the same
	Artifact string `json:"artifact"`           // reference; served while it is released
}

// EngineKinds lists the kinds.
func EngineKinds() []string { return []string{"vllm", "ollama", "tgi", "llama-server"} }

const maxServed = 200 // models of an engine

var hostForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`) // constant

func (e EngineAddress) check() error {
	if err := CheckName(e.Name); err != nil {
		return err
	}
	if !slices.Contains(EngineKinds(), e.Kind) {
		return fail.As(fail.Usage, "kinds are "+strings.Join(EngineKinds(), ", "), fmt.Errorf("engine %s: there is no kind %.40q", e.Name, e.Kind))
	}
	if err := e.checkWhere(); err != nil {
		return err
	}
	if len(e.Models) == 0 || len(e.Models) > maxServed {
		return fail.As(fail.Usage, "say which released artifact it serves: --model NAME=REFERENCE", fmt.Errorf("engine %s: %d models", e.Name, len(e.Models)))
	}
	if e.Parallel < 0 || e.Parallel > 100_000 || len(e.CA) > 1<<20 || len(e.For) > 100 {
		return fmt.Errorf("engine %s: a setting is out of bounds", e.Name)
	}
	for _, m := range e.Models {
		if m.Name == "" || len(m.Name) > 200 || len(m.Upstream) > 200 || m.Artifact == "" || len(m.Artifact) > 500 {
			return fmt.Errorf("engine %s: a model has no name, or no artifact", e.Name)
		}
	}
	return nil
}

// checkWhere checks the address of an engine elsewhere, or the settings of one that is
// started.
func (e EngineAddress) checkWhere() error {
	if !e.Started() {
		if e.Task != "" || e.Context != 0 || e.Memory != 0 {
			return fail.As(fail.Usage, "give them to whoever starts it", fmt.Errorf("engine %s: task, context and memory are settings of a program that is started here", e.Name))
		}
		if err := checkAddress(e.Address); err != nil {
			return fail.As(fail.Usage, "give HOST:PORT or unix:/PATH", fmt.Errorf("engine %s: address %.80q: %w", e.Name, e.Address, err))
		}
		return nil
	}
	switch {
	case e.Address != "" || e.CA != "" || e.For != "":
		return fail.As(fail.Usage, "give --address, or --program", fmt.Errorf("engine %s: a program that is started here has no address, no authorities, and needs no tenant", e.Name))
	case !slices.Contains(StartedKinds(), e.Kind):
		return fail.As(fail.Usage, "start it elsewhere and give --address", fmt.Errorf("engine %s: kind %s is not started here, only %s", e.Name, e.Kind, strings.Join(StartedKinds(), ", ")))
	case !strings.HasPrefix(e.Program, "engine/") || len(e.Program) > 500:
		return fail.As(fail.Usage, "give the reference of an artifact brought 'as: engine/NAME'", fmt.Errorf("engine %s: program %.80q is no engine", e.Name, e.Program))
	case len(e.Models) != 1 || e.Models[0].Upstream != "":
		return fail.As(fail.Usage, "give one --model NAME=REFERENCE", fmt.Errorf("engine %s: a program that is started here serves one model, by the name that clients ask for", e.Name))
	case e.Task != "" && !slices.Contains(EngineTasks(), e.Task):
		return fail.As(fail.Usage, "tasks are "+strings.Join(EngineTasks(), ", "), fmt.Errorf("engine %s: there is no task %.40q", e.Name, e.Task))
	case e.Parallel > 256 || e.Context < 0 || e.Context > 10_000_000 || e.Memory < 0:
		return fail.As(fail.Usage, "at most 256 calls at a time and 10,000,000 tokens", fmt.Errorf("engine %s: a setting is out of bounds", e.Name))
	}
	return nil
}

func checkAddress(a string) error {
	if p, ok := strings.CutPrefix(a, "unix:"); ok {
		if !path.IsAbs(p) || path.Clean(p) != p || len(p) > 100 {
			return errors.New("not a plain absolute path")
		}
		return nil
	}
	i := strings.LastIndexByte(a, ':')
	if i < 0 {
		return errors.New("no port")
	}
	if port, err := strconv.ParseUint(a[i+1:], 10, 16); err != nil || port == 0 {
		return errors.New("not a port")
	}
	host := a[:i]
	if v6, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(v6, "]")
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostForm.MatchString(host) {
		return errors.New("not a host")
	}
	return nil
}

// AllowEngine adds an engine, or changes the one of that name.
func (r Root) AllowEngine(e EngineAddress) (Root, error) {
	if r.Site.Side != High {
		return r, fail.As(fail.Usage, "engines are at the island", errors.New("a low site has no engines"))
	}
	r.Engines = slices.DeleteFunc(slices.Clone(r.Engines), func(o EngineAddress) bool { return o.Name == e.Name })
	r.Engines = append(r.Engines, e)
	slices.SortFunc(r.Engines, func(a, b EngineAddress) int { return strings.Compare(a.Name, b.Name) })
	return r, r.refusal()
}

// ForbidEngine takes an engine off the list.
func (r Root) ForbidEngine(name string) (Root, error) {
	left := slices.DeleteFunc(slices.Clone(r.Engines), func(o EngineAddress) bool { return o.Name == name })
	if len(left) == len(r.Engines) {
		return r, fail.As(fail.Usage, "'enisle engine list' lists them", fmt.Errorf("no engine called %q is allowed", name))
	}
	if r.Engines = left; len(left) == 0 {
		r.Engines = nil
	}
	return r, r.refusal()
}

func (r Root) checkEngines() error {
	for i, e := range r.Engines {
		if i > 0 && r.Engines[i-1].Name >= e.Name {
			return fmt.Errorf("engine %q stands twice or out of order", e.Name)
		}
		if err := e.check(); err != nil {
			return err
		}
	}
	return nil
}

// sameBut reports whether two are the same, but for their models.
func (e EngineAddress) sameBut(o EngineAddress) bool {
	e.Models, o.Models = nil, nil
	return reflect.DeepEqual(e, o)
}

// engineChanges says what becomes of the engines.
func (r Root) engineChanges(next Root) (out []string) {
	find := func(all []EngineAddress, name string) (EngineAddress, bool) {
		i := slices.IndexFunc(all, func(e EngineAddress) bool { return e.Name == name })
		if i < 0 {
			return EngineAddress{}, false
		}
		return all[i], true
	}
	say := func(verb string, e EngineAddress) {
		var models []string
		for _, m := range e.Models {
			models = append(models, m.Name+" ("+m.Artifact+")")
		}
		where := "at " + e.Address
		if e.Started() {
			where = "started from " + e.Program
		}
		out = append(out, fmt.Sprintf("%s engine %s, %s %s, for %s", verb, e.Name, e.Kind, where, strings.Join(models, ", ")))
	}
	for _, e := range next.Engines {
		old, ok := find(r.Engines, e.Name)
		switch {
		case !ok:
			say("allow", e)
		case !slices.Equal(old.Models, e.Models) || !old.sameBut(e):
			say("change", e)
		}
	}
	for _, e := range r.Engines {
		if _, ok := find(next.Engines, e.Name); !ok {
			say("forbid", e)
		}
	}
	return out
}
