package torch

import (
	"errors"
	"fmt"
	"math/bits"
)

// storage is a run of elements that tensors look at. It may be a part of another.
type storage struct {
	key   string
	kind  typeOf // size 0 of a storage of bytes, whose tensors say their type
	numel int64  // elements; bytes of a storage of bytes
	big   bool   // high byte first
	base  int64  // bytes before it in data
	data  *data
}

// data is where the bytes of a storage stand. A legacy file says so only after
// everything else.
type data struct {
	r interface {
		ReadAt([]byte, int64) (int, error)
	}
	at    int64 // in r
	bytes int64
	first string // name of the first tensor that was found in it
}

// view is a tensor: a way to look at a storage.
type view struct {
	storage        *storage
	kind           typeOf
	offset         int64 // elements
	shape, strides []int64
	numel          int64
}

// storageClass returns the type of a class of storages.
func storageClass(v any) (typeOf, error) {
	g, ok := v.(global)
	if !ok {
		return typeOf{}, refuse("a storage is of %s", describe(v))
	}
	if g == (global{"torch.storage", "UntypedStorage"}) {
		return typeOf{}, nil
	}
	if t, ok := storageTypes[g.name]; ok && g.module == "torch" {
		return t, nil
	}
	if len(g.name) > 0 && g.name[0] == 'Q' {
		return typeOf{}, &Refusal{refuse("%.120s: a quantised tensor", g).Error(), "dequantise it with torch where it was made, and save that"}
	}
	return typeOf{}, refuse("%.120s: safetensors has no such type", g)
}

// bytes returns how many bytes a storage has.
func (s *storage) bytes() (int64, error) { return product(s.numel, max(1, s.kind.size)) }

// product multiplies numbers that are not negative.
func product(a ...int64) (int64, error) {
	n := uint64(1)
	for _, x := range a {
		hi, lo := bits.Mul64(n, uint64(x))
		if x < 0 || hi != 0 || lo > 1<<62 {
			return 0, errors.New("a size overflows")
		}
		n = lo
	}
	return int64(n), nil
}

// tensor does _rebuild_tensor and its later versions.
func (m *machine) tensor(name string, args []any) (any, error) {
	least, most := 4, 4
	switch name {
	case "_rebuild_tensor_v2":
		least, most = 6, 7
	case "_rebuild_tensor_v3":
		least, most = 7, 8
	}
	if len(args) < least || len(args) > most {
		return nil, refuse("it has %d arguments", len(args))
	}
	s, ok := args[0].(*storage)
	if !ok {
		return nil, refuse("a tensor is made of %s", describe(args[0]))
	}
	v := &view{storage: s, kind: s.kind}
	if v.offset, ok = args[1].(int64); !ok || v.offset < 0 {
		return nil, errors.New("an offset is none, or negative")
	}
	var err error
	if v.shape, err = ints(args[2]); err != nil {
		return nil, err
	}
	if v.strides, err = ints(args[3]); err != nil {
		return nil, err
	}
	if least >= 6 {
		if _, ok := args[4].(bool); !ok {
			return nil, errors.New("requires_grad is no bool")
		}
		if err := m.mustBeEmpty(args[5]); err != nil {
			return nil, err
		}
	}
	if name == "_rebuild_tensor_v3" {
		if v.kind, err = elementType(args[6], s); err != nil {
			return nil, err
		}
	}
	if least >= 6 && len(args) == most {
		if err := m.mustBeEmpty(args[most-1]); err != nil {
			return nil, err
		}
	}
	return v, v.check()
}

// elementType returns the type that _rebuild_tensor_v3 names, which must be that of
// the storage if that has one.
func elementType(v any, s *storage) (typeOf, error) {
	p, ok := v.(plain)
	if !ok || p.kind != "torch.dtype" {
		return typeOf{}, refuse("the type of a tensor is %s", describe(v))
	}
	t, ok := tensorTypes[p.text]
	if !ok {
		return t, refuse("torch.%s: safetensors has no such type", p.text)
	}
	if s.kind.size != 0 && s.kind != t {
		return t, refuse("a tensor of torch.%s looks at a storage of another type", p.text)
	}
	if s.big && s.kind.size == 0 && t.swap > 1 {
		return t, errors.New("the byte order of a storage of bytes is not certain in a file with the high byte first")
	}
	return t, nil
}

// mustBeEmpty takes hooks and metadata, which torch writes as an empty dict.
func (m *machine) mustBeEmpty(v any) error {
	d, ok := v.(*dict)
	if _, isNone := v.(none); isNone {
		return nil
	}
	if !ok || len(d.keys) > 0 {
		return errors.New("hooks or metadata of a tensor are not empty")
	}
	m.empty = append(m.empty, d)
	return nil
}

// check holds every element against the storage.
func (v *view) check() error {
	if v.kind.size == 0 {
		return errors.New("a tensor looks at a storage of bytes without saying its type")
	}
	if len(v.shape) != len(v.strides) {
		return refuse("a tensor has %d dimensions and %d strides", len(v.shape), len(v.strides))
	}
	n, err := product(v.shape...)
	if err != nil {
		return fmt.Errorf("a tensor's shape: %w", err)
	}
	if _, err := product(n, v.kind.size); err != nil {
		return fmt.Errorf("a tensor's shape: %w", err)
	}
	if v.numel = n; n == 0 {
		return nil
	}
	last := v.offset
	for i, d := range v.shape {
		far, err := product(d-1, v.strides[i])
		if err != nil || far > 1<<62-last {
			return errors.New("a tensor's strides overflow")
		}
		last += far
	}
	held, err := v.storage.bytes()
	if err != nil {
		return fmt.Errorf("a storage: %w", err)
	}
	if last >= held/v.kind.size {
		return refuse("a tensor looks at element %d of storage %.80q, which has %d", last, v.storage.key, held/v.kind.size)
	}
	if v.storage.kind.size == 0 && held%v.kind.size != 0 {
		return refuse("storage %.80q has %d bytes, which are no whole elements", v.storage.key, held)
	}
	return nil
}

// parameter does _rebuild_parameter: the tensor itself, which learns.
func (m *machine) parameter(name string, args []any) (any, error) {
	want := 3
	if name == "_rebuild_parameter_with_state" {
		want = 4
	}
	if len(args) != want {
		return nil, refuse("it has %d arguments", len(args))
	}
	v, ok := args[0].(*view)
	if !ok {
		return nil, refuse("a parameter is made of %s", describe(args[0]))
	}
	if _, ok := args[1].(bool); !ok {
		return nil, errors.New("requires_grad is no bool")
	}
	if err := m.mustBeEmpty(args[2]); err != nil {
		return nil, err
	}
	if want == 3 {
		return v, nil
	}
	return m.withState(v, args[3])
}

// fromType does _rebuild_from_type_v2 for tensors that are just that.
func (m *machine) fromType(args []any) (any, error) {
	if len(args) != 4 {
		return nil, refuse("it has %d arguments", len(args))
	}
	f, ok := args[0].(global)
	inner, ok2 := args[2].(*tuple)
	if !ok || !ok2 || f.module != "torch._utils" {
		return nil, errors.New("what it calls rebuilds no tensor")
	}
	switch args[1] {
	case global{"torch", "Tensor"}, global{"torch.nn.parameter", "Parameter"}, global{"torch.nn.parameter", "Buffer"}:
	default:
		return nil, refuse("it makes a tensor of %s", describe(args[1]))
	}
	made, err := m.call(f, inner.items)
	if err != nil {
		return nil, fmt.Errorf("%.120s: %w", f, err)
	}
	v, ok := made.(*view)
	if !ok {
		return nil, errors.New("what it calls rebuilds no tensor")
	}
	return m.withState(v, args[3])
}

// withState takes the attributes of a tensor: plain values under names that do not
// change what the tensor holds. They are left out.
func (m *machine) withState(v *view, state any) (any, error) {
	if pair, ok := state.(*tuple); ok && len(pair.items) == 2 {
		if err := m.mustBeEmpty(pair.items[1]); err != nil {
			return nil, errors.New("a tensor is given slots, which are not understood")
		}
		state = pair.items[0]
	}
	if _, ok := state.(none); ok {
		return v, nil
	}
	d, ok := state.(*dict)
	if !ok {
		return nil, refuse("a tensor is given %s as its state", describe(state))
	}
	if len(d.keys) == 0 {
		m.empty = append(m.empty, d)
		return v, nil
	}
	// It must not grow any more.
	return nil, refuse("a tensor is given the attribute %.80q", fmt.Sprint(d.keys[0]))
}
