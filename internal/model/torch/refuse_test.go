package torch_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"enisle/internal/model/torch"
)

// Pickles by hand: each returns the opcodes that push one value.

func text(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func number(n int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func numbers(n ...int64) string {
	s := "("
	for _, x := range n {
		s += number(x)
	}
	return s + "t"
}

func name(module, name string) string { return "c" + module + "\n" + name + "\n" }

func storage(class, key string, numel int64) string {
	return "(" + text("storage") + name("torch", class) + text(key) + text("cpu") + number(numel) + "tQ"
}

const hooks = "ccollections\nOrderedDict\n)R"

func tensor(storage string, offset int64, shape, strides string) string {
	return name("torch._utils", "_rebuild_tensor_v2") + "(" + storage + number(offset) + shape + strides + "\x89" + hooks + "tR"
}

// floats is a tensor of the whole storage 0 of four numbers.
func floats() string { return tensor(storage("FloatStorage", "0", 4), 0, numbers(4), numbers(1)) }

func dict(items ...string) string { return "}(" + strings.Join(items, "") + "u" }

func pickled(value string) string { return "\x80\x02" + value + "." }

type file struct {
	name, body string
	method     uint16
}

func archived(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		x, err := w.CreateHeader(&zip.FileHeader{Name: f.name, Method: f.method})
		if err == nil {
			_, err = io.WriteString(x, f.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checkpoint is an archive with the value and one storage of four floats.
func checkpoint(t testing.TB, value string, more ...file) []byte {
	t.Helper()
	files := []file{{name: "a/data.pkl", body: pickled(value)}, {name: "a/byteorder", body: "little"}, {name: "a/data/0", body: "0123456789abcdef"}, {name: "a/version", body: "3\n"}}
	return archived(t, append(files, more...)...)
}

func TestByHandThePlainOnesPass(t *testing.T) {
	for label, value := range map[string]string{
		"a dict":                      dict(text("w"), floats()),
		"a storage shared":            dict(text("a"), floats(), text("b"), floats()),
		"numbers as keys":             dict(number(0), floats()),
		"pairs, as Python 2 wrote":    name("collections", "OrderedDict") + "(](](" + text("w") + floats() + "eetR",
		"no elements, far away":       dict(text("w"), floats(), text("n"), tensor(storage("FloatStorage", "0", 4), 900, numbers(0, 5), numbers(1, 1))),
		"the last element":            dict(text("w"), tensor(storage("FloatStorage", "0", 4), 3, numbers(1, 7), numbers(900, 0))),
		"repeated within the measure": dict(text("w"), tensor(storage("FloatStorage", "0", 4), 0, numbers(1<<20), numbers(0))),
	} {
		if _, err := read(t, checkpoint(t, value)); err != nil {
			t.Errorf("%s: %v", label, err)
		}
	}
}

func TestPicklesThatAreNotUnderstoodAreRefusedByName(t *testing.T) {
	deep := strings.Repeat("(", 200) + floats() + strings.Repeat("t", 200)
	wide := floats() + "q\x00"
	for i := range 30 { // each list holds the one before twice
		wide = fmt.Sprintf("](%sh%ceq%c", wide, i, i+1)
	}
	f4 := func(offset int64, shape, strides string) string {
		return tensor(storage("FloatStorage", "0", 4), offset, shape, strides)
	}
	for label, tc := range map[string]struct{ value, want string }{
		"a command":                {name("os", "system") + "(" + text("id") + "tR", "imports os.system"},
		"a command, by the stack":  {text("posix") + text("system") + "\x93(" + text("id") + "tR", "imports posix.system"},
		"an evaluation":            {name("builtins", "eval") + "(" + text("1") + "tR", "imports builtins.eval"},
		"a module":                 {name("torch.nn.modules.linear", "Linear") + ")\x81", "a module, whose code"},
		"a class of one's own":     {dict(text("w"), floats(), text("args"), name("mine", "Config")+")\x81}b"), "imports mine.Config"},
		"bytes to load again":      {name("torch.storage", "_load_from_bytes") + "(C\x01xtR", "imports torch.storage._load_from_bytes"},
		"a quantised storage":      {tensor(storage("QInt8Storage", "0", 16), 0, numbers(4), numbers(1)), "quantised"},
		"a quantised tensor":       {name("torch._utils", "_rebuild_qtensor") + ")R", "quantised"},
		"a sparse tensor":          {name("torch._utils", "_rebuild_sparse_tensor") + ")R", "sparse"},
		"complex doubles":          {tensor(storage("ComplexDoubleStorage", "0", 1), 0, numbers(1), numbers(1)), "torch.ComplexDoubleStorage"},
		"an unknown storage":       {tensor(storage("StrangeStorage", "0", 1), 0, numbers(1), numbers(1)), "torch.StrangeStorage"},
		"an extension":             {"\x82\x01", "not understood"},
		"an out-of-band buffer":    {"\x97", "not understood"},
		"an INST":                  {"(ios\nsystem\n", "not understood"},
		"an OBJ":                   {"(" + name("torch", "Size") + "o", "not understood"},
		"a persistent id of text":  {text("x") + "Q", "no storage"},
		"a module by id":           {"(" + text("module") + name("torch", "Tensor") + text("x") + text("y") + number(1) + "tQ", "none of a storage"},
		"a call of a value":        {text("x") + ")R", "calls a text"},
		"a call of a class":        {name("torch", "Tensor") + ")R", "not understood"},
		"a type made new":          {name("torch", "FloatStorage") + ")\x81", "without calling it"},
		"a state for a tensor":     {floats() + "}b", "is given a state"},
		"a state for a dict":       {dict(text("w"), floats()) + dict(text("__class__"), number(1)) + "b", "attributes other than _metadata"},
		"a codec":                  {name("_codecs", "encode") + "(" + text("x") + text("zlib") + "tR", "a codec other than"},
		"items for a tuple":        {")" + number(1) + "a", "no plain container"},
		"items for what is called": {name("torch", "Size") + "(" + numbers(1) + "tR" + text("a") + number(1) + "s", "no plain container"},

		"a key twice":                {dict(text("w"), floats(), text("w"), floats()), `"w" stands twice`},
		"a key that is a tuple":      {dict(")", floats()), "only text and whole numbers"},
		"two ways to one name":       {dict(text("a.b"), floats(), text("a"), dict(text("b"), floats())), "come to the name"},
		"text and number as one key": {dict(text("0"), floats(), number(0), floats()), "come to the name"},
		"the reserved name":          {dict(text("__metadata__"), floats()), "no name for a tensor"},
		"a NUL in a name":            {dict(text("a\x00b"), floats()), "no name for a tensor"},
		"a name without end":         {dict(text(strings.Repeat("a", 513)), floats()), "no name for a tensor"},
		"a text that is not UTF-8":   {dict(text("\xff"), floats()), "not UTF-8"},
		"itself inside":              {"]q\x00" + floats() + "ah\x00a", "holds itself"},
		"deep":                       {deep, "deeper than"},
		"the same again and again":   {wide, "more than 1048576"},
		"a storage alone":            {dict(text("w"), floats(), text("s"), storage("FloatStorage", "0", 4)), "storage without a tensor"},

		"one element too far":     {f4(1, numbers(4), numbers(1)), "element 4 of storage"},
		"an offset too far":       {f4(4, numbers(1), numbers(1)), "element 4 of storage"},
		"a stride too far":        {f4(0, numbers(2, 2), numbers(3, 1)), "element 4 of storage"},
		"a negative offset":       {f4(-1, numbers(1), numbers(1)), "offset"},
		"a negative stride":       {f4(3, numbers(4), numbers(-1)), "negative"},
		"a negative shape":        {f4(0, numbers(-4), numbers(1)), "negative"},
		"a shape that overflows":  {f4(0, numbers(1<<40, 1<<40), numbers(0, 0)), "overflows"},
		"strides that overflow":   {f4(0, numbers(1<<32, 2), numbers(1<<40, 1)), "overflow"},
		"an offset that overflow": {f4(1<<63-1, numbers(2), numbers(1<<62)), "overflow"},
		"too few strides":         {f4(0, numbers(4), numbers()), "dimensions and 0 strides"},
		"repeated beyond measure": {f4(0, numbers(1<<40), numbers(0)), "times what is stored"},
		"hooks":                   {name("torch._utils", "_rebuild_tensor_v2") + "(" + storage("FloatStorage", "0", 4) + number(0) + numbers(4) + numbers(1) + "\x89" + dict(text("h"), number(1)) + "tR", "not empty"},
		"hooks that come later": {hooks + "q\x01" + name("torch._utils", "_rebuild_tensor_v2") + "(" + storage("FloatStorage", "0", 4) + number(0) + numbers(4) + numbers(1) + "\x89h\x01tR" +
			"h\x01" + text("h") + number(1) + "s\x87", "not empty"},
		"a conjugate":               {name("torch._utils", "_rebuild_tensor_v2") + "(" + storage("FloatStorage", "0", 4) + number(0) + numbers(4) + numbers(1) + "\x89" + hooks + dict(text("conj"), "\x88") + "tR", "not empty"},
		"attributes of a parameter": {name("torch._utils", "_rebuild_parameter_with_state") + "(" + floats() + "\x88" + hooks + dict(text("data"), number(1)) + "tR", `attribute "data"`},
		"a subclass of Tensor":      {name("torch._tensor", "_rebuild_from_type_v2") + "(" + name("torch._utils", "_rebuild_tensor_v2") + name("torch", "FloatStorage") + ")}tR", "makes a tensor of"},
		"a storage in two sizes":    {dict(text("a"), floats(), text("b"), tensor(storage("FloatStorage", "0", 3), 0, numbers(3), numbers(1))), "two types or sizes"},
		"a storage in two types":    {dict(text("a"), floats(), text("b"), tensor(storage("IntStorage", "0", 4), 0, numbers(4), numbers(1))), "two types or sizes"},
		"a storage of another size": {tensor(storage("FloatStorage", "0", 5), 0, numbers(4), numbers(1)), "has 16 bytes in the archive, and 20"},
		"a storage that overflows":  {tensor(storage("FloatStorage", "0", 1<<62), 0, numbers(4), numbers(1)), "bytes in the archive"},
		"a storage that is missing": {tensor(storage("FloatStorage", "1", 4), 0, numbers(4), numbers(1)), "is not in the archive"},

		"a memo twice":          {text("a") + "q\x00" + text("b") + "q\x00\x86", "set twice"},
		"a memo never set":      {"h\x07", "never set"},
		"a mark that stays":     {"(" + floats(), "1 marks"},
		"two values":            {floats() + floats(), "2 values"},
		"more than there is":    {"\x87", "more than there is"},
		"a call past a mark":    {name("torch", "Size") + "()R", "more than there is"},
		"a key without a value": {"}(" + text("a") + "u", "no value"},
		"a frame cut":           {"\x95\x03\x00\x00\x00\x00\x00\x00\x00" + text("abcdef"), "two readers would differ"},
		"a frame in a frame":    {"\x95\x20\x00\x00\x00\x00\x00\x00\x00\x95\x02\x00\x00\x00\x00\x00\x00\x00N0" + floats(), "two readers would differ"},
		"a stop inside a frame": {"\x95\x03\x00\x00\x00\x00\x00\x00\x00" + "N.", "stops inside a frame"},
		"a protocol again":      {"\x80\x02" + floats(), "protocol first, and once"},
		"bytes behind":          {floats() + ".x", "bytes stand behind"},
		"cut":                   {"X\xff\xff\xff\x7f", "cut short"},

		"an array of objects":    {name("numpy", "dtype") + "(" + text("O8") + "\x89\x88tR", `"O8" of numpy`},
		"an array of a subclass": {name("numpy.core.multiarray", "_reconstruct") + "(" + name("torch", "Tensor") + numbers(0) + "C\x01btR", "no plain array"},
		"an array too short":     {array("f4", "<", numbers(3), "01234567"), "not those of its shape"},
		"an array that overlaps": {array("f4", "=", numbers(2), "01234567"), "byte order"},
	} {
		t.Run(label, func(t *testing.T) {
			_, err := read(t, checkpoint(t, tc.value))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

// array is one of numpy.
func array(kind, order, shape, content string) string {
	dtype := name("numpy", "dtype") + "(" + text(kind) + "\x89\x88tR(" + number(3) + text(order) + "NNN" + number(-1) + number(-1) + number(0) + "tb"
	return name("numpy.core.multiarray", "_reconstruct") + "(" + name("numpy", "ndarray") + numbers(0) + "C\x01btR(" +
		number(1) + shape + dtype + "\x89C" + string(rune(len(content))) + content + "tb"
}

func TestArchivesThatAreNotUnderstoodAreRefusedByName(t *testing.T) {
	good := checkpoint(t, dict(text("w"), floats()))
	renamed := bytes.Replace(bytes.Clone(good), []byte("a/data/0"), []byte("a/data/1"), 1) // in the local header only
	pkl := file{name: "a/data.pkl", body: pickled(dict(text("w"), floats()))}
	four := file{name: "a/data/0", body: "0123456789abcdef"}
	for label, tc := range map[string]struct {
		file []byte
		want string
	}{
		"a storage that nobody names":  {checkpoint(t, dict(text("w"), floats()), file{name: "a/data/1", body: "x"}), `storage "1"`},
		"a member of another kind":     {checkpoint(t, dict(text("w"), floats()), file{name: "a/code/x.py", body: "x"}), "a/code/x.py"[2:]},
		"TorchScript":                  {checkpoint(t, dict(text("w"), floats()), file{name: "a/constants.pkl", body: "x"}), "TorchScript"},
		"a second directory":           {checkpoint(t, dict(text("w"), floats()), file{name: "b/data/0", body: "x"}), "directory of the others"},
		"a member twice":               {checkpoint(t, dict(text("w"), floats()), four), "stands twice"},
		"a compressed storage":         {archived(t, pkl, file{name: "a/data/0", body: "0123456789abcdef", method: zip.Deflate}), "compressed"},
		"no pickle":                    {archived(t, four), "no data.pkl"},
		"an unknown byte order":        {archived(t, pkl, four, file{name: "a/byteorder", body: "middle"}), `byteorder is "middle"`},
		"another name in front":        {renamed, "local header"},
		"cut short":                    {good[:len(good)-30], "archive"},
		"nothing":                      {nil, "no checkpoint"},
		"a plain pickle":               {[]byte(pickled(dict(text("w"), number(1)))), "none that torch.save writes"},
		"a tar":                        {append(make([]byte, 257), "ustar\x0000 and more"...), "a tar"},
		"GGUF":                         {[]byte("GGUF\x03\x00\x00\x00"), "GGUF"},
		"safetensors":                  {append(binary.LittleEndian.AppendUint64(nil, 2), "{}"...), "begins as safetensors"},
		"types with an unsure order":   {untyped(t, "big", "uint16"), "byte order"},
		"a type that is not converted": {untyped(t, "little", "float8_e4m3fnuz"), "torch.float8_e4m3fnuz"},
	} {
		_, err := read(t, tc.file)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", label, err, tc.want)
		}
	}
}

// untyped is a checkpoint whose tensor says its type itself.
func untyped(t *testing.T, order, kind string) []byte {
	t.Helper()
	id := "(" + text("storage") + name("torch.storage", "UntypedStorage") + text("0") + text("cpu") + number(4) + "tQ"
	value := name("torch._utils", "_rebuild_tensor_v3") + "(" + id + number(0) + numbers(2) + numbers(1) + "\x89" + hooks + name("torch", kind) + "tR"
	return archived(t, file{name: "a/data.pkl", body: pickled(value)}, file{name: "a/byteorder", body: order}, file{name: "a/data/0", body: "0123"})
}

func TestLegacyFilesThatAreNotUnderstoodAreRefusedByName(t *testing.T) {
	good, err := os.ReadFile("testdata/t24-state-legacy.pth")
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, with string) []byte {
		i := bytes.Index(good, []byte(old))
		if i < 0 {
			t.Fatalf("%q is not there", old)
		}
		return bytes.Replace(bytes.Clone(good), []byte(old), []byte(with), 1)
	}
	for label, tc := range map[string]struct {
		file []byte
		want string
	}{
		"bytes behind":             {append(bytes.Clone(good), 0), "behind the last storage"},
		"cut short":                {good[:len(good)-1], "cut short"},
		"cut in the pickle":        {good[:300], "cut short"},
		"another protocol":         {change("\x80\x02M\xe9\x03.", "\x80\x02M\xea\x03."), "protocol is not 1001"},
		"the high byte first":      {change("little_endianq\x02\x88", "little_endianq\x02\x89"), "low byte first"},
		"another number of floats": {change("\x0c\x00\x00\x00\x00\x00\x00\x00", "\x0d\x00\x00\x00\x00\x00\x00\x00"), "13 elements, and 12"},
		"a command":                {change("ccollections\nOrderedDict\n", "ccollections\nordereddict\n"), "imports collections.ordereddict"},
	} {
		_, err := read(t, tc.file)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", label, err, tc.want)
		}
	}
}

// A key takes what stands below it, and its name off.
func TestUnder(t *testing.T) {
	c, err := read(t, checkpoint(t, dict(text("first"), floats(), text("model"), dict(text("w"), floats(), text("v"), floats(), text("n"), number(3)), text("epoch"), number(1))))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := c.Under("model")
	if err != nil || elsewhere != 1 || len(c.Tensors) != 2 || c.Tensors[0].Name != "w" || c.Tensors[0].Shares != "" || c.Tensors[1].Shares != "w" || len(c.Leaves) != 1 || c.Leaves[0].Name != "n" {
		t.Errorf("%d, %v, %+v", elsewhere, err, c)
	}
	var r *torch.Refusal
	if _, err := c.Under("other"); !errors.As(err, &r) || !strings.Contains(r.Next, "v, w") {
		t.Errorf("%v", err)
	}
}
