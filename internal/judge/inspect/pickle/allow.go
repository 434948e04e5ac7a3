package pickle

import "strings"

// allowed is the whole list of names a pickle may import. Each rebuilds a
// tensor, an array or a plain container from its arguments and does nothing
// else; none takes a function, a path or code. Anything else is refused.
func allowed(module, name string) bool {
	switch module {
	case "collections":
		return name == "OrderedDict" || name == "defaultdict" || name == "deque" || name == "Counter"
	case "builtins", "__builtin__":
		switch name {
		case "set", "frozenset", "bytearray", "complex", "slice", "range", "xrange", "list", "dict", "tuple", "int", "float", "bool", "str", "bytes":
			return true
		}
	case "_codecs":
		return name == "encode" // bytes of protocols below 3
	case "copyreg", "copy_reg":
		return false
	case "numpy":
		return numpyName(name)
	case "numpy.core.multiarray", "numpy._core.multiarray":
		return name == "_reconstruct" || name == "scalar"
	case "numpy.core.numeric", "numpy._core.numeric":
		return name == "_frombuffer"
	case "numpy.matrixlib.defmatrix", "numpy.core.defmatrix":
		return name == "matrix"
	case "numpy.dtypes":
		return strings.HasSuffix(name, "DType") && plain(name)
	case "torch":
		return torchName(name)
	case "torch._utils":
		switch name {
		case "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter", "_rebuild_qtensor", "_rebuild_sparse_tensor":
			return true
		}
	case "torch._tensor":
		return name == "_rebuild_from_type_v2"
	case "torch.nn.parameter":
		return name == "Parameter"
	case "torch.storage":
		return name == "UntypedStorage" || name == "TypedStorage"
	}
	return false
}

func plain(name string) bool { return !strings.ContainsAny(name, "._") }

func numpyName(name string) bool {
	switch name {
	case "ndarray", "dtype", "bool_", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
		"float16", "float32", "float64", "complex64", "complex128", "str_", "bytes_", "datetime64", "timedelta64":
		return true
	}
	return false
}

func torchName(name string) bool {
	switch name {
	case "Size", "device", "Tensor", "float", "float16", "float32", "float64", "double", "half", "bfloat16", "int8", "int16", "int32", "int64",
		"uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "qint8", "quint8", "qint32":
		return true
	}
	return strings.HasSuffix(name, "Storage") && plain(name)
}
