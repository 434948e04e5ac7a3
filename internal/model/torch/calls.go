package torch

import (
	"errors"
	"fmt"
	"strings"
)

// calls does the opcodes that import, call, and refer outside.
func (m *machine) calls(op byte) error {
	switch op {
	case 'c':
		module, err := m.line()
		if err != nil {
			return err
		}
		name, err := m.line()
		if err != nil {
			return err
		}
		return m.imported(module, name)
	case 0x93: // STACK_GLOBAL
		items, err := m.pop(2)
		if err != nil {
			return err
		}
		module, ok := items[0].(string)
		name, ok2 := items[1].(string)
		if !ok || !ok2 {
			return errors.New("it imports a name that is no text")
		}
		return m.imported(module, name)
	case 'Q': // BINPERSID
		items, err := m.pop(1)
		if err != nil {
			return err
		}
		id, ok := items[0].(*tuple)
		if !ok || m.persistent == nil {
			return errors.New("it refers to something outside of the pickle that is no storage")
		}
		s, err := m.persistent(id.items)
		if err != nil {
			return err
		}
		return m.push(s)
	case 'b':
		items, err := m.pop(1)
		if err != nil {
			return err
		}
		state := items[0]
		top, err := m.top()
		if err != nil {
			return err
		}
		return build(top, state)
	}
	items, err := m.pop(2)
	if err != nil {
		return err
	}
	f, ok := items[0].(global)
	args, ok2 := items[1].(*tuple)
	if !ok || !ok2 {
		return refuse("it calls %s with %s", describe(items[0]), describe(items[1]))
	}
	if op == 0x81 && f != (global{"collections", "OrderedDict"}) && f != (global{"torch", "Size"}) {
		return refuse("it makes a %.120s without calling it, which is not understood", f)
	}
	v, err := m.call(f, args.items)
	if err != nil {
		return fmt.Errorf("%.120s: %w", f, err)
	}
	return m.push(v)
}

// imported pushes a name, if it is one of those that are understood.
func (m *machine) imported(module, name string) error {
	g := global{module, name}
	switch {
	case g.module == "__builtin__":
		g.module = "builtins"
	case strings.HasPrefix(g.module, "numpy._core"):
		g.module = "numpy.core" + strings.TrimPrefix(g.module, "numpy._core")
	}
	if known(g) {
		return m.push(g)
	}
	if g.module == "torch" && isType(g.name) {
		return m.push(plain{"torch.dtype", g.name})
	}
	if g.module == "torch" && strings.HasSuffix(g.name, "Storage") && strings.HasPrefix(g.name, "Q") {
		return m.push(g) // refused by name when a storage is made of it
	}
	switch {
	case strings.Contains(g.name, "qtensor"):
		return &Refusal{refuse("%.120s: a quantised tensor", g).Error(), "dequantise it with torch where it was made, and save that"}
	case strings.Contains(g.name, "sparse"):
		return &Refusal{refuse("%.120s: a sparse tensor", g).Error(), "make it dense with torch where it was made, and save that"}
	case strings.HasPrefix(g.module, "torch.nn.modules"):
		return &Refusal{refuse("%.120s: a module, whose code would be needed to load it", g).Error(), "save module.state_dict() with torch where it was made"}
	}
	return refuse("it imports %.120s, which rebuilds no tensor and no plain container", g)
}

// known are the names that are understood.
func known(g global) bool {
	switch g.String() {
	case "collections.OrderedDict", "collections.defaultdict", "_codecs.encode", "torch.Size", "torch.device", "torch.Tensor",
		"torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch.storage.UntypedStorage", "torch.ComplexDoubleStorage",
		"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3",
		"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch._tensor._rebuild_from_type_v2",
		"numpy.ndarray", "numpy.dtype", "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar",
		"builtins.dict", "builtins.list", "builtins.int", "builtins.float", "builtins.str", "builtins.bool":
		return true
	}
	_, ok := storageTypes[g.name]
	return ok && g.module == "torch"
}

// call makes what a name makes of its arguments.
func (m *machine) call(f global, args []any) (any, error) {
	switch f.String() {
	case "collections.OrderedDict":
		return orderedDict(args)
	case "collections.defaultdict":
		// What makes its missing values is not called for the values it has.
		if len(args) == 1 {
			if g, ok := args[0].(global); ok && (g.module == "builtins" || g.module == "collections") {
				return &dict{}, nil
			}
		}
	case "_codecs.encode":
		return encoded(args)
	case "torch.Size":
		if len(args) == 1 {
			if items, err := ints(args[0]); err == nil {
				return plain{"torch.Size", strings.Trim(fmt.Sprint(items), "[]")}, nil
			}
		}
	case "torch.device":
		return device(args)
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3":
		return m.tensor(f.name, args)
	case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state":
		return m.parameter(f.name, args)
	case "torch._tensor._rebuild_from_type_v2":
		return m.fromType(args)
	case "numpy.core.multiarray._reconstruct":
		return reconstruct(args)
	case "numpy.dtype":
		return newArrayType(args)
	case "numpy.core.multiarray.scalar":
		if len(args) == 2 {
			if t, ok := args[0].(*arrayType); ok {
				return plain{"numpy scalar", t.name}, nil
			}
		}
	default:
		return nil, errors.New("it is called, which is not understood")
	}
	return nil, errors.New("its arguments are not understood")
}

// orderedDict makes one of nothing, or of a list of pairs, as Python 2 wrote it.
func orderedDict(args []any) (any, error) {
	d := &dict{}
	if len(args) == 0 {
		return d, nil
	}
	pairs, ok := args[0].(*list)
	if !ok || len(args) != 1 {
		return nil, errors.New("its arguments are not understood")
	}
	for _, p := range pairs.items {
		var pair []any
		switch p := p.(type) {
		case *list:
			pair = p.items
		case *tuple:
			pair = p.items
		}
		if len(pair) != 2 {
			return nil, errors.New("an item of it is no pair")
		}
		if err := d.set(pair); err != nil {
			return nil, err
		}
	}
	// The list may still grow, and would not grow the dict.
	return d, nil
}

// encoded makes bytes of a text, as protocols below 3 write them.
func encoded(args []any) (any, error) {
	if len(args) != 2 || args[1] != "latin1" {
		return nil, errors.New("a codec other than latin1 is not understood")
	}
	s, ok := args[0].(string)
	if !ok {
		return nil, errors.New("what it encodes is no text")
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			return nil, errors.New("what it encodes is not latin1")
		}
		b = append(b, byte(r))
	}
	return b, nil
}

func device(args []any) (any, error) {
	if len(args) < 1 || len(args) > 2 {
		return nil, errors.New("its arguments are not understood")
	}
	kind, ok := args[0].(string)
	if !ok {
		return nil, errors.New("its arguments are not understood")
	}
	if len(args) == 2 {
		n, ok := args[1].(int64)
		if !ok {
			return nil, errors.New("its arguments are not understood")
		}
		kind = fmt.Sprintf("%s:%d", kind, n)
	}
	return plain{"torch.device", kind}, nil
}

// build gives a state to what was made.
func build(v, state any) error {
	switch v := v.(type) {
	case *dict:
		// What state_dict() notes beside its tensors: versions of modules.
		if attrs, ok := state.(*dict); ok && len(attrs.keys) == 1 && attrs.keys[0] == "_metadata" {
			return nil
		}
		return errors.New("a dict is given attributes other than _metadata")
	case *arrayType:
		return v.setState(state)
	case *array:
		return v.setState(state)
	}
	return refuse("%s is given a state, which is not understood", describe(v))
}
