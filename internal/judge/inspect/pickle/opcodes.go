package pickle

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// data does the opcodes that push a value of their own.
func (m *machine) data(op byte) (done bool, err error) {
	push := func(v value, err error) (bool, error) {
		if err != nil {
			return true, err
		}
		return true, m.push(v)
	}
	number := func(width int64) (bool, error) {
		n, err := m.src.uint(width)
		if width == 4 {
			n = uint64(int64(int32(uint32(n))))
		}
		return push(value{kind: integer, num: int64(n)}, err)
	}
	switch op {
	case 'N':
		return push(value{kind: none}, nil)
	case 0x88, 0x89: // True, False
		return push(value{kind: integer, num: int64(0x89 - op)}, nil)
	case ']':
		return push(m.container(list, nil), nil)
	case '}':
		return push(m.container(dict, nil), nil)
	case ')':
		return push(m.container(tuple, nil), nil)
	case 0x8f:
		return push(value{kind: set}, nil)
	case 'I', 'L':
		return push(m.textNumber())
	case 'F':
		line, err := m.src.line()
		if _, bad := strconv.ParseFloat(strings.TrimSpace(line), 64); err == nil && errors.Is(bad, strconv.ErrSyntax) {
			err = errors.New("a number in text is none")
		}
		return push(value{}, err)
	case 'K':
		return number(1)
	case 'M':
		return number(2)
	case 'J':
		return number(4)
	case 'G':
		return push(value{}, m.src.skip(8))
	case 0x8a: // LONG1
		return true, m.long()
	case 0x8b: // LONG4
		n, err := m.src.uint(4)
		if err == nil && n > 1<<31-1 {
			err = errors.New("a length is negative")
		}
		if err == nil {
			err = m.src.skip(n)
		}
		return push(value{kind: integer, num: math.MaxInt64}, err)
	}
	return m.strings(op)
}

// textNumber reads a number as text, as Python's int does.
func (m *machine) textNumber() (value, error) {
	line, err := m.src.line()
	if err != nil {
		return value{}, err
	}
	// CPython takes a number for whole that a zero byte ends (_pickle.c, load_int).
	line, _, _ = strings.Cut(line, "\x00")
	if len(line) > 4300 { // digits; CPython, sys.int_info.default_max_str_digits
		return value{}, errors.New("a number in text is too long")
	}
	s := strings.TrimSuffix(strings.TrimSpace(line), "L")
	n, ok := new(big.Int).SetString(s, 0)
	if !ok {
		if n, ok = new(big.Int).SetString(s, 10); !ok {
			return value{}, errors.New("a number in text is none")
		}
	}
	if !n.IsInt64() {
		return value{kind: integer, num: math.MaxInt64}, nil
	}
	return value{kind: integer, num: n.Int64()}, nil
}

// strings does the opcodes of text and bytes.
func (m *machine) strings(op byte) (done bool, err error) {
	line := func(decode func(string) (string, error)) (bool, error) {
		s, err := m.src.line()
		if err == nil {
			s, err = decode(s)
		}
		if err != nil {
			return true, err
		}
		return true, m.push(textOf(s))
	}
	switch op {
	case 'S':
		return line(pythonString)
	case 'V':
		return line(rawUnicode)
	case 'T':
		return true, m.sized(4, text)
	case 'U', 0x8c:
		return true, m.sized(1, text)
	case 'X':
		return true, m.sized(4, text)
	case 0x8d:
		return true, m.sized(8, text)
	case 'B':
		return true, m.sized(4, unknown)
	case 'C':
		return true, m.sized(1, unknown)
	case 0x8e, 0x96:
		return true, m.sized(8, unknown)
	case 0x97: // NEXT_BUFFER
		m.refuse("it takes data from outside of the file")
		return true, m.push(value{})
	case 0x98: // READONLY_BUFFER
		m.refuse("it takes data from outside of the file")
		return true, nil
	}
	return false, nil
}

// sized reads text or bytes behind their length of so many bytes.
func (m *machine) sized(width int64, k kind) error {
	n, err := m.src.uint(width)
	if err != nil {
		return err
	}
	if k != text || n > maxName {
		at := m.src.at
		if err := m.src.skip(n); err != nil {
			return err
		}
		if k == text {
			return m.push(value{data: &data{size: int64(n)}})
		}
		return m.push(value{kind: raw, num: at, data: &data{size: int64(n)}})
	}
	b, err := m.src.take(int64(n))
	if err != nil {
		return err
	}
	return m.push(textOf(string(b)))
}

// pythonString decodes what stands behind STRING: quoted, with Python's escapes.
func pythonString(s string) (string, error) {
	s = strings.TrimRight(s, " \t\r\v\f")
	if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '"' && s[0] != '\'' {
		return "", errors.New("a string is not quoted")
	}
	s = s[1 : len(s)-1]
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			return "", errors.New("a string ends in an escape")
		}
		if at := strings.IndexByte(`\'"abfnrtv`, s[i]); at >= 0 {
			b.WriteByte("\\'\"\a\b\f\n\r\t\v"[at])
			continue
		}
		base, most := 8, 3
		from := i
		if s[i] == 'x' {
			base, most, from = 16, 2, i+1
		}
		to := from
		for to < len(s) && to-from < most && digit(s[to], base) {
			to++
		}
		n, err := strconv.ParseUint(s[from:to], base, 16)
		switch {
		case base == 16 && to-from != 2:
			return "", errors.New("a string has an escape that is none")
		case err != nil:
			b.WriteByte('\\') // an unknown escape stays as it is
			b.WriteByte(s[i])
			continue
		}
		b.WriteByte(byte(n))
		i = to - 1
	}
	return b.String(), nil
}

func digit(c byte, base int) bool {
	_, err := strconv.ParseUint(string(c), base, 8)
	return err == nil
}

// rawUnicode decodes what stands behind UNICODE: Latin-1 with \u and \U.
func rawUnicode(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		n := 0
		if s[i] == '\\' && i+1 < len(s) {
			n = map[byte]int{'u': 4, 'U': 8}[s[i+1]]
		}
		if n == 0 {
			b.WriteRune(rune(s[i]))
			continue
		}
		if i+2+n > len(s) {
			return "", errors.New("a text ends in an escape")
		}
		r, err := strconv.ParseUint(s[i+2:i+2+n], 16, 32)
		if err != nil || r > utf8.MaxRune {
			return "", fmt.Errorf("a text has an escape that is none: %.20q", s[i:i+2+n])
		}
		b.WriteRune(rune(r))
		i += 1 + n
	}
	return b.String(), nil
}

// torchNumber begins legacy torch files (torch.serialization, MAGIC_NUMBER).
const torchNumber = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

func (m *machine) long() error {
	n, err := m.src.uint(1)
	if err != nil {
		return err
	}
	b, err := m.src.take(int64(n))
	if err != nil {
		return err
	}
	m.torchMagic = m.torchMagic || string(b) == torchNumber
	if n > 7 {
		return m.push(value{kind: integer, num: math.MaxInt64})
	}
	num := int64(0)
	for i, c := range b {
		num |= int64(c) << (8 * i)
	}
	if n > 0 && b[n-1]&0x80 != 0 {
		num -= 1 << (8 * n)
	}
	return m.push(value{kind: integer, num: num})
}

// containers does the opcodes that gather values.
func (m *machine) containers(op byte) (done bool, err error) {
	switch op {
	case 't', 'l', 'd', 0x91: // TUPLE, LIST, DICT, FROZENSET
		items, err := m.popMark()
		if err != nil {
			return true, err
		}
		k := map[byte]kind{'t': tuple, 'l': list, 'd': dict, 0x91: set}[op]
		if k == dict && len(items)%2 != 0 {
			return true, errors.New("a key has no value")
		}
		return true, m.push(m.container(k, items))
	case 0x85, 0x86, 0x87: // TUPLE1 to 3
		n := int(op) - 0x84
		if err := m.needs(n); err != nil {
			return true, err
		}
		v := m.container(tuple, m.stack[len(m.stack)-n:])
		m.stack = m.stack[:len(m.stack)-n]
		return true, m.push(v)
	case 'a', 's': // APPEND, SETITEM
		n := map[byte]int{'a': 1, 's': 2}[op]
		if err := m.needs(n + 1); err != nil {
			return true, err
		}
		items := m.stack[len(m.stack)-n:]
		m.stack = m.stack[:len(m.stack)-n]
		return true, m.fill(op, items)
	case 'e', 'u', 0x90: // APPENDS, SETITEMS, ADDITEMS
		items, err := m.popMark()
		if err != nil {
			return true, err
		}
		if op == 'u' && len(items)%2 != 0 {
			return true, errors.New("a key has no value")
		}
		return true, m.fill(op, items)
	}
	return false, nil
}

// needs refuses to take more values than stand above the last mark.
func (m *machine) needs(n int) error {
	if len(m.stack) < n {
		return errors.New("it takes more than there is")
	}
	for _, v := range m.stack[len(m.stack)-n:] {
		if v.kind == mark {
			return errors.New("it takes more than there is")
		}
	}
	return nil
}

// fill adds items to what stands on top, which must be a container that takes
// them without running code of its own.
func (m *machine) fill(op byte, items []value) error {
	if len(m.stack) == 0 {
		return errors.New("it adds to nothing")
	}
	top := m.stack[len(m.stack)-1]
	fits := false
	switch op {
	case 'a', 'e':
		fits = top.kind == list || top.made(global{"collections", "deque"}, global{"builtins", "list"}, global{"array", "array"})
	case 's', 'u':
		fits = top.kind == dict || top.made(global{"collections", "OrderedDict"}, global{"collections", "defaultdict"}, global{"collections", "Counter"},
			global{"builtins", "dict"}, global{"sklearn.utils._bunch", "Bunch"}, global{"collections", "UserDict"}, global{"pytorch_lightning.utilities.parsing", "AttributeDict"},
			global{"lightning_fabric.utilities.data", "AttributeDict"}, global{"lightning.fabric.utilities.data", "AttributeDict"}, global{"sklearn.utils", "Bunch"}, global{"sklearn.datasets.base", "Bunch"},
			global{"sklearn.covariance._graph_lasso", "_DictWithDeprecatedKeys"}, global{"statsmodels.tools.tools", "Bunch"})
	case 0x90:
		fits = top.kind == set || top.made(global{"builtins", "set"})
	}
	if top.kind == product && top.g != (global{}) && m.useOf(top.g) == refused {
		return nil // the import was reported, and inside of a package may be its own
	}
	if !fits {
		m.refuse("it adds items to something that is not a plain container")
		return nil
	}
	if top.kind == list || top.kind == dict {
		m.add(top, items)
	}
	return nil
}

// memoise does the opcodes of the memo.
func (m *machine) memoise(op byte) (done bool, err error) {
	var key uint64
	get := false
	switch op {
	case 'p', 'g':
		n, err := m.textNumber()
		if err != nil || n.kind != integer || n.num < 0 {
			return true, errors.Join(errors.New("a memo's number is none"), err)
		}
		key, get = uint64(n.num), op == 'g'
	case 'q', 'h':
		key, err = m.src.uint(1)
		get = op == 'h'
	case 'r', 'j':
		key, err = m.src.uint(4)
		get = op == 'j'
	case 0x94:
		key = uint64(len(m.memo) + len(m.under))
	default:
		return false, nil
	}
	if err != nil {
		return true, err
	}
	if get {
		v, ok := m.memo[key]
		if !ok {
			v, ok = m.under[key]
		}
		if !ok {
			return true, fmt.Errorf("memo %d was never set", key)
		}
		return true, m.push(v)
	}
	if err := m.needs(1); err != nil || len(m.memo) >= maxMemo {
		return true, errors.New("it remembers nothing, or too much")
	}
	m.memo[key] = m.stack[len(m.stack)-1]
	return true, nil
}
