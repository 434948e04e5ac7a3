package torch

import (
	"errors"
	"fmt"
	"slices"
)

// What stands on the stack besides bool, int64, float64, string and []byte.
type (
	none  struct{}
	large string // an int beyond 63 bits, in decimal
	list  struct{ items []any }
	tuple struct{ items []any }
	// global is an imported name: a function, a class or a constant.
	global struct{ module, name string }
	// plain is a value that is no tensor and not looked into, such as a device.
	plain struct{ kind, text string }
	// dict keeps the order in which it was filled. Keys are string or int64.
	dict struct {
		keys, values []any
		index        map[any]struct{}
	}
)

// set adds key, value, key, value …
func (d *dict) set(items []any) error {
	if len(items)%2 != 0 {
		return errors.New("a key has no value")
	}
	if d.index == nil && len(items) > 0 {
		d.index = map[any]struct{}{}
	}
	for i := 0; i < len(items); i += 2 {
		switch items[i].(type) {
		case string, int64:
		default:
			return refuse("a key of a dict is %s; only text and whole numbers are understood", describe(items[i]))
		}
		if _, twice := d.index[items[i]]; twice {
			return refuse("key %.80q stands twice in a dict", fmt.Sprint(items[i]))
		}
		d.index[items[i]] = struct{}{}
		d.keys = append(d.keys, items[i])
		d.values = append(d.values, items[i+1])
	}
	return nil
}

func (g global) String() string { return g.module + "." + g.name }

// describe says what kind of value it is.
func describe(v any) string {
	switch v := v.(type) {
	case none:
		return "None"
	case bool:
		return "a bool"
	case int64, large:
		return "a whole number"
	case float64:
		return "a float"
	case string:
		return "a text"
	case []byte:
		return "bytes"
	case *list:
		return "a list"
	case *tuple:
		return "a tuple"
	case *dict:
		return "a dict"
	case global:
		return fmt.Sprintf("the name %.120s", v)
	case plain:
		return v.kind
	case *storage:
		return "a storage"
	case *view:
		return "a tensor"
	case *arrayType:
		return "a type of numpy"
	case *array:
		return "an array of numpy"
	}
	return "something unknown"
}

// ints returns the items of a tuple, or the items of a list, as whole numbers that
// are not negative.
func ints(v any) ([]int64, error) {
	var items []any
	switch v := v.(type) {
	case *tuple:
		items = v.items
	default:
		return nil, refuse("%s stands where a tuple of numbers is expected", describe(v))
	}
	if len(items) > maxDims {
		return nil, refuse("a tensor has %d dimensions, more than %d", len(items), maxDims)
	}
	out := make([]int64, 0, len(items))
	for _, item := range items {
		n, ok := item.(int64)
		if !ok || n < 0 {
			return nil, refuse("a shape or a stride holds %s, or is negative", describe(item))
		}
		out = append(out, n)
	}
	return out, nil
}

// typeOf is what a tensor of torch is stored as.
type typeOf struct {
	safe string // name in safetensors
	size int64  // bytes of an element
	swap int64  // bytes of what stands in one order: half an element of complex numbers
}

// storageTypes are the classes of storages; constant.
var storageTypes = map[string]typeOf{
	"DoubleStorage": {"F64", 8, 8}, "FloatStorage": {"F32", 4, 4}, "HalfStorage": {"F16", 2, 2}, "BFloat16Storage": {"BF16", 2, 2},
	"LongStorage": {"I64", 8, 8}, "IntStorage": {"I32", 4, 4}, "ShortStorage": {"I16", 2, 2}, "CharStorage": {"I8", 1, 1},
	"ByteStorage": {"U8", 1, 1}, "BoolStorage": {"BOOL", 1, 1}, "ComplexFloatStorage": {"C64", 8, 4},
}

// tensorTypes are the types of elements, by their first and their other names; constant.
var tensorTypes = map[string]typeOf{
	"float64": {"F64", 8, 8}, "double": {"F64", 8, 8}, "float32": {"F32", 4, 4}, "float": {"F32", 4, 4}, "float16": {"F16", 2, 2}, "half": {"F16", 2, 2},
	"bfloat16": {"BF16", 2, 2}, "int64": {"I64", 8, 8}, "long": {"I64", 8, 8}, "int32": {"I32", 4, 4}, "int": {"I32", 4, 4}, "int16": {"I16", 2, 2},
	"short": {"I16", 2, 2}, "int8": {"I8", 1, 1}, "uint8": {"U8", 1, 1}, "uint16": {"U16", 2, 2}, "uint32": {"U32", 4, 4}, "uint64": {"U64", 8, 8},
	"bool": {"BOOL", 1, 1}, "complex64": {"C64", 8, 4}, "cfloat": {"C64", 8, 4}, "float8_e4m3fn": {"F8_E4M3", 1, 1}, "float8_e5m2": {"F8_E5M2", 1, 1},
}

// otherTypes are those that torch has and safetensors has not; they may be named
// in a checkpoint, and no tensor may be of them; constant.
var otherTypes = []string{
	"complex32", "chalf", "complex128", "cdouble", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
	"qint8", "quint8", "qint32", "quint4x2", "quint2x4",
}

func isType(name string) bool {
	_, ok := tensorTypes[name]
	return ok || slices.Contains(otherTypes, name)
}
