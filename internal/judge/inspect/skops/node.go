package skops

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/model/tree"
)

// loaders are the kinds of nodes that pass, with the classes that go with each, as
// module and class; skops, io/_general.py, _numpy.py, _scipy.py and _sklearn.py,
// protocols 0 to 2. Those that are not here call what a file names: methods,
// partial functions, functions of operator, reduced constructors. Constant.
var loaders = map[string]*regexp.Regexp{
	"DictNode":                    regexp.MustCompile(`^(builtins dict|collections OrderedDict|sklearn\.utils(\._bunch)? Bunch)$`),
	"DefaultDictNode":             regexp.MustCompile(`^collections defaultdict$`),
	"ListNode":                    regexp.MustCompile(`^builtins list$`),
	"SetNode":                     regexp.MustCompile(`^builtins set$`),
	"TupleNode":                   regexp.MustCompile(`^builtins tuple$`),
	"BytesNode":                   regexp.MustCompile(`^builtins bytes$`),
	"BytearrayNode":               regexp.MustCompile(`^builtins bytearray$`),
	"SliceNode":                   regexp.MustCompile(`^builtins slice$`),
	"JsonNode":                    regexp.MustCompile(`^builtins (str|int|float|bool|NoneType)$`),
	"TypeNode":                    regexp.MustCompile(`^(builtins (str|int|float|bool|list|dict|tuple|set|bytes|complex|NoneType)|` + scalar + `)$`),
	"NdArrayNode":                 regexp.MustCompile(`^(numpy (ndarray|matrix)|` + scalar + `)$`),
	"MaskedArrayNode":             regexp.MustCompile(`^numpy\.ma(\.core)? MaskedArray$`),
	"DTypeNode":                   regexp.MustCompile(`^(numpy dtype(\[[a-z0-9_]+\])?|numpy\.dtypes [A-Z][A-Za-z0-9]*DType)$`),
	"RandomStateNode":             regexp.MustCompile(`^numpy\.random(\.mtrand)? RandomState$`),
	"RandomGeneratorNode":         regexp.MustCompile(`^numpy\.random(\._generator)? Generator$`),
	"SparseMatrixNode":            regexp.MustCompile(`^scipy\.sparse(\._?[a-z]+)? (bsr|coo|csc|csr|dia|dok|lil)_(matrix|array)$`),
	"TreeNode":                    regexp.MustCompile(`^sklearn\.tree\._tree Tree$`),
	"LossNode":                    regexp.MustCompile(`^` + loss + `$`),
	"SGDNode":                     regexp.MustCompile(`^` + loss + `$`),
	"_DictWithDeprecatedKeysNode": regexp.MustCompile(`^sklearn\.covariance\._graph_lasso _DictWithDeprecatedKeys$`),
}

const (
	scalar = `numpy (bool_?|str_|bytes_|object_|void|datetime64|timedelta64|longdouble|clongdouble|longlong|ulonglong|intc|uintc|(u?int|float|complex)(8|16|32|64|128|256|_)?)`
	loss   = `((_loss|sklearn\._loss\._loss) Cy[A-Z][A-Za-z]+|sklearn\.linear_model\._sgd_fast (Hinge|SquaredHinge|Log|ModifiedHuber|SquaredLoss|Huber|EpsilonInsensitive|SquaredEpsilonInsensitive))`
)

// object is a class of scikit-learn, or one that its estimators keep. Its helpers
// are not: they open files, start processes and call what they are given.
var (
	object  = regexp.MustCompile(`^(sklearn(\.[a-z0-9_]+)+ _?[A-Z][A-Za-z0-9_]*|scipy\.interpolate\._bsplines BSpline|scipy\.stats\._distn_infrastructure rv_[a-z]+_frozen)$`)
	helpers = regexp.MustCompile(`^sklearn\.(externals|utils|datasets|tests|conftest|_build_utils|inspection|_config|show_versions)(\.| )|\.tests?[. ]|joblib`)
)

// function is a function of scikit-learn or scipy that models are given.
var function = regexp.MustCompile(`^(sklearn\.(feature_selection\._(univariate_selection|mutual_info)|cluster\._kmeans|metrics(\.[a-z_]+)*|decomposition\._fastica|gaussian_process\.kernels|neural_network\._base) _?[a-z][a-z0-9_]*|` +
	`scipy\.special(\._u?funcs|\._basic|\._logsumexp)? [a-z][a-z0-9_]*|scipy\.spatial\.distance [a-z]+|scipy\._lib\.array_api_compat\.numpy\._aliases asarray)$`)

// numeric are the functions of numpy that compute and do nothing else.
const numeric = `
abs absolute acos acosh add all amax amin any arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin around array
asarray asin asinh atan atan2 atanh average bitwise_and bitwise_count bitwise_invert bitwise_left_shift bitwise_not bitwise_or
bitwise_right_shift bitwise_xor cbrt ceil clip concatenate conj conjugate copysign cos cosh cumsum deg2rad degrees divide divmod
dot equal exp exp2 expm1 fabs float_power floor floor_divide fmax fmin fmod frexp gcd greater greater_equal heaviside hypot invert
isfinite isinf isnan isnat lcm ldexp left_shift less less_equal log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not
logical_or logical_xor matmul matvec max maximum mean median min minimum mod modf multiply nanmean nanmedian negative nextafter
not_equal percentile positive pow power prod ptp quantile rad2deg radians ravel reciprocal remainder reshape right_shift rint
round sign signbit sin sinh spacing sqrt square squeeze std subtract sum tan tanh true_divide trunc unique var vecdot vecmat where
`

// node judges one object of a schema; rule is empty if nothing is to be said.
func node(m tree.Map) (rule, detail string) {
	if path := m["module_path"]; path != nil {
		// A function of protocol 0 is imported by these, whatever its node says.
		mod, _ := path.(string)
		name, _ := m["function"].(string)
		if !scores(mod, name) && !computes(mod, name) {
			return "function", fmt.Sprintf("it would hand %.80q.%.60q to the model, to be called", mod, name)
		}
	}
	loader, class, module := m["__loader__"], m["__class__"], m["__module__"]
	if loader == nil && class == nil && module == nil {
		return "", ""
	}
	kind, a := loader.(string)
	name, b := class.(string)
	mod, c := module.(string)
	if !a || !b || !c {
		return "schema", "a node without loader, class or module"
	}
	what := mod + " " + name
	pattern := loaders[kind]
	switch {
	case kind == "ObjectNode":
		if !object.MatchString(what) || helpers.MatchString(what) {
			return "class", fmt.Sprintf("it would build %.80s.%.60s", mod, name)
		}
	case kind == "FunctionNode":
		if !scores(mod, name) && !computes(mod, name) {
			return "function", fmt.Sprintf("it would hand %.80s.%.60s to the model, to be called", mod, name)
		}
	case kind == "TypeNode" && object.MatchString(what) && !helpers.MatchString(what):
	case kind == "OperatorFuncNode" && what == "operator itemgetter":
	case pattern == nil:
		return "loader", fmt.Sprintf("%.40q of %.60s.%.60s calls what the file names, or is not known", kind, mod, name)
	case !pattern.MatchString(what):
		return "mismatch", fmt.Sprintf("%.40s does not build %.80s.%.60s", kind, mod, name)
	}
	return "", ""
}

// scores reports whether a function of scikit-learn or scipy is one that models are
// given, and none that its module has imported itself.
func scores(mod, name string) bool {
	what := mod + " " + name
	imported := slices.Contains([]string{"partial", "wraps", "delayed", "clone", "warn", "namedtuple", "itemgetter", "signature", "get_config", "test", "check_memory", "load", "dump"}, name)
	return function.MatchString(what) && !helpers.MatchString(what) && !imported
}

// computes reports whether a function of numpy only computes.
func computes(mod, name string) bool {
	home := slices.Contains([]string{"numpy", "numpy.core._multiarray_umath", "numpy._core._multiarray_umath", "numpy.core.fromnumeric", "numpy._core.fromnumeric"}, mod)
	return home && slices.Contains(strings.Fields(numeric), name)
}
