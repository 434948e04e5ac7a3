package keras

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/model/tree"
)

const maxFindings = 50 // of one file; more say nothing new

// judge holds what is said of one file.
type judge struct {
	run    inspect.Run
	sev    inspect.Severity // of what is refused
	said   map[string]bool
	custom map[string]bool // classes that are not of Keras
	layers int
}

func (j *judge) refuse(rule, detail string) {
	if !j.said[rule+detail] && len(j.said) < maxFindings {
		j.said[rule+detail] = true
		j.run.Report(rule, j.sev, detail)
	}
}

// end reports what is known only after everything was read.
func (j *judge) end() {
	if len(j.custom) > 0 {
		names := slices.Sorted(maps.Keys(j.custom))
		j.run.Report("custom-object", inspect.Warn, fmt.Sprintf("it needs code that Keras does not have: %.200v", names))
	}
	if j.layers > 0 {
		j.run.Note(inspect.Model, fmt.Sprintf("%d objects of Keras", j.layers))
	}
}

// Judge reports what is to be known of the metadata of a layer, JSON, for scanners
// of other formats. What is no JSON is no configuration to a loader either.
func Judge(run inspect.Run, refuse inspect.Severity, metadata string) {
	j := &judge{run: run, sev: refuse, custom: map[string]bool{}, said: map[string]bool{}}
	j.text(metadata, false)
	j.end()
}

// text judges a configuration as JSON; of other texts only those that are one.
func (j *judge) text(b string, config bool) {
	doc, err := tree.JSON([]byte(b))
	if err != nil && !config {
		return
	}
	if err != nil {
		j.refuse("config", "a configuration is no JSON that can be read: "+err.Error())
		return
	}
	if inner, ok := doc.(string); ok && config && inner != b {
		j.text(inner, true)
		return
	}
	j.walk(doc)
}

// yaml judges a configuration as YAML, as Keras wrote it before version 2.6. Its tags are
// judged elsewhere.
func (j *judge) yaml(b []byte) {
	docs, err := tree.YAML(b, func(string) {})
	if err != nil {
		j.refuse("config", "a configuration is no YAML that can be read: "+err.Error())
	}
	j.walk(docs)
}

func (j *judge) walk(doc any) {
	tree.Walk(doc, func(at string, m tree.Map) bool {
		j.object(at, m)
		return true
	})
}

var (
	className    = regexp.MustCompile(`^[A-Z][A-Za-z0-9_]*$`)
	functionName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
)

// special are names with a meaning of their own that build only values; constant.
var special = []string{"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__tuple__", "__complex__"}

// code are classes that carry code or reach into other libraries; constant.
var code = map[string]string{
	"Lambda":             "code of Python",
	"LambdaCallback":     "code of Python",
	"TorchModuleWrapper": "a pickle of torch (CVE-2025-49655)",
	"FlaxLayer":          "code of Python",
	"JaxLayer":           "code of Python",
	"TFSMLayer":          "a model of TensorFlow from any path",
	"ClassMethod":        "a call of any class of TensorFlow",
	"InstanceMethod":     "a call of any method",
	"InstanceProperty":   "a read of any property",
	"__typespec__":       "a type by its name in any module",
	"__lambda__":         "code of Python",
}

// object judges one object of a configuration.
func (j *judge) object(at string, m tree.Map) {
	if t, ok := m["function_type"]; ok && t != "function" && t != nil {
		j.refuse("lambda", fmt.Sprintf("%.80s: it carries code of Python", at))
	}
	if v, ok := m["vocabulary"].(string); ok {
		j.refuse("path", fmt.Sprintf("%.80s: its vocabulary is read from %.80q", at, v))
	}
	class, has := m["class_name"]
	if !has {
		if mod, ok := m["module"].(string); ok && m["config"] != nil {
			j.refuse("module", fmt.Sprintf("%.80s: an object of %.60q without a class", at, mod))
		}
		return
	}
	name, ok := class.(string)
	if !ok {
		j.refuse("class", fmt.Sprintf("%.80s: its class is no text", at))
		return
	}
	j.layers++
	mod, ok := m["module"].(string)
	if !ok && m["module"] != nil {
		j.refuse("module", fmt.Sprintf("%.80s: its module is no text", at))
		return
	}
	registered, _ := m["registered_name"].(string)
	switch bare := name[strings.LastIndexAny(name, ".>")+1:]; {
	case code[name] != "" || code[bare] != "":
		j.refuse("lambda", fmt.Sprintf("%.80s: %.60s is %s", at, name, code[bare]))
	case name == "TFOpLambda" || name == "SlicingOpLambda":
		j.operation(at, m)
	case name == "TypeSpec":
		if of, _ := m["type_spec"].(string); !strings.HasPrefix(of, "tf.") {
			j.refuse("class", fmt.Sprintf("%.80s: a type %.60q that is not of TensorFlow", at, of))
		}
	case slices.Contains(special, name):
	case name == "function":
		j.function(at, mod, registered, m["config"])
	default:
		j.class(at, mod, name, registered)
	}
}

// class judges a class by its module and name.
func (j *judge) class(at, mod, name, registered string) {
	pack, bare, packed := strings.Cut(name, ">")
	switch {
	case packed && className.MatchString(bare) && (mod == "" || ours(mod) != ""):
		if !family(pack) {
			j.custom[clip(name)] = true
		}
	case !className.MatchString(name):
		j.refuse("class", fmt.Sprintf("%.80s: %.60q is no class of Keras", at, name))
	case mod != "" && ours(mod) == "":
		j.refuse("module", fmt.Sprintf("%.80s: it would import %.60q for %.60q", at, mod, name))
	case strings.Contains(registered, ">"):
		if pack, _, _ := strings.Cut(registered, ">"); !family(pack) {
			j.custom[clip(registered)] = true
		}
	case mod == "" && !known(name):
		j.custom[clip(name)] = true
	case !known(name) && ours(mod) != "ops" && ours(mod) != "keras":
		j.custom[clip(mod+"."+name)] = true
	}
}

// family reports whether a package of registered classes is Keras itself.
func family(pack string) bool {
	return slices.Contains([]string{"keras", "builtins", "Keras"}, pack)
}

func clip(s string) string { return s[:min(len(s), 80)] }

// function judges a function that is named, to be called when the model is used.
func (j *judge) function(at, mod, registered string, config any) {
	name, ok := config.(string)
	if !ok {
		j.refuse("function", fmt.Sprintf("%.80s: a function without a name", at))
		return
	}
	area := ours(mod)
	switch {
	case !functionName.MatchString(name) || slices.Contains([]string{"get", "deserialize", "serialize"}, name):
		j.refuse("function", fmt.Sprintf("%.80s: %.60q is no function of a model", at, name))
	case strings.Contains(registered, ">") && (mod == "" || mod == "builtins" || area != ""):
		j.custom[clip(registered)] = true
	case mod == "" || mod == "builtins" || slices.Contains([]string{"activations", "losses", "metrics"}, area):
		if !slices.Contains(strings.Fields(functions), name) {
			j.refuse("function", fmt.Sprintf("%.80s: %.60q is no activation, loss or metric of Keras", at, name))
		}
	case area == "ops" && !slices.Contains([]string{"map", "scan", "custom_gradient", "vectorized_map", "while_loop", "fori_loop", "cond", "switch", "associative_scan"}, name):
	default:
		j.refuse("function", fmt.Sprintf("%.80s: it would import %.60q from %.60q", at, name, mod))
	}
}

// areas are the parts of Keras that models are built from; constant. Those that
// load, save, fetch or configure are not among them.
var areas = []string{
	"layers", "models", "initializers", "optimizers", "losses", "metrics", "regularizers", "constraints", "activations", "dtype_policies", "quantizers", "ops", "random",
}

// engines are modules of Keras 2 with what is in models now; constant.
var engines = []string{"engine.functional", "engine.sequential", "engine.training", "engine.input_layer", "engine.base_layer", "mixed_precision", "mixed_precision.policy", "mixed_precision.loss_scale_optimizer"}

// ours returns the part of Keras that a module is of, "keras" for its root, and ""
// for every other module.
func ours(mod string) string {
	if !strings.HasPrefix(mod, "keras") && !strings.HasPrefix(mod, "tf_keras") {
		return ""
	}
	_, in, ok := strings.Cut(mod, ".")
	if root := strings.TrimSuffix(mod, "."+in); root != "keras" && root != "tf_keras" {
		return ""
	}
	if !ok {
		return "keras"
	}
	in = strings.TrimPrefix(in, "src.")
	if slices.Contains(engines, in) {
		return "models"
	}
	for part := range strings.SplitSeq(in, ".") {
		if !functionName.MatchString(part) {
			return ""
		}
	}
	if in == "src" {
		return ""
	}
	area, _, _ := strings.Cut(in, ".")
	if !slices.Contains(areas, area) {
		return ""
	}
	return area
}

// tensorflow are the operations that a functional model of Keras 2 may call; the
// rest of TensorFlow reads and writes files, and runs Python. Constant.
var tensorflow = regexp.MustCompile(`^(__operators__\.[a-z_]+|math\.[a-z0-9_]+|nn\.[a-z0-9_]+|linalg\.[a-z0-9_]+|image\.(resize|crop_to_bounding_box|pad_to_bounding_box|resize_with_pad|resize_with_crop_or_pad|central_crop|flip_left_right|flip_up_down|rgb_to_grayscale|per_image_standardization|transpose)|compat\.v1\.(shape|transpose|squeeze|gather|nn\.[a-z0-9_]+|math\.[a-z0-9_]+)|` +
	`reshape|concat|cast|expand_dims|squeeze|transpose|split|stack|unstack|tile|pad|gather|gather_nd|shape|size|rank|zeros_like|ones_like|zeros|ones|fill|clip_by_value|where|identity|convert_to_tensor|one_hot|slice|strided_slice|broadcast_to|repeat|reverse|stop_gradient|range|boolean_mask|cumsum|einsum|tensordot|matmul|norm|roll|sort|argsort|searchsorted|meshgrid|sequence_mask|abs|sign|round|exp|sqrt|square|sin|cos|tanh|sigmoid|maximum|minimum|add|subtract|multiply|divide|pow|argmax|argmin|equal|less|greater|logical_and|logical_or|logical_not|reduce_[a-z_]+)$`)

// operation judges a call of TensorFlow that a layer makes.
func (j *judge) operation(at string, m tree.Map) {
	config, _ := m["config"].(tree.Map)
	if f, _ := config["function"].(string); !tensorflow.MatchString(f) {
		j.refuse("operation", fmt.Sprintf("%.80s: it would call %.60q of TensorFlow", at, f))
	}
}

func known(name string) bool { return slices.Contains(strings.Fields(classes), name) }
