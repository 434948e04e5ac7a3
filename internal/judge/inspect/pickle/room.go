package pickle

import (
	"math/bits"
	"path"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
)

// A pickle may ask for more memory than it holds bytes: an array of a shape without its
// numbers, bytes by their length, a range that something makes a list of. What honest
// writers write never does.

// spare is how many bytes the arguments of all calls of one stream may come to beyond
// four times the file: calls copy what they are given, and the same may be given often.
const spare = 1 << 30

// elements multiplies the numbers of a shape.
func elements(shape value) (n uint64, ok bool) {
	if shape.kind == integer && shape.num >= 0 {
		return uint64(shape.num), true
	}
	if shape.kind == product && shape.g == (global{"torch", "Size"}) && len(shape.items) == 1 {
		shape = shape.items[0]
	}
	if shape.kind != tuple && shape.kind != list || shape.lost {
		return 0, false
	}
	n = 1
	for _, d := range shape.items {
		if d.kind != integer || d.num < 0 {
			return 0, false
		}
		hi, lo := bits.Mul64(n, uint64(d.num))
		if hi != 0 {
			return 0, false
		}
		n = lo
	}
	return n, true
}

// copies counts what a call is given, and reports whether it may be.
func (m *machine) copies(args []value) bool {
	for _, a := range args {
		if a.data == nil {
			continue
		}
		m.copied += float64(a.size) + float64(len(a.text)) + 8*a.whole
	}
	return m.copied <= spare+4*float64(m.src.size)
}

// room says why a call would take more memory than the stream holds.
func (m *machine) room(g global, args []value) (why string) {
	arg := func(i int) value {
		if i < len(args) {
			return args[i]
		}
		return value{}
	}
	if !m.copies(args) {
		return "on the same values again and again: a bomb"
	}
	switch g.module + "." + g.name {
	case "builtins.bytes", "builtins.bytearray":
		if len(args) > 0 && !holdsBytes(arg(0)) {
			return "for more values than it holds: a bomb"
		}
	case "builtins.int", "builtins.float", "builtins.complex":
		if a := arg(0); a.data != nil && a.size > 4300 || a.data != nil && len(a.text) > 4300 {
			return "on a number of too many digits"
		}
	case "copyreg.__newobj__", "copyreg.__newobj_ex__":
		if c := arg(0); c.kind == callee {
			more := args[1:]
			if g.name == "__newobj_ex__" {
				more = arg(1).listed()
			}
			return m.room(c.g, more)
		}
	case "copyreg._reconstructor":
		if base, state := arg(1), arg(2); base.kind == callee && state.kind != none {
			return m.room(base.g, []value{state})
		}
	case "fractions.Fraction":
		if a := arg(0); a.kind != integer && (a.kind != text || !fraction.MatchString(a.text)) {
			return "on what is no fraction as Python writes it"
		}
	case "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct":
		if n, ok := elements(arg(1)); !ok || n > 0 {
			return "for an array of a shape without its numbers: a bomb"
		}
	case "numpy.ma.core._mareconstruct", "numpy.ma._mareconstruct":
		if n, ok := elements(arg(2)); !ok || n > 0 {
			return "for an array of a shape without its numbers: a bomb"
		}
	case "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar":
		if len(args) < 2 {
			return "without its value"
		}
	case "numpy.void", "numpy.bytes_", "numpy.str_", "numpy.unicode_":
		if len(args) > 0 && !holdsBytes(arg(0)) {
			return "for more values than it holds: a bomb"
		}
	case "numpy.ndarray", "numpy.matrix", "numpy.recarray", "numpy.record", "torch.Tensor":
		if len(args) > 0 {
			return "with a shape that nothing stands behind: a bomb"
		}
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_qtensor":
		return view(arg(0), arg(1), arg(2), arg(3))
	case "torch._tensor._rebuild_from_type_v2":
		if a := arg(2); a.kind == tuple && !a.lost && arg(0).kind == callee {
			return m.room(arg(0).g, a.items)
		}
		return "with arguments that it computes"
	}
	if (g.module == "pandas" || strings.HasPrefix(g.module, "pandas.core.")) && len(args) > 0 && (g.name == "DataFrame" || g.name == "Series" || strings.HasSuffix(g.name, "Index") && !strings.HasPrefix(g.name, "_")) {
		return "with arguments, which may be a bomb"
	}
	return ""
}

// fraction is the text that Python pickles a fraction as; one with an exponent is
// written out.
var fraction = regexp.MustCompile(`^-?[0-9]+(/[0-9]+)?$`)

// holdsBytes reports whether a value holds the bytes that are made of it: numbers are
// only how many.
func holdsBytes(v value) bool {
	switch v.kind {
	case raw, text, list, tuple:
		return true
	case unknown:
		return v.data != nil // a long text
	}
	return v.made(global{"_codecs", "encode"}, global{"builtins", "bytes"}, global{"builtins", "bytearray"}, global{"builtins", "list"}, global{"builtins", "str"})
}

// view says why a tensor is no view of its storage: one that leaves it makes torch
// allocate what is missing, and one that repeats it is written out by whoever copies it.
func view(of, offset, size, stride value) (why string) {
	held := uint64(of.num)
	switch {
	case of.made(global{"torch.storage", "_load_from_bytes"}):
		held = uint64(of.size)
	case of.kind != storage:
		return "on a storage that it computes"
	}
	n, ok := elements(size)
	if !ok || offset.kind != integer || offset.num < 0 || stride.kind != tuple && stride.kind != list || size.kind != stride.kind || len(stride.items) != len(size.items) {
		return "with a size or strides that it computes"
	}
	if n == 0 {
		return ""
	}
	last := uint64(offset.num)
	for i, s := range stride.items {
		if s.kind != integer || s.num < 0 {
			return "with a size or strides that it computes"
		}
		hi, lo := bits.Mul64(uint64(s.num), uint64(size.items[i].num-1))
		sum, carry := bits.Add64(last, lo, 0)
		if hi != 0 || carry != 0 {
			return "for a tensor outside of its storage"
		}
		last = sum
	}
	switch {
	case last >= held:
		return "for a tensor outside of its storage"
	case n > held && n > 1<<28:
		return "for a tensor that repeats its storage: a bomb"
	}
	return ""
}

// state says why the state of an array of numpy has a shape that its data do not fill.
func (m *machine) state(v value) (why string) {
	const bad = "it makes an array of a shape without its numbers: a bomb"
	if v.kind == tuple && len(v.items) > 0 && v.items[0].kind == tuple && len(v.items) == 2 {
		return m.state(v.items[0]) // of an index of pandas before 0.14: numpy's, and its own
	}
	if v.kind != tuple || v.lost || len(v.items) < 4 {
		return "it makes an array of a state that numpy does not write"
	}
	at := 0
	if len(v.items) > 4 {
		at = 1 // behind a version
	}
	n, ok := elements(v.items[at])
	dtype, body := v.items[at+1], v.items[at+3]
	if !ok {
		return bad
	}
	if body.kind == list {
		if n > uint64(body.n) {
			return bad
		}
		return ""
	}
	width := int64(1)
	if dtype.made(global{"numpy", "dtype"}) && len(dtype.items) > 0 && dtype.items[0].kind == text {
		if size, objects, err := itemSize(dtype.items[0].text); err == nil && !objects {
			width = max(size, 1)
		}
	}
	held := uint64(0)
	if body.data != nil {
		held = uint64(body.size) + uint64(len(body.text))
	}
	if hi, lo := bits.Mul64(n, uint64(width)); hi != 0 || lo > max(held, 1<<10) {
		return bad
	}
	return ""
}

// arrays are the makers of arrays that numpy fills by their state; constant.
var arrays = []global{
	{"numpy.core.multiarray", "_reconstruct"},
	{"numpy._core.multiarray", "_reconstruct"},
	{"numpy.ma.core", "_mareconstruct"},
	{"numpy.ma", "_mareconstruct"},
}

// iterates says why a name that makes an iterator may not be called with arguments:
// with two, iter calls the first.
func iterates(g global, args []value) (why string) {
	plain := func(v value) bool {
		return slices.Contains([]kind{list, tuple, set, dict, text, raw}, v.kind) || v.kind == unknown && v.data != nil ||
			v.made(global{"builtins", "range"}, global{"builtins", "iter"}, global{"builtins", "reversed"}, global{"collections", "OrderedDict"})
	}
	if len(args) == 0 || g.name != "enumerate" && g.name != "zip" && len(args) != 1 || !plain(args[0]) || g.name == "zip" && slices.ContainsFunc(args, func(v value) bool { return !plain(v) }) {
		return "on what is no plain container"
	}
	return ""
}

// length is how many values a range has.
func length(args []value) float64 {
	from, to, step := int64(0), int64(0), int64(1)
	switch len(args) {
	case 1:
		to = args[0].num
	case 2, 3:
		from, to = args[0].num, args[1].num
		if len(args) == 3 && args[2].num != 0 {
			step = args[2].num
		}
	}
	return max(0, (float64(to)-float64(from))/float64(step))
}

// widths are the bytes of a number in storages of torch, by their names; constant.
var widths = map[string]int64{
	"UntypedStorage": 1, "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4, "ShortStorage": 2,
	"CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "ComplexDoubleStorage": 16, "ComplexFloatStorage": 8, "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4,
}

// beside compares the storages that a pickle of torch names with the members of its
// archive: torch takes their length from the pickle, and reads past the end of one that
// is shorter.
func beside(s inspect.Subject) func(id value) string {
	of, ok := s.ReaderAt.(inspect.Member)
	base := s.Path[strings.LastIndex(s.Path, "!")+1:]
	dir, isPickle := strings.CutSuffix(base, ".pkl")
	// Inputs that a model was traced with are not kept, only what they were like.
	if name := path.Base(dir); !ok || !isPickle || name != "data" && name != "constants" {
		return nil
	}
	return func(id value) string {
		class, key, n := id.items[1], id.items[2], id.items[4].num
		if n == 0 || class.kind != callee {
			return ""
		}
		size, ok := of.Beside(dir + "/" + key.name())
		if width := widths[class.g.name]; !ok || width > 0 && (n > 1<<60/width || size < n*width) {
			return "it names a storage that the archive does not hold in full"
		}
		return ""
	}
}
