package pickle

import (
	"regexp"
	"slices"
	"strings"
)

// Libraries whose objects are made without arguments and filled by their state: modules
// of torch and torchvision, optimisers, distributions of scipy, models of statsmodels,
// imbalanced-learn and catboost. What the code of each does with a state was read; where
// it would run what the state says, the state is held against what honest writers write.

var (
	quantised = regexp.MustCompile(`^torch\.(?:ao\.)?nn\.(?:quantized|quantizable|intrinsic|qat|intrinsic\.quantized|intrinsic\.qat|quantized\.dynamic|intrinsic\.quantized\.dynamic)(?:\.modules)?(?:\.[a-z_]+)?$`)
	className = regexp.MustCompile(`^_?[A-Z][A-Za-z0-9_]*$`)
	// vision are architectures, the layers that they are of, and what pictures go through before.
	vision = regexp.MustCompile(`^torchvision\.(?:models\.(?:quantization\.|segmentation\.|detection\.|video\.)?[a-z0-9_]+|ops\.(?:misc|stochastic_depth|feature_pyramid_network|poolers)|transforms\.transforms)$`)
	// distribution is a distribution of scipy, which its instances are of.
	distribution = regexp.MustCompile(`^[a-z][a-z0-9_]*_gen$`)
	statsmodels  = regexp.MustCompile(`^statsmodels\.(?:base\.(?:data|model|wrapper)|regression\.linear_model|discrete\.(?:discrete_model|count_model)|genmod\.(?:generalized_linear_model|generalized_estimating_equations|families\.(?:family|links|varfuncs))|robust\.(?:robust_linear_model|norms)|tools\.tools)$`)
	// modelled is a model of statsmodels, its results, or a part of these. Those that read
	// files or run programs are in other modules.
	modelled = regexp.MustCompile(`^(?:[A-Z][A-Za-z0-9]*|cloglog|log|logit|probit|identity|inverse_squared|inverse_power)$`)
	sampled  = regexp.MustCompile(`^imblearn\.(?:over_sampling|under_sampling|combine|ensemble|pipeline)(?:\._?[a-z_]+)*$`)
)

// samplers are the estimators of imbalanced-learn.
const samplers = " Pipeline SMOTE SMOTENC SMOTEN ADASYN BorderlineSMOTE KMeansSMOTE SVMSMOTE RandomOverSampler RandomUnderSampler ClusterCentroids " +
	"CondensedNearestNeighbour EditedNearestNeighbours RepeatedEditedNearestNeighbours AllKNN InstanceHardnessThreshold NearMiss NeighbourhoodCleaningRule " +
	"OneSidedSelection TomekLinks SMOTEENN SMOTETomek BalancedBaggingClassifier BalancedRandomForestClassifier EasyEnsembleClassifier RUSBoostClassifier "

// filled are the names of these libraries.
func filled(g global) use {
	has := func(names string) bool { return strings.Contains(names, " "+g.name+" ") }
	switch {
	case quantised.MatchString(g.module) && className.MatchString(g.name),
		vision.MatchString(g.module) && className.MatchString(g.name) && !strings.Contains(g.name, "Weights") && g.name != "Lambda" && g.name != "InterpolationMode":
		return class
	case g.module == "torchvision.transforms.functional" && g.name == "InterpolationMode":
		return function
	case g.module == "torch" && g.name == "ScriptObject": // see scriptClasses
		return class
	case strings.HasPrefix(g.module, "torch.optim."):
		return optimises(g)
	case g.module == "torch.nn.modules.module" && g.name == "_WrappedHook", g.module == "torch.nn.utils.weight_norm" && g.name == "WeightNorm",
		g.module == "torch.nn.utils.spectral_norm" && has(" SpectralNorm SpectralNormLoadStateDictPreHook SpectralNormStateDictHook "):
		return class
	case g.module == "numpy" && g.name == "vectorize", // of a distribution: its entropy
		(g.module == "scipy.stats._continuous_distns" || g.module == "scipy.stats._discrete_distns") && distribution.MatchString(g.name),
		g.module == "scipy.stats._distn_infrastructure" && has(" rv_frozen rv_continuous_frozen rv_discrete_frozen "):
		return class
	case strings.HasPrefix(g.module, "scipy.stats._") && entropy(g.name):
		return constant
	case statsmodels.MatchString(g.module) && modelled.MatchString(g.name),
		sampled.MatchString(g.module) && has(samplers),
		g.module == "catboost.core" && has(" CatBoost CatBoostClassifier CatBoostRegressor CatBoostRanker "):
		return class
	}
	return refused
}

// optimises are the optimisers of torch and what changes their rates, with the methods
// that versions before 2 kept by their names.
func optimises(g global) use {
	const plain = " Adadelta Adagrad Adam AdamW Adamax ASGD LBFGS NAdam RAdam RMSprop Rprop SGD SparseAdam Adafactor Muon "
	const rates = " LambdaLR MultiplicativeLR StepLR MultiStepLR ConstantLR LinearLR ExponentialLR SequentialLR PolynomialLR CosineAnnealingLR ChainedScheduler " +
		"ReduceLROnPlateau CyclicLR CosineAnnealingWarmRestarts OneCycleLR "
	switch {
	case g.module == "torch.optim.lr_scheduler" && slices.Contains(annealing, g.name):
		return constant
	case g.module == "torch.optim.lr_scheduler" && strings.Contains(rates, " "+g.name+" "), strings.Contains(plain, " "+g.name+" "):
		return class
	}
	return refused
}

// annealing are the methods of schedulers that compute a rate; constant.
var annealing = []string{
	"OneCycleLR._annealing_cos", "OneCycleLR._annealing_linear",
	"CyclicLR._triangular_scale_fn", "CyclicLR._triangular2_scale_fn", "CyclicLR._exp_range_scale_fn",
}

// entropy reports whether a name is the method of a distribution of scipy that discrete
// ones keep vectorised.
func entropy(name string) bool {
	of, ok := strings.CutSuffix(name, "._entropy")
	return ok && distribution.MatchString(of)
}

// method returns the name of a method that is taken from an object or a class of one of
// these libraries; ok is false for all but those that only compute.
func method(of value, name string) (g global, ok bool) {
	if of.data == nil || of.kind != product && of.kind != callee {
		return g, false
	}
	g = global{of.g.module, of.g.name + "." + name}
	switch {
	case of.g.module == "torch.optim.lr_scheduler":
		return g, slices.Contains(annealing, g.name)
	case strings.HasPrefix(of.g.module, "scipy.stats._"):
		return g, entropy(g.name)
	}
	return g, false
}

// parser is the code that scipy compiles when a distribution is given its state
// (scipy/stats/_distn_infrastructure.py, parse_arg_template): names, and nothing else,
// stand in it where distributions differ.
var parser = regexp.MustCompile(`^\ndef _parse_args\(self, ((?:[A-Za-z_][A-Za-z0-9_]*, )*) ?loc=0(?:, scale=1)?\):\n` +
	`    return \(((?:[A-Za-z_][A-Za-z0-9_]*, )*)\), loc, (?:scale|1)\n\n` +
	`def _parse_args_rvs\(self, ((?:[A-Za-z_][A-Za-z0-9_]*, )*) ?loc=0(?:, scale=1)?, size=None\):\n` +
	`    return self\._argcheck_rvs\(((?:[A-Za-z_][A-Za-z0-9_]*, )*) ?loc, (?:scale|1), size=size\)\n\n` +
	`def _parse_args_stats\(self, ((?:[A-Za-z_][A-Za-z0-9_]*, )*) ?loc=0(?:, scale=1)?, moments='mv'\):\n` +
	`    return \(((?:[A-Za-z_][A-Za-z0-9_]*, )*)\), loc, (?:scale|1), moments\n$`)

// runs reports whether a key of a state has a library run what its value says: scipy
// compiles one, statsmodels evaluates a formula.
func runs(key, value value) bool {
	switch {
	case key.text == "_parse_arg_template":
		return value.kind != text || !parser.MatchString(value.text)
	case strings.HasPrefix(key.text, "restore_"):
		return true
	}
	return false
}

// scriptClasses are the classes of torch's own that weights of quantised modules are
// packed in; constant. Others run code of libraries when they are given a state.
var scriptClasses = regexp.MustCompile(`^__torch__\.torch\.classes\.(?:quantized\.(?:Linear|Conv2d|Conv3d|Embedding)PackedParamsBase|rnn\.CellParamsBase|sparse\.LinearPackedParamsBase)$`)

// fits says why a state is none that an object of these libraries may be given.
func fits(of global, state value) (why string) {
	switch {
	case strings.HasPrefix(of.module, "scipy.stats."), strings.HasPrefix(of.module, "statsmodels."):
		if state.kind != dict || state.runs {
			return "a state with code that its library would run"
		}
	case of == global{"numpy", "vectorize"}:
		if f, _ := state.get("pyfunc"); f.kind != callee || !strings.HasPrefix(f.g.module, "scipy.stats._") || !entropy(f.g.name) || state.lost {
			return "a function that is not known"
		}
	case of == global{"torch", "ScriptObject"}:
		if state.kind != tuple || len(state.items) != 2 || state.items[1].kind != text || !scriptClasses.MatchString(state.items[1].text) {
			return "the state of a class that is not known"
		}
	}
	return ""
}

// tools are functions that are called where they stand: handed on, to be called when a
// model is used, they would reach further. Constant.
var tools = []global{
	{"builtins", "getattr"},
	{"builtins", "iter"},
	{"copyreg", "_reconstructor"},
	{"copyreg", "__newobj__"},
	{"copyreg", "__newobj_ex__"},
	{"torch.storage", "_load_from_bytes"},
	{"torch._tensor", "_rebuild_from_type_v2"},
	{"numpy.core", "_ufunc_reconstruct"},
}
