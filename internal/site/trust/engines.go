package trust

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"enisle/internal/fail"
)

// EngineAddress is an engine that runs outside what serves, as two admins allow it. Its
// address is the only one that what serves can have connections to.
type EngineAddress struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`               // vllm, ollama, tgi, llama-server
	Address  string `json:"address"`            // HOST:PORT, or unix:/PATH
	CA       string `json:"ca,omitempty"`       // PEM; with it the engine is spoken to by TLS
	Parallel int    `json:"parallel,omitempty"` // calls that it works on at a time; 0: as usual for its kind
	// For is the tenant whose calls an engine gets that keeps tenants' prompts apart in
	// no way: a user or a project; "*" accepts that they are not kept apart.
	For    string        `json:"for,omitempty"`
	Models []ServedModel `json:"models"`
}

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
	if err := checkAddress(e.Address); err != nil {
		return fail.As(fail.Usage, "give HOST:PORT or unix:/PATH", fmt.Errorf("engine %s: address %.80q: %w", e.Name, e.Address, err))
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
		out = append(out, fmt.Sprintf("%s engine %s, %s at %s, for %s", verb, e.Name, e.Kind, e.Address, strings.Join(models, ", ")))
	}
	for _, e := range next.Engines {
		old, ok := find(r.Engines, e.Name)
		switch {
		case !ok:
			say("allow", e)
		case old.Kind != e.Kind || old.Address != e.Address || old.CA != e.CA || old.For != e.For || old.Parallel != e.Parallel || !slices.Equal(old.Models, e.Models):
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
