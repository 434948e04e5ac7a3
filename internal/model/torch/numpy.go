package torch

import (
	"bytes"
	"errors"
	"slices"
)

// arrayType is a dtype of numpy: a number of fixed size.
type arrayType struct {
	name string // such as f4
	kind typeOf
	set  bool // its byte order was said
	big  bool // high byte first
}

// array is an array of numpy, which stands in the pickle itself.
type array struct{ view *view }

// arrayTypes are the types of numpy that safetensors has; constant.
var arrayTypes = map[string]typeOf{
	"f8": {"F64", 8, 8}, "f4": {"F32", 4, 4}, "f2": {"F16", 2, 2}, "i8": {"I64", 8, 8}, "i4": {"I32", 4, 4}, "i2": {"I16", 2, 2}, "i1": {"I8", 1, 1},
	"u8": {"U64", 8, 8}, "u4": {"U32", 4, 4}, "u2": {"U16", 2, 2}, "u1": {"U8", 1, 1}, "b1": {"BOOL", 1, 1}, "c8": {"C64", 8, 4},
}

// newArrayType makes a dtype of the arguments that numpy writes: name, no
// alignment, copy.
func newArrayType(args []any) (any, error) {
	if len(args) != 3 || !flag(args[1], false) || !flag(args[2], true) {
		return nil, errors.New("its arguments are not understood")
	}
	name, ok := args[0].(string)
	if !ok {
		return nil, errors.New("its arguments are not understood")
	}
	kind, ok := arrayTypes[name]
	if !ok {
		return nil, refuse("type %.40q of numpy has no type in safetensors", name)
	}
	return &arrayType{name: name, kind: kind}, nil
}

// flag reports whether v is want, as a bool or, of Python 2, as a number.
func flag(v any, want bool) bool {
	n := int64(0)
	if want {
		n = 1
	}
	return v == want || v == n
}

// setState takes the state of a dtype: version, byte order, and nothing else.
func (t *arrayType) setState(state any) error {
	s, ok := state.(*tuple)
	if !ok || len(s.items) != 8 || t.set {
		return errors.New("the state of a type of numpy is not understood")
	}
	order, ok := s.items[1].(string)
	if !ok {
		return errors.New("a type of numpy has no byte order")
	}
	want := []any{int64(3), order, none{}, none{}, none{}, int64(-1), int64(-1), int64(0)}
	if !slices.Equal(s.items, want) {
		return errors.New("a type of numpy has fields, parts or an alignment, which are not understood")
	}
	switch {
	case order == "<", order == "|" && t.kind.size == 1:
	case order == ">":
		t.big = true
	default:
		return errors.New("a type of numpy has no certain byte order")
	}
	t.set = true
	return nil
}

// reconstruct makes an array that is still empty.
func reconstruct(args []any) (any, error) {
	if len(args) != 3 || args[0] != (global{"numpy", "ndarray"}) {
		return nil, errors.New("it makes no plain array")
	}
	return &array{}, nil
}

// setState takes the state of an array: version, shape, type, order, bytes.
func (a *array) setState(state any) error {
	s, ok := state.(*tuple)
	if !ok || len(s.items) != 5 || a.view != nil || s.items[0] != int64(1) {
		return errors.New("the state of an array of numpy is not understood")
	}
	shape, err := ints(s.items[1])
	if err != nil {
		return err
	}
	t, ok := s.items[2].(*arrayType)
	fortran, ok2 := s.items[3].(bool)
	raw, ok3 := s.items[4].([]byte)
	if !ok || !ok2 || !ok3 || !t.set {
		return errors.New("the state of an array of numpy is not understood")
	}
	n, err := product(append(slices.Clone(shape), t.kind.size)...)
	if err != nil || n != int64(len(raw)) {
		return refuse("an array of numpy has %d bytes, which are not those of its shape", len(raw))
	}
	strides := make([]int64, len(shape))
	step := int64(1)
	for i := range shape {
		at := len(shape) - 1 - i
		if fortran {
			at = i
		}
		strides[at] = step
		step *= max(1, shape[at])
	}
	v := &view{
		storage: &storage{key: "numpy", kind: t.kind, numel: n / t.kind.size, big: t.big, data: &data{r: bytes.NewReader(raw), bytes: n}},
		kind:    t.kind, shape: shape, strides: strides,
	}
	a.view = v
	return v.check()
}
