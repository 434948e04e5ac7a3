// Package pickle judges Python pickles without running them.
//
// A symbolic machine reads every opcode of every stream and keeps track of what
// would be imported and called. Only an exact, short list of names that rebuild
// tensors and plain containers passes; whatever is on no list, cannot be read to
// the end, or would be read differently by two readers, is refused. Opcodes:
// CPython, Lib/pickletools.py, protocols 0 to 5.
package pickle

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/asset"
)

// Scanner judges pickles and object arrays of numpy; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "pickle".
func (Scanner) Name() string { return "pickle" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "5" }

const (
	maxStreams  = 10_000 // pickles one after the other in one file
	numpyMagic  = "\x93NUMPY"
	torchStream = 5 // pickles at the start of a legacy torch file, before the raw storages
)

// named reports whether the name alone says pickle.
func named(s inspect.Subject) bool {
	ext := strings.ToLower(path.Ext(s.Path))
	if slices.Contains([]string{".pkl", ".pickle", ".pk", ".p", ".joblib", ".dill", ".pt", ".pth", ".ckpt"}, ext) {
		return true
	}
	if strings.HasSuffix(strings.ToLower(s.Path), ".onnx.data") {
		return false // bare numbers; a pickle of this name is known by its bytes
	}
	return s.Ref.Kind == "model" && slices.Contains([]string{".bin", ".dat", ".data", ".model"}, ext)
}

// sealed reports whether no reader of pickles gets past the first byte: that of gzip
// and of lz4 is no opcode, and zip's asks for a persistent id that plain readers do not have.
// Another scanner reads them.
func sealed(s inspect.Subject) bool {
	for _, m := range []string{"PK\x03\x04", "PK\x05\x06", "\x1f\x8b", "\x04\x22\x4d\x18"} {
		if bytes.HasPrefix(s.Head, []byte(m)) {
			return true
		}
	}
	// A joblib file that is compressed: no reader of pickles knows opcode x.
	// B is one, of bytes: the whole beginning of bzip2 must be there.
	bzip2 := bytes.HasPrefix(s.Head, []byte("BZh")) && len(s.Head) > 9 && (string(s.Head[4:10]) == "1AY&SY" || string(s.Head[4:10]) == "\x17rE8P\x90")
	return bzip2 || len(s.Head) > 6 && s.Head[0] == 0x78 || bytes.HasPrefix(s.Head, []byte("\xfd7zXZ\x00")) || bytes.HasPrefix(s.Head, []byte("\x5d\x00\x00"))
}

// other reports whether the bytes are those of another format that a pickle's
// name is used for as well. They may be a pickle at the same time.
func other(s inspect.Subject) bool {
	return bytes.HasPrefix(s.Head, []byte("GGUF")) || len(s.Head) > 262 && string(s.Head[257:262]) == "ustar" || asset.Is(s)
}

// plainFile reports whether it is text that only has a pickle's name: a path file
// of Python (site module) in a wheel, whose scanner reports on it, or one of the many
// files of a system, such as a text in Portuguese.
func plainFile(s inspect.Subject) bool {
	system := s.Depth > 0 && (s.Ref.Kind == "oci" || s.Ref.Kind == "debian")
	_, inside, ok := strings.Cut(s.Path, ".whl!")
	if !system && (!ok || s.Ref.Kind != "pypi" || strings.Contains(inside, "/") && !strings.Contains(inside, ".data/") || path.Ext(inside) != ".pth") {
		return false
	}
	for _, c := range s.Head {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return true
}

func binaryStart(b []byte) bool { return len(b) >= 2 && b[0] == 0x80 && b[1] <= 5 }

// Wants takes pickles by name and by bytes, wherever they stand and whatever
// they are called: a reader of pickles does not look at names.
func (Scanner) Wants(s inspect.Subject) bool {
	switch {
	case bytes.HasPrefix(s.Head, []byte(numpyMagic)):
		return true
	case sealed(s), len(s.Head) == 0 && !named(s):
		return false
	case named(s) && !other(s) && !plainFile(s):
		return true
	case hides(s) != "":
		return true
	}
	// Walk it: what is no pickle ends within a few bytes.
	// Streams that only hold values may stand before one that does something.
	m := machine{src: newSource(s, 0), persistent: persistent(s), script: script(s), guess: true}
	err := m.run()
	for n := 1; err == nil && len(m.globals) == 0 && m.src.at < s.Size && n < maxStreams; n++ {
		m = machine{src: newSource(s, m.src.at), persistent: m.persistent, script: m.script, guess: true}
		if err = m.run(); err != nil && !named(s) && !binaryStart(s.Head) && len(m.globals) == 0 {
			return false
		}
	}
	switch {
	case named(s) || binaryStart(s.Head):
		return err == nil || len(m.globals) > 0
	case err == nil:
		return len(m.globals) > 0
	}
	return len(m.globals) > 0 && m.calls > 0
}

// persistent reports whether the subject may refer to storages by persistent
// ids: the pickles of a torch archive, or a legacy torch file.
func persistent(s inspect.Subject) bool {
	base := s.Path[strings.LastIndexAny(s.Path, "/!")+1:]
	return s.Depth > 0 && slices.Contains([]string{"data.pkl", "constants.pkl", "traced_inputs.pkl", "bytecode.pkl"}, base)
}

// script reports whether the subject is a pickle of a TorchScript archive.
func script(s inspect.Subject) bool {
	return persistent(s) || s.Depth > 0 && strings.HasSuffix(s.Path, ".debug_pkl") && strings.Contains(s.Path, "/code/")
}

// Scan judges every stream of the subject.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	run = s.Milder(run)
	if name := hides(s); name != "" {
		run.Report("hidden", inspect.Refuse, fmt.Sprintf("a pickle stands in it that would import %.80s", name))
		return nil
	}
	at := int64(0)
	if bytes.HasPrefix(s.Head, []byte(numpyMagic)) {
		start, objects, err := numpyArrays(s)
		if err != nil {
			run.Report("numpy", inspect.Refuse, err.Error())
			return nil
		}
		if !objects {
			return nil // plain numbers: nothing is unpickled
		}
		at = start
	}
	legacy := false
	for n := 0; at < s.Size || n == 0; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n == maxStreams {
			run.Report("streams", inspect.Refuse, fmt.Sprintf("more than %d pickles in one file", maxStreams))
			return nil
		}
		if legacy && n == torchStream {
			return nil // raw storages follow, which torch reads as numbers
		}
		m := machine{src: newSource(s, at), ctx: ctx, persistent: persistent(s) || legacy, script: script(s), beside: beside(s)}
		err := m.run()
		m.report(s, run)
		if err == nil {
			err = m.descend(ctx, s, run)
		}
		if err != nil {
			run.Report("broken", s.Data(), fmt.Sprintf("stream %d, byte %d: %v", n+1, m.src.at, err))
			return nil
		}
		if bytes.HasPrefix(s.Head, []byte(numpyMagic)) {
			return nil // numpy reads one pickle
		}
		legacy = legacy || n == 0 && m.torchMagic
		at = m.src.at
	}
	return nil
}

// descend judges the bytes that an allowed name unpickles in its turn.
func (m *machine) descend(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	for i, n := range m.nested {
		if err := run.Descend(ctx, fmt.Sprintf("nested-%d.pt", i+1), io.NewSectionReader(s, n.at, n.size), n.size); err != nil {
			return err
		}
	}
	return nil
}

// report turns what a stream would do into findings.
func (m *machine) report(s inspect.Subject, run inspect.Run) {
	for _, g := range m.globals {
		if m.seen[g] == refused {
			run.Report("global", severity(s, g.module), fmt.Sprintf("it would import %.80s.%.80s", g.module, g.name))
		}
	}
	for _, r := range m.refusals {
		run.Report("opcode", inspect.Refuse, r)
	}
}
