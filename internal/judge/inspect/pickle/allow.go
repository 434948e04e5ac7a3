package pickle

import (
	"regexp"
	"slices"
	"strings"
)

// use says what a pickle may do with an imported name.
type use uint8

const (
	refused  use = iota
	constant     // it may stand there, and be handed on: a type of number, a flag
	function     // it may be called: it makes a plain thing from its arguments
	class        // it may be called and made without a call; its state may be set
)

// useOf is the whole list of names a pickle may import. Each rebuilds a tensor, an
// array, a plain container or a fitted estimator from its arguments and does
// nothing else; none takes a function to call, a path to open or code to run.
// Anything else is refused.
func useOf(g global) use {
	switch top, _, _ := strings.Cut(g.module, "."); top {
	case "builtins", "collections", "_codecs", "copyreg", "datetime", "decimal", "fractions", "uuid", "pathlib", "argparse", "types", "array", "re", "random", "typing", "zoneinfo", "pytz", "dateutil":
		return plainUse(g)
	case "numpy":
		return max(numpyUse(g), filled(g))
	case "torch":
		return max(torchUse(g), filled(g))
	case "torchvision", "statsmodels", "imblearn", "catboost":
		return filled(g)
	case "scipy", "pandas", "joblib", "sklearn", "_loss", "pyarrow": // scikit-learn 1.6 and newer has losses in a module _loss
		return learnedUse(g)
	case "xgboost", "lightgbm", "transformers", "accelerate", "pytorch_lightning", "lightning", "lightning_fabric", "omegaconf":
		return trainedUse(g)
	}
	return refused
}

// useOf is the list with the classes that a TorchScript archive has in its own code.
// Python has no module __torch__: only the interpreter of TorchScript finds them.
func (m *machine) useOf(g global) use {
	if m.script && (g.module == "__torch__" || strings.HasPrefix(g.module, "__torch__.")) {
		return class
	}
	return useOf(g)
}

// plainUse are the names of Python itself.
func plainUse(g global) use {
	switch g.module + "." + g.name {
	case "builtins.set", "builtins.frozenset", "builtins.bytearray", "builtins.complex", "builtins.slice", "builtins.range", "builtins.list",
		"builtins.dict", "builtins.tuple", "builtins.int", "builtins.float", "builtins.bool", "builtins.str", "builtins.bytes",
		"builtins.iter", "builtins.reversed", "builtins.enumerate", "builtins.zip":
		return function
	case "builtins.Exception", "builtins.ValueError", "builtins.TypeError", "builtins.KeyError", "builtins.IndexError", "builtins.RuntimeError", "builtins.AttributeError":
		return class
	case "builtins.object", "builtins.hash", "builtins.Ellipsis", "builtins.NotImplemented", "typing.Any":
		return constant
	case "_codecs.encode", // bytes of protocols below 3
		"builtins.getattr", // of one name only, see special
		"re._compile", "zoneinfo.ZoneInfo", "zoneinfo.ZoneInfo._unpickle", "pytz._UTC", "pytz._p", "dateutil.tz.tz.tzutc":
		return function
	case "copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__":
		return function
	case "collections.OrderedDict", "collections.defaultdict", "collections.deque", "collections.Counter", "collections.ChainMap", "collections.UserDict", "collections.UserList",
		"argparse.Namespace", "types.SimpleNamespace", "random.Random":
		return class
	case "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone", "decimal.Decimal", "fractions.Fraction",
		"pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath", "pathlib.Path", "pathlib.PurePath", "array._array_reconstructor", "array.array",
		"pathlib._local.PosixPath", "pathlib._local.WindowsPath", "pathlib._local.PurePosixPath", "pathlib._local.PureWindowsPath":
		return function
	case "uuid.UUID", "uuid.SafeUUID":
		return class
	}
	return refused
}

func plain(name string) bool { return !strings.ContainsAny(name, "._") }

// numpyUse are the names of numpy, in all the places where versions 1 and 2 keep
// them.
func numpyUse(g global) use {
	switch g.module {
	case "numpy":
		switch g.name {
		case "ndarray", "dtype", "matrix", "recarray", "record":
			return class
		case "mean", "median", "sum", "max", "min", "amax", "amin", "average", "std", "var":
			return constant // what an estimator pools with
		case "number", "integer", "floating", "inexact", "generic", "signedinteger", "unsignedinteger", "complexfloating", "character", "flexible":
			return constant // kinds of numbers that columns are chosen by
		case "poly1d":
			return class
		}
		if numpyFunction(g.name) {
			return constant
		}
		if numpyScalar(g.name) {
			return function
		}
	case "numpy.core.multiarray", "numpy._core.multiarray":
		if g.name == "_reconstruct" || g.name == "scalar" {
			return function
		}
	case "numpy.core":
		if g.name == "_ufunc_reconstruct" {
			return function // of few names only, see found
		}
	case "numpy.core.numeric", "numpy._core.numeric":
		if g.name == "_frombuffer" {
			return function
		}
	case "numpy.core._multiarray_umath", "numpy._core._multiarray_umath":
		if numpyFunction(g.name) {
			return constant
		}
	case "numpy.matrixlib.defmatrix", "numpy.core.defmatrix":
		if g.name == "matrix" {
			return class
		}
	case "numpy.core.records", "numpy._core.records", "numpy.rec":
		if g.name == "recarray" || g.name == "record" {
			return class
		}
	case "numpy.dtypes":
		if strings.HasSuffix(g.name, "DType") && plain(g.name) {
			return class
		}
	case "numpy.polynomial.polynomial", "numpy.polynomial.chebyshev", "numpy.polynomial.legendre":
		switch g.name {
		case "Polynomial", "Chebyshev", "Legendre":
			return class
		}
	case "numpy.lib.polynomial", "numpy.lib._polynomial_impl":
		if g.name == "poly1d" {
			return class
		}
	case "numpy.ma.core", "numpy.ma":
		switch g.name {
		case "_mareconstruct":
			return function
		case "MaskedArray", "MaskedConstant":
			return class
		}
	}
	return numpyRandom(g)
}

// numpyFunction reports whether a name is a function of numpy that columns are
// transformed with: of numbers, to numbers.
func numpyFunction(name string) bool {
	switch name {
	case "log", "log1p", "log2", "log10", "exp", "expm1", "exp2", "sqrt", "cbrt", "square", "abs", "absolute", "fabs", "sign", "reciprocal", "negative",
		"sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "arcsinh", "arctanh", "floor", "ceil", "rint", "trunc",
		"add", "subtract", "multiply", "divide", "true_divide", "power", "maximum", "minimum", "isnan", "isfinite", "logical_not":
		return true
	}
	return false
}

func numpyScalar(name string) bool {
	switch name {
	case "bool_", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "intc", "uintc", "longlong", "ulonglong",
		"float16", "float32", "float64", "longdouble", "complex64", "complex128", "clongdouble", "str_", "bytes_", "unicode_", "void", "object_",
		"datetime64", "timedelta64":
		return true
	}
	return false
}

// numpyRandom are the states of generators of random numbers.
func numpyRandom(g global) use {
	switch g.module + "." + g.name {
	case "numpy.random._pickle.__randomstate_ctor", "numpy.random._pickle.__generator_ctor", "numpy.random._pickle.__bit_generator_ctor",
		"numpy.random.__RandomState_ctor", "numpy.random.bit_generator.__pyx_unpickle_SeedSequence":
		return class
	case "numpy.random._mt19937.MT19937", "numpy.random._pcg64.PCG64", "numpy.random._pcg64.PCG64DXSM", "numpy.random._philox.Philox", "numpy.random._sfc64.SFC64",
		"numpy.random.bit_generator.SeedSequence", "numpy.random.mtrand.RandomState", "numpy.random._generator.Generator":
		return class
	}
	return refused
}

// torchUse are the names of torch.
func torchUse(g global) use {
	switch g.module {
	case "torch":
		switch g.name {
		case "Size", "device":
			return function
		case "Tensor":
			return class
		case "strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "jagged", "per_tensor_affine", "per_channel_affine",
			"per_channel_affine_float_qparams", "per_tensor_symmetric", "per_channel_symmetric", "contiguous_format", "channels_last", "preserve_format":
			return constant
		}
		if torchType(g.name) || strings.HasSuffix(g.name, "Storage") && plain(g.name) {
			return constant
		}
	case "torch._utils":
		switch g.name {
		case "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_nested_tensor", "_rebuild_qtensor", "_rebuild_sparse_tensor",
			"_rebuild_sparse_csr_tensor", "_rebuild_meta_tensor_no_storage", "_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor":
			return function
		}
	case "torch._tensor":
		if g.name == "_rebuild_from_type_v2" {
			return function
		}
	case "torch.nn.parameter":
		if g.name == "Parameter" || g.name == "Buffer" {
			return class
		}
	case "torch.nn.functional", "torch._C._nn":
		switch g.name {
		case "relu", "relu6", "gelu", "silu", "elu", "selu", "celu", "leaky_relu", "mish", "tanh", "sigmoid", "softmax", "log_softmax", "softplus", "hardtanh":
			return constant // what a layer activates with
		}
	case "torch.jit._pickle": // lists of TorchScript
		switch g.name {
		case "build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag":
			return function
		}
	case "torch.serialization":
		if g.name == "_get_layout" {
			return function
		}
	case "torch.storage":
		switch g.name {
		case "UntypedStorage", "TypedStorage":
			return constant
		case "_load_from_bytes":
			return function
		}
	}
	if learned(g) {
		return class
	}
	return refused
}

func torchType(name string) bool {
	switch name {
	case "float", "float16", "float32", "float64", "double", "half", "bfloat16", "int", "long", "short", "int8", "int16", "int32", "int64",
		"uint8", "uint16", "uint32", "uint64", "bool", "complex32", "complex64", "complex128", "cfloat", "cdouble", "chalf",
		"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2", "qint8", "quint8", "qint32", "quint4x2", "quint2x4", "bits8", "bits16", "uint1", "uint2", "uint3", "uint4", "uint5", "uint6", "uint7", "int1", "int2", "int3", "int4":
		return true
	}
	return false
}

// learnedUse are the names of scikit-learn and what it stands on.
func learnedUse(g global) use {
	switch {
	case learned(g), pandasClass(g):
		return class
	case g.module == "sklearn._loss._loss" && strings.HasPrefix(g.name, "__pyx_unpickle_") && learned(global{g.module, strings.TrimPrefix(g.name, "__pyx_unpickle_")}),
		g.module == "sklearn.covariance._graph_lasso" && g.name == "_DictWithDeprecatedKeys":
		return class // scikit-learn 1.1
	case handed(g):
		return constant
	case g.module == "pyarrow.lib" && slices.Contains([]string{"_restore_array", "py_buffer", "type_for_alias", "chunked_array", "schema", "field"}, g.name):
		return function // columns of text, as pandas 3 keeps them
	}
	return filled(g)
}

var (
	pandasTypes   = regexp.MustCompile(`^(?:[A-Z][A-Za-z0-9]*(?:Dtype|Array|Index)|Categorical|DataFrame|Series|NA|_new_[A-Z][A-Za-z]*Index)$`)
	pandasModules = regexp.MustCompile(`^pandas(?:\.arrays|\.core\.(?:arrays(?:\.[a-z_]+){1,2}|dtypes\.dtypes|indexes\.[a-z_]+|frame|series|categorical))?$`)
	pandasOffsets = regexp.MustCompile(`^(?:(?:Business|Custom|CustomBusiness|B)?(?:Day|Hour|Month(?:End|Begin)|Quarter(?:End|Begin)|Year(?:End|Begin))|Minute|Second|Milli|Micro|Nano|Week|Tick|SemiMonth(?:End|Begin)|DateOffset)$`)
	pandasScalars = regexp.MustCompile(`^(?:Timestamp|Timedelta|Period|Interval|_unpickle_timestamp|_timedelta_unpickle|_nat_unpickle|__nat_unpickle|IntIndex|BlockIndex|NA|__pyx_unpickle_(?:PeriodMixin|NDArrayBacked|_Period|IntervalMixin))$`)
)

// pandasClass reports whether a name is a table of pandas or a part of one: columns,
// their types, indexes and single values.
func pandasClass(g global) bool {
	switch {
	case pandasModules.MatchString(g.module):
		return pandasTypes.MatchString(g.name)
	case g.module == "pandas._libs.tslibs.offsets":
		return pandasOffsets.MatchString(g.name)
	case strings.HasPrefix(g.module, "pandas._libs."):
		return pandasScalars.MatchString(g.name)
	}
	return false
}

// trainedUse are the names of libraries that train: boosted trees, and what a run
// keeps beside its weights. An object of theirs is made without arguments, see
// special, since with some it would read a path.
func trainedUse(g global) use {
	switch g.module {
	case "xgboost.core", "lightgbm.basic":
		if g.name == "Booster" {
			return class
		}
	case "xgboost.sklearn":
		switch g.name {
		case "XGBModel", "XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor":
			return class
		}
	case "lightgbm.sklearn":
		switch g.name {
		case "LGBMModel", "LGBMClassifier", "LGBMRegressor", "LGBMRanker":
			return class
		}
	case "transformers.training_args", "transformers.training_args_seq2seq":
		switch g.name {
		case "TrainingArguments", "Seq2SeqTrainingArguments":
			return class
		case "OptimizerNames", "ParallelMode":
			return function
		}
	case "transformers.trainer_utils":
		switch g.name {
		case "IntervalStrategy", "SchedulerType", "HubStrategy", "SaveStrategy", "EvaluationStrategy", "FSDPOption", "ShardedDDPOption":
			return function
		}
	case "transformers.trainer_pt_utils", "accelerate.state":
		switch g.name {
		case "AcceleratorConfig", "PartialState", "AcceleratorState":
			return class
		}
	case "accelerate.utils.dataclasses":
		if g.name == "DistributedType" {
			return function
		}
	case "pytorch_lightning.callbacks.model_checkpoint", "pytorch_lightning.callbacks.early_stopping", "lightning.pytorch.callbacks.model_checkpoint", "lightning.pytorch.callbacks.early_stopping":
		if g.name == "ModelCheckpoint" || g.name == "EarlyStopping" {
			return constant
		}
	case "pytorch_lightning.utilities.parsing", "lightning_fabric.utilities.data", "lightning.fabric.utilities.data":
		if g.name == "AttributeDict" {
			return class
		}
	case "omegaconf.dictconfig", "omegaconf.listconfig", "omegaconf.base", "omegaconf.nodes":
		switch g.name {
		case "DictConfig", "ListConfig", "ContainerMetadata", "Metadata", "AnyNode", "IntegerNode", "FloatNode", "BooleanNode", "StringNode", "BytesNode", "PathNode":
			return class
		}
	}
	return refused
}
