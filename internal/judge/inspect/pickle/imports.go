package pickle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// imports does the opcodes that import, call, and refer outside.
func (m *machine) imports(op byte) (done bool, err error) {
	switch op {
	case 'c': // GLOBAL
		return true, m.global()
	case 0x93: // STACK_GLOBAL
		return true, m.stackGlobal()
	case 'i': // INST
		if err := m.global(); err != nil {
			return true, err
		}
		f, _ := m.pop()
		args, err := m.popMark()
		if err != nil {
			return true, err
		}
		return true, m.call(f, args)
	case 'o': // OBJ
		items, err := m.popMark()
		if err != nil || len(items) == 0 {
			return true, errors.Join(errors.New("it makes an object of nothing"), err)
		}
		return true, m.call(items[0], items[1:])
	case 'R', 0x81: // REDUCE, NEWOBJ
		return true, m.callArgs(1)
	case 0x92: // NEWOBJ_EX
		return true, m.callArgs(2)
	case 'b': // BUILD
		return true, m.build()
	case 'P':
		if _, err := m.src.line(); err != nil {
			return true, err
		}
		m.refuse("it refers to something outside of the file by name")
		return true, m.push(value{})
	case 'Q': // BINPERSID
		if err := m.needs(1); err != nil {
			return true, err
		}
		id, _ := m.pop()
		if !m.persistent {
			m.refuse("it refers to something outside of the file")
		}
		v := stored(id)
		if v.kind == storage && m.beside != nil {
			if why := m.beside(id); why != "" {
				m.refuse("%s", why)
			}
		}
		return true, m.push(v)
	case 0x82, 0x83, 0x84: // EXT1, EXT2, EXT4
		m.refuse("it imports by a number that only the reader knows")
		if err := m.src.skip(map[byte]uint64{0x82: 1, 0x83: 2, 0x84: 4}[op]); err != nil {
			return true, err
		}
		return true, m.push(value{})
	}
	return false, nil
}

func (m *machine) global() error {
	module, err := m.src.line()
	if err != nil {
		return err
	}
	name, err := m.src.line()
	if err != nil {
		return err
	}
	return m.imported(module, name)
}

func (m *machine) stackGlobal() error {
	if err := m.needs(2); err != nil {
		return err
	}
	name, _ := m.pop()
	module, _ := m.pop()
	if name.kind != text || module.kind != text {
		m.refuse("it imports a name that it computes")
		return m.imported("?", "?")
	}
	return m.imported(module.text, name.text)
}

// moved are names of Python 2, and what CPython reads them as (Lib/_compat_pickle.py).
func moved(g global) global {
	switch g.module {
	case "__builtin__":
		g.module = "builtins"
		switch g.name {
		case "xrange":
			g.name = "range"
		case "unicode":
			g.name = "str"
		case "long":
			g.name = "int"
		}
	case "copy_reg":
		g.module = "copyreg"
	}
	return g
}

func (m *machine) imported(module, name string) error {
	if m.guess && (!identifier.MatchString(module) || !identifier.MatchString(name)) {
		return errors.New("this is no name")
	}
	g := global{module, name}
	if _, ok := m.seen[g]; !ok {
		if len(m.globals) >= maxGlobals {
			return errors.New("it imports too many names")
		}
		m.globals = append(m.globals, g)
		m.seen[g] = m.useOf(moved(g))
	}
	return m.push(value{kind: callee, data: &data{g: moved(g)}})
}

// callArgs calls what lies below n arguments.
func (m *machine) callArgs(n int) error {
	if err := m.needs(n + 1); err != nil {
		return err
	}
	at := len(m.stack) - n
	args := m.stack[at]
	f := m.stack[at-1]
	if more := m.stack[len(m.stack)-1]; n == 2 && (more.kind != dict || len(more.items) > 0 || more.lost) && f.kind == callee && m.useOf(f.g) != refused {
		m.refuse("it calls %s.%s with arguments by their names, which may be a path or a size", f.g.module, f.g.name)
	}
	m.stack = m.stack[:at-1]
	if args.kind != tuple {
		m.refuse("it calls with arguments that it computes")
		return m.call(f, nil)
	}
	if args.lost {
		m.refuse("it calls with more arguments than are followed")
	}
	return m.call(f, args.items)
}

func (m *machine) call(f value, args []value) error {
	m.calls++
	if f.kind == callee && (f.g == (global{"builtins", "getattr"}) || f.g == (global{"numpy.core", "_ufunc_reconstruct"})) {
		return m.found(f.g, args)
	}
	if f.kind != callee {
		m.refuse("it calls something that is not an imported name")
		return m.push(value{kind: product, data: &data{}})
	}
	switch m.useOf(f.g) {
	case refused:
		// If it was imported by its name, that was reported.
		if !slices.ContainsFunc(m.globals, func(g global) bool { return moved(g) == f.g }) {
			m.refuse("it calls %s.%s, which is not known", f.g.module, f.g.name)
		}
	case constant:
		m.refuse("it calls %s.%s, which is no function", f.g.module, f.g.name)
	default:
		made, why := m.specially(f.g, args)
		if more := m.room(f.g, args); why == "" {
			why = more
		}
		if why != "" {
			m.refuse("it calls %s.%s %s", f.g.module, f.g.name, why)
		} else if made != (global{}) {
			return m.push(value{kind: product, data: &data{g: made}})
		}
	}
	return m.push(m.made(f.g, args))
}

// made is what a call of a name makes, with what is asked of it later.
func (m *machine) made(g global, args []value) value {
	p := value{kind: product, data: &data{g: g}}
	switch g {
	case global{"numpy", "dtype"}, global{"torch", "Size"}:
		m.add(p, args)
	case global{"_codecs", "encode"}, global{"torch.storage", "_load_from_bytes"}, global{"builtins", "bytes"}, global{"builtins", "bytearray"}:
		if len(args) > 0 && args[0].data != nil {
			p.size = args[0].size + int64(len(args[0].text))
		}
	case global{"builtins", "range"}:
		p.whole = length(args)
	case global{"pandas.core.indexes.base", "_new_Index"}:
		if len(args) == 2 && args[0].kind == callee && args[0].g.name == "RangeIndex" {
			from, _ := args[1].get("start")
			to, _ := args[1].get("stop")
			p.whole = length([]value{from, to})
		}
	}
	return p
}

// stored is what a persistent id stands for: a storage of torch with so many numbers, a
// class, or something that nobody counts.
func stored(id value) value {
	if id.kind == tuple && len(id.items) >= 5 && id.items[0].kind == text && id.items[0].text == "storage" && id.items[4].kind == integer {
		return value{kind: storage, num: max(0, id.items[4].num)}
	}
	// The legacy form keeps the source of a class beside it, to compare.
	if id.kind == tuple && len(id.items) == 4 && id.items[0].kind == text && id.items[0].text == "module" && id.items[1].kind == callee {
		return id.items[1]
	}
	return value{}
}

// found does the calls that find a name by another: of a zone, which zoneinfo pickles
// as a call of ZoneInfo._unpickle, of functions of numpy before version 1.20, and of
// methods that only compute. Every other use reaches any name.
func (m *machine) found(by global, args []value) error {
	var g global
	switch {
	case len(args) != 2 || args[1].kind != text:
	case by.name == "getattr" && args[0].kind == callee && args[0].g == (global{"zoneinfo", "ZoneInfo"}) && args[1].text == "_unpickle":
		g = global{"zoneinfo", "ZoneInfo._unpickle"}
	case by.name == "_ufunc_reconstruct" && args[0].kind == text && (args[0].text == "numpy" || args[0].text == "numpy.core._multiarray_umath") && numpyFunction(args[1].text):
		g = global{"numpy", args[1].text}
	}
	if g == (global{}) && by.name == "getattr" && len(args) == 2 && args[1].kind == text {
		if found, ok := method(args[0], args[1].text); ok {
			g = found
		}
	}
	if g == (global{}) {
		m.refuse("it calls %s.%s, which reaches any name", by.module, by.name)
		return m.push(value{kind: product, data: &data{}})
	}
	return m.push(value{kind: callee, data: &data{g: g}})
}

// specially checks the arguments of names that would call, make or decode what they
// are given. made is what comes out, where it is not of the name itself.
func (m *machine) specially(g global, args []value) (made global, why string) {
	arg := func(i int) value {
		if i < len(args) {
			return args[i]
		}
		return value{}
	}
	isClass := func(v value) bool { return v.kind == callee && (m.useOf(v.g) == class || m.useOf(v.g) == function) }
	switch g.module + "." + g.name {
	case "copyreg._reconstructor":
		if base := arg(1); !isClass(arg(0)) || base.kind != callee || base.g.module != "builtins" {
			return made, "on something that is no class on the list"
		}
		return arg(0).g, ""
	case "copyreg.__newobj__", "copyreg.__newobj_ex__":
		if !isClass(arg(0)) {
			return made, "on something that is no class on the list"
		}
		return arg(0).g, ""
	case "_codecs.encode":
		if c := arg(1); len(args) > 1 && (c.kind != text || !slices.Contains([]string{"latin1", "latin-1", "iso-8859-1", "ascii", "utf-8", "utf8"}, c.text)) {
			return made, "with a codec that is not plain"
		}
	case "collections.defaultdict":
		if f := arg(0); len(args) > 0 && f.kind != none && (f.kind != callee || !plainFactory(f.g)) {
			return made, "with a factory that is no plain type"
		}
	case "torch._tensor._rebuild_from_type_v2":
		if f, of := arg(0), arg(1); f.kind != callee || f.g.module != "torch._utils" || of.kind != callee || useOf(of.g) != class {
			return made, "with a function or a type that is none of a tensor"
		}
	case "torch.storage._load_from_bytes":
		b := arg(0)
		if b.kind != raw || len(args) != 1 {
			return made, "on bytes that it computes"
		}
		m.nested = append(m.nested, span{b.num, b.size})
	case "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct":
		if !isClass(arg(0)) {
			return made, "for something that is no array"
		}
	case "numpy.ma.core._mareconstruct", "numpy.ma._mareconstruct":
		if !isClass(arg(0)) || !isClass(arg(1)) {
			return made, "for something that is no array"
		}
	case "builtins.iter", "builtins.reversed", "builtins.enumerate", "builtins.zip":
		return made, iterates(g, args)
	case "torch._utils._rebuild_parameter_with_state":
		if state := arg(3); state.kind != dict && len(args) > 3 && parts(state) == nil {
			return made, "with a state that it computes"
		}
	default:
		return made, m.specialOf(g, args, isClass)
	}
	return made, ""
}

// specialOf checks the arguments of names that are many of a kind.
func (m *machine) specialOf(g global, args []value, isClass func(value) bool) string {
	switch {
	case strings.HasPrefix(g.module, "pandas.core.indexes.") && strings.HasPrefix(g.name, "_new_"):
		if len(args) == 0 || !isClass(args[0]) {
			return "for something that is no index"
		}
	case (trainedUse(g) == class || filled(g) == class) && len(args) > 0:
		return "with arguments, which may be a path"
	}
	return ""
}

// plainFactory reports whether a defaultdict may make its values by calling it.
func plainFactory(g global) bool {
	return g.module == "builtins" && slices.Contains([]string{"list", "dict", "set", "int", "float", "str", "tuple", "bool", "frozenset", "bytes"}, g.name) ||
		g == global{"collections", "OrderedDict"} || g == global{"collections", "Counter"}
}

// build gives a state to what an allowed name made; to anything else it would
// set attributes.
func (m *machine) build() error {
	if err := m.needs(2); err != nil {
		return err
	}
	state, _ := m.pop()
	m.calls++
	top := m.stack[len(m.stack)-1]
	if top.kind != product {
		m.refuse("it sets the state of something that it did not make")
		return nil
	}
	if top.g != (global{}) && m.useOf(top.g) == refused {
		return nil // the import was reported, and inside of a package may be its own
	}
	for _, part := range append([]value{state}, parts(state)...) {
		if part.kind == dict && part.inner {
			m.refuse("it sets an attribute with a special name")
		}
		if part.kind == dict && part.odd {
			m.refuse("it sets an attribute with a name that it computes")
		}
		for i := 0; part.kind == dict && i < len(part.items); i += 2 {
			if k := part.items[i]; k.kind == text && special(k.text) {
				m.refuse("it sets the attribute %.40s", k.text)
			}
		}
	}
	if why := fits(top.g, state); why != "" {
		m.refuse("it gives %s.%s %s", top.g.module, top.g.name, why)
	}
	if top.made(arrays...) {
		if why := m.state(state); why != "" {
			m.refuse("%s", why)
		}
	}
	if top.made(joblibWrapper...) {
		return m.array(state)
	}
	return nil
}

// parts returns the two of a state that is a pair: attributes, and slots.
func parts(state value) []value {
	if state.kind == tuple && len(state.items) == 2 {
		return state.items
	}
	return nil
}

// joblibWrapper stand for an array whose numbers follow behind the opcode that
// builds them (joblib, numpy_pickle.py); constant.
var joblibWrapper = []global{{"joblib.numpy_pickle", "NumpyArrayWrapper"}, {"sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper"}}

// array goes on behind the numbers of an array of joblib. A plain reader, which is
// not joblib, would take them for opcodes: they must not come to anything there.
func (m *machine) array(state value) error {
	if m.guess && m.under != nil {
		return errors.New("an array in what is read twice")
	}
	if err := m.asOpcodes(); err != nil {
		return err
	}
	// joblib ends the frame before the numbers.
	if m.frameEnd != 0 && m.frameEnd != m.src.at {
		return errors.New("an array stands inside a frame: two readers would differ")
	}
	m.frameEnd = 0
	shape, okShape := state.get("shape")
	dtype, okType := state.get("dtype")
	if !okShape || !okType || shape.kind != tuple || shape.lost || !dtype.made(global{"numpy", "dtype"}) || len(dtype.items) == 0 || dtype.items[0].kind != text {
		return errors.New("an array of joblib says neither shape nor type")
	}
	size, objects, err := itemSize(dtype.items[0].text)
	if err != nil {
		return err
	}
	if objects {
		inner := machine{src: m.src, ctx: m.ctx, guess: m.guess, memo: map[uint64]value{}, seen: m.seen, globals: m.globals, refusals: m.refusals, nested: m.nested}
		err := inner.run()
		m.globals, m.refusals, m.nested, m.calls = inner.globals, inner.refusals, inner.nested, m.calls+inner.calls
		return err
	}
	count := int64(1)
	for _, n := range shape.items {
		if n.kind != integer || n.num < 0 || n.num > 0 && count > (1<<62)/n.num {
			return errors.New("an array of joblib has a shape that is none")
		}
		count *= n.num
	}
	if align, ok := state.get("numpy_array_alignment_bytes"); ok && align.kind != none {
		pad, err := m.src.uint(1)
		if err == nil {
			err = m.src.skip(pad)
		}
		if err != nil {
			return err
		}
	}
	if size > 0 && count > (1<<62)/size || size == 0 && count > 1<<10 {
		return errors.New("an array of joblib is too large")
	}
	return m.src.skip(uint64(count * size))
}

// asOpcodes reads what follows as a plain reader would, as far as it can.
func (m *machine) asOpcodes() error {
	src := *m.src
	src.buf, src.own = nil, false
	fork := machine{
		src: &src, ctx: m.ctx, guess: true, persistent: m.persistent, stack: slices.Clone(m.stack[max(0, len(m.stack)-1000):]),
		memo: map[uint64]value{}, under: m.memo, seen: map[global]use{},
	}
	_ = fork.run()
	for _, g := range fork.globals {
		if fork.seen[g] == refused && !m.className(g.module) {
			return fmt.Errorf("the numbers of an array are opcodes that import %.80s.%.80s: two readers would differ", g.module, g.name)
		}
	}
	return nil
}

// className reports whether a text is the name of a class that was imported, and so
// no module: where numbers pass as opcodes and end, a plain reader has another memo
// and takes wrong texts for what it imports.
func (m *machine) className(module string) bool {
	return slices.ContainsFunc(m.globals, func(g global) bool {
		return g.name == module && m.seen[g] != refused && strings.ToLower(module[:1]) != module[:1]
	})
}

// itemSize returns how many bytes an item of a type has, by the name that numpy's
// dtypes pickle under, such as f8 or U3.
func itemSize(name string) (size int64, objects bool, err error) {
	name = strings.TrimLeft(name, "<>|=")
	if name == "" {
		return 0, false, errors.New("an array of joblib has a type without a name")
	}
	var n int64
	if _, err := fmt.Sscanf(name[1:], "%d", &n); err != nil || n < 0 || n > 1<<30 {
		return 0, false, fmt.Errorf("an array of joblib has the type %.20q, which is not known", name)
	}
	switch name[0] {
	case 'O':
		return 0, true, nil
	case 'b', 'i', 'u', 'f', 'c', 'S', 'V', 'M', 'm', 'a':
		return n, false, nil
	case 'U':
		return 4 * n, false, nil
	}
	return 0, false, fmt.Errorf("an array of joblib has the type %.20q, which is not known", name)
}
