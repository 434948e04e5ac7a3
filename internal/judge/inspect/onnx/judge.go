package onnx

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"enisle/internal/artifact"
)

const maxRefusals = 50 // of one file; more say nothing new

func (w *walker) refuse(rule, format string, args ...any) {
	if w.bad++; w.bad <= maxRefusals {
		w.report(rule, fmt.Sprintf(format, args...))
	}
}

// judge looks at a message that was read to its end.
func (w *walker) judge(k kind, r *record) error {
	switch k {
	case node:
		return w.node(r.text[7], r.text[4])
	case function:
		if len(w.functions) == maxNames {
			return fmt.Errorf("it has more than %d functions", maxNames)
		}
		w.functions[r.text[10]+"\x00"+r.text[1]] = true
	case opset:
		if len(w.opsets) < 100 {
			w.opsets = append(w.opsets, fmt.Sprintf("%s %d", domainName(r.text[1]), r.number[2]))
		}
	case tensor:
		w.tensor(r)
	}
	return nil
}

func domainName(d string) string {
	if d == "" {
		return "ai.onnx"
	}
	return d
}

// standard are the domains whose operators every runtime has in itself; constant.
var standard = []string{"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft"}

// node judges an operator by its name.
func (w *walker) node(domain, op string) error {
	w.nodes++
	lower := strings.ToLower(op)
	switch {
	case domain == "ai.onnx.contrib" || domain == "com.microsoft.extensions":
		w.refuse("operator", "%.60q of %q needs a library of extensions, which runs Python for some", op, domain)
	case strings.Contains(lower, "pyop") || strings.Contains(lower, "pythonop") || strings.Contains(lower, "pycustomop") || lower == "pyfunc":
		w.refuse("operator", "%.60q of %.60q runs Python", op, domainName(domain))
	case op == "EPContext":
		w.refuse("operator", "EPContext loads what was compiled for an accelerator, which nobody can read")
	case !slices.Contains(standard, domain):
		if len(w.foreign) == maxNames {
			return fmt.Errorf("it has more than %d operators of other domains", maxNames)
		}
		w.foreign[domain+"\x00"+op] = domain
	}
	if len(w.domains) < maxNames {
		w.domains[domainName(domain)] = true
	}
	return nil
}

// bitsOf returns how many bits an element of a type has; ok is false for a type
// that ONNX does not have. Strings have none.
func bitsOf(dtype uint64) (n uint64, ok bool) {
	known := []uint64{1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 8: 0, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}
	if dtype == 0 || dtype >= uint64(len(known)) {
		return 0, false
	}
	return known[dtype], true
}

const typeString, typeComplex64, typeComplex128 = 8, 14, 15

// tensor holds a tensor's type and dimensions against its data.
func (w *walker) tensor(r *record) {
	w.tensors++
	name := r.text[8]
	elements := uint64(1)
	for _, d := range r.dims {
		hi, lo := bits.Mul64(elements, d)
		if hi != 0 || lo > 1<<56 || d > 1<<56 {
			w.refuse("tensor", "the dimensions of tensor %.80q are negative or overflow", name)
			return
		}
		elements = lo
	}
	width, ok := bitsOf(r.number[dataType])
	if !ok {
		w.refuse("tensor", "tensor %.80q is of type %d, which ONNX does not have", name, r.number[dataType])
		return
	}
	size := (elements*width + 7) / 8
	w.params += elements
	places := []string{}
	for _, f := range []int{floatData, int32Data, stringData, int64Data, rawData, doubleData, uint64Data} {
		if r.count[f] > 0 {
			places = append(places, strconv.Itoa(f))
		}
	}
	external := len(r.extern) > 0
	switch {
	case external != (r.number[dataLocation] == 1) || r.number[dataLocation] > 1:
		w.refuse("external-data", "tensor %.80q does not say clearly where its data are", name)
	case external && len(places) > 0 || len(places) > 1:
		w.refuse("tensor", "tensor %.80q has data in several places: two readers may see two tensors", name)
	case external:
		if width == 0 {
			w.refuse("external-data", "tensor %.80q has texts in another file", name)
		}
		w.external(name, r.extern, size)
	case len(places) == 0 && elements > 0:
		w.refuse("tensor", "tensor %.80q has %d elements and no data", name, elements)
	case r.count[rawData] > 0 && (uint64(r.bytes[rawData]) != size || width == 0):
		w.refuse("tensor", "tensor %.80q needs %d bytes and has %d", name, size, r.bytes[rawData])
	case len(places) == 1 && r.count[rawData] == 0 && !r.holds(elements, width):
		w.refuse("tensor", "the data of tensor %.80q are not those of its type and %d elements", name, elements)
	}
}

// holds reports whether the field with the values of a tensor is the one of its
// type, and may have so many elements. Packed numbers have 1 to 10 bytes each.
func (r *record) holds(elements, width uint64) bool {
	between := func(f int, per uint64) bool {
		n := uint64(r.count[f])
		if r.bytes[f] == 0 {
			return n == per
		}
		return n >= per && n/10 <= per
	}
	switch r.number[dataType] {
	case 1:
		return uint64(r.count[floatData]) == elements
	case typeComplex64:
		return uint64(r.count[floatData]) == 2*elements
	case 11:
		return uint64(r.count[doubleData]) == elements
	case typeComplex128:
		return uint64(r.count[doubleData]) == 2*elements
	case typeString:
		return uint64(r.count[stringData]) == elements
	case 7:
		return r.count[int64Data] > 0 && between(int64Data, elements)
	case 12, 13:
		return r.count[uint64Data] > 0 && between(uint64Data, elements)
	}
	if r.count[int32Data] == 0 {
		return false
	}
	if width < 8 { // several in one number
		return between(int32Data, (elements*width+7)/8) || between(int32Data, elements)
	}
	return between(int32Data, elements)
}

// external judges where a tensor's data are said to be: a file beside the model,
// named once, with numbers for what belongs to the tensor (ONNX, "External Data";
// other keys have set attributes of the reader, CVE-2026-34445).
func (w *walker) external(name string, entries []pair, size uint64) {
	seen := map[string]bool{}
	for _, e := range entries {
		if seen[e.key] {
			w.refuse("external-data", "tensor %.80q says %q twice", name, e.key)
		}
		seen[e.key] = true
		switch e.key {
		case "location":
			if err := beside(e.value); err != nil {
				w.refuse("external-data", "tensor %.80q reads %v", name, err)
			}
		case "basepath":
			if e.value != "" && e.value != "." && beside(e.value) != nil {
				w.refuse("external-data", "tensor %.80q has its base at %.80q", name, e.value)
			}
		case "offset", "length":
			n, err := strconv.ParseUint(e.value, 10, 56)
			if err != nil || e.value != strconv.FormatUint(n, 10) {
				w.refuse("external-data", "tensor %.80q has %.40q for its %s", name, e.value, e.key)
			} else if e.key == "length" && n != size {
				w.refuse("tensor", "tensor %.80q needs %d bytes and takes %d of another file", name, size, n)
			}
		case "checksum":
			if len(e.value) > 256 {
				w.refuse("external-data", "tensor %.80q has a checksum of %d bytes", name, len(e.value))
			}
		default:
			w.refuse("external-data", "tensor %.80q sets %.60q, which ONNX does not have", name, e.key)
		}
	}
	if !seen["location"] {
		w.refuse("external-data", "tensor %.80q is in another file and does not say in which", name)
	}
}

// beside refuses every location but that of a file in the model.
func beside(location string) error {
	if err := artifact.CheckPath(location); err != nil {
		return err
	}
	// A star begins the mark by which onnxruntime takes the offset for an address.
	if i := strings.IndexAny(location, "*?~%$<>|\""); i >= 0 {
		return fmt.Errorf("path %.80q: holds a character that is not allowed", location)
	}
	return nil
}
