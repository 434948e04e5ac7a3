// Package sandbox starts programs that can reach less than their parent.
//
// A confined program is started in two steps. The parent builds a command with
// Command, Reexec or Exec; that command runs this very executable with the
// hidden verb "sandbox-exec". The verb calls Enter, which takes rights away
// from its own thread (Landlock, capabilities, resource limits, seccomp,
// no_new_privs) and then becomes the real program by execve, which keeps every
// one of these restrictions. Nothing is ever taken away from a running Go
// process, because the binary links code that calls C and the runtime can then
// not change all its threads at once; Seal is the one exception, since seccomp
// can do that by itself.
//
// It knows nothing of sites, engines or ecosystems, and it holds no state.
package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
)

// Verb is the hidden first argument under which the program must call Enter.
const Verb = "sandbox-exec"

// Self, as the first element of argv, stands for the running executable.
const Self = "/proc/self/exe"

// Net says what network a confined program has.
type Net string

// The choices of network.
const (
	NetInherit Net = ""     // that of the parent
	NetNone    Net = "none" // none: see Level
)

// Level says by what means a program has no network, strongest first.
type Level string

// The levels. An empty level means that the network was not taken away.
const (
	LevelNamespace     Level = "namespace"           // an empty network namespace of its own
	LevelUserNamespace Level = "user namespace"      // the same, made without being root
	LevelInherited     Level = "inherited namespace" // the parent's namespace has nothing but loopback
	LevelSeccomp       Level = "seccomp"             // sockets other than Unix ones are refused
)

// Spec says what a confined program may do. The zero value reads everything,
// writes nothing, keeps its network and has no limits; it never keeps
// capabilities, gains privileges, traces other processes, enters or makes
// namespaces, mounts, or opens MPTCP sockets (which Landlock does not cover).
type Spec struct {
	// Read lists the only files and directories that may be read; when empty,
	// everything may be, but for Hidden and the devices in /dev other than
	// the harmless ones. Every path must exist.
	Read []string `json:"read,omitempty"`
	// ReadFiles are descriptor numbers of the child (3 is the first of
	// ExtraFiles) whose files may be opened again, as /proc/self/fd/N.
	ReadFiles []int `json:"readFiles,omitempty"`
	// Write lists what may be written and read. Nothing else may be written.
	Write []string `json:"write,omitempty"`
	// Sockets lists directories in which Unix sockets may be made, and nothing else.
	Sockets []string `json:"sockets,omitempty"`
	// Hidden lists what can be neither read nor written. Landlock knows no
	// exceptions, so that every sibling along the way is allowed instead: the
	// directories along the way can not be listed, and what appears in them
	// later can not be read. Files named *.key in them are hidden as well.
	// Paths that do not exist are ignored. A path of Read or Write that lies
	// inside a hidden directory is allowed. The existence and the metadata of
	// hidden files stay visible, and a bind mount of them elsewhere is not
	// recognised.
	Hidden []string `json:"hidden,omitempty"`

	Net       Net  `json:"net,omitempty"`
	Loopback  bool `json:"loopback,omitempty"`  // bring lo up in the program's own namespace
	NoConnect bool `json:"noConnect,omitempty"` // refuse connect, also on inherited sockets, and what amounts to it
	NoBind    bool `json:"noBind,omitempty"`    // refuse TCP bind (Landlock)
	NoUnix    bool `json:"noUnix,omitempty"`    // refuse new Unix sockets: daemons of the host are not for this program
	NoExec    bool `json:"noExec,omitempty"`    // only argv[0] may be executed; see also Seal
	NoFork    bool `json:"noFork,omitempty"`    // threads may be started, processes may not: nothing outlives the program

	KeepCapabilities bool `json:"keepCapabilities,omitempty"`

	MaxMemory     int64 `json:"maxMemory,omitempty"`     // bytes of private writable memory per process; 0 means no limit
	MaxCPUSeconds int64 `json:"maxCPUSeconds,omitempty"` // seconds of CPU per process; 0 means no limit
	MaxFiles      int64 `json:"maxFiles,omitempty"`      // open descriptors per process; 0 means no limit
	MaxFileSize   int64 `json:"maxFileSize,omitempty"`   // bytes per file written; 0 means no limit

	Nice int `json:"nice,omitempty"` // added to the priority value, 0 to 19: who else wants the processors goes first

	// Strict refuses to start on a kernel that can not do all of it; without
	// it, what the kernel can not do is left out. See Probe.
	Strict bool `json:"strict,omitempty"`
}

// order is what the parent tells the child: the spec and what it did itself.
type order struct {
	Spec   Spec   `json:"spec"`
	Level  Level  `json:"level,omitempty"`
	Parent int    `json:"parent"`          // process id
	NetNS  string `json:"netns,omitempty"` // the parent's network namespace
}

// absolute returns spec with every path absolute and clean.
func (s Spec) absolute() (Spec, error) {
	for _, list := range []*[]string{&s.Read, &s.Write, &s.Sockets, &s.Hidden} {
		clean := make([]string, 0, len(*list))
		for _, p := range *list {
			if p == "" {
				return s, errors.New("sandbox: an empty path")
			}
			abs, err := filepath.Abs(p)
			if err != nil {
				return s, fmt.Errorf("sandbox: path %q: %w", p, err)
			}
			clean = append(clean, abs)
		}
		*list = clean
	}
	return s, nil
}

// parseOrder reads the arguments of the hidden verb: the order, "--", argv.
func parseOrder(args []string) (o order, argv []string, err error) {
	if len(args) < 3 || args[1] != "--" {
		return o, nil, fmt.Errorf("%s: want ORDER -- PROGRAM and its arguments", Verb)
	}
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return o, nil, fmt.Errorf("%s: order: %w", Verb, err)
	}
	return o, args[2:], nil
}
