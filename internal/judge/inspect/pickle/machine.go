package pickle

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"enisle/internal/judge/inspect"
)

// Limits of one stream.
const (
	maxOpcodes = 50_000_000
	maxStack   = 4_000_000
	maxMemo    = 4_000_000
	maxLine    = 1 << 20 // bytes of a text argument
	maxName    = 4096    // bytes of a string that may be a name
	maxGlobals = 10_000
)

// source reads a subject at any offset and skips without reading.
type source struct {
	r    io.ReaderAt
	at   int64
	size int64
	buf  []byte
	from int64 // offset of buf
	own  bool  // buf is not the subject's head, which others read
}

func newSource(s inspect.Subject, at int64) *source {
	return &source{r: s, at: at, size: s.Size, buf: s.Head}
}

var errCut = errors.New("it is cut short")

// peek returns n bytes at the current offset; n is at most 1 MiB.
func (s *source) peek(n int64) ([]byte, error) {
	if n > s.size-s.at {
		return nil, errCut
	}
	if off := s.at - s.from; off >= 0 && off+n <= int64(len(s.buf)) {
		return s.buf[off : off+n], nil
	}
	want := min(max(n, 64<<10), s.size-s.at)
	if !s.own || int64(cap(s.buf)) < want {
		s.buf, s.own = make([]byte, want), true
	}
	s.buf, s.from = s.buf[:want], s.at
	if _, err := s.r.ReadAt(s.buf, s.at); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return s.buf[:n], nil
}

func (s *source) take(n int64) ([]byte, error) {
	b, err := s.peek(n)
	if err == nil {
		s.at += n
	}
	return b, err
}

func (s *source) skip(n uint64) error {
	if n > uint64(s.size-s.at) {
		return errCut
	}
	s.at += int64(n)
	return nil
}

func (s *source) line() (string, error) {
	for n := int64(256); ; n *= 4 {
		n = min(n, s.size-s.at, maxLine)
		b, err := s.peek(n)
		if err != nil {
			return "", err
		}
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line := string(b[:i])
			s.at += int64(i) + 1
			return line, nil
		}
		if n == s.size-s.at || n == maxLine {
			return "", errCut
		}
	}
}

func (s *source) uint(n int64) (uint64, error) {
	b, err := s.take(n)
	if err != nil {
		return 0, err
	}
	var buf [8]byte
	copy(buf[:], b)
	return binary.LittleEndian.Uint64(buf[:]), nil
}

// What a value on the stack is, as far as it matters.
type kind uint8

const (
	nothing kind = iota
	mark
	text    // a string that may become a name
	callee  // an imported name
	product // what an allowed name made
)

type value struct {
	kind kind
	text string
	g    global
}

type global struct{ module, name string }

// machine is the reading of one stream.
type machine struct {
	src        *source
	ctx        context.Context //nolint:containedctx // lives for one stream
	persistent bool            // persistent ids are allowed
	guess      bool            // the file may be no pickle at all

	stack      []value
	memo       map[uint64]value
	globals    []global
	calls      int
	refusals   []string
	torchMagic bool
	frameEnd   int64 // offset at which the current frame ends; 0 outside of one
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)

func (m *machine) refuse(format string, args ...any) {
	if len(m.refusals) < 100 {
		m.refusals = append(m.refusals, fmt.Sprintf(format, args...))
	}
}

func (m *machine) push(v value) error {
	if len(m.stack) >= maxStack {
		return errors.New("the stack grows too large")
	}
	m.stack = append(m.stack, v)
	return nil
}

func (m *machine) pop() (value, error) {
	if len(m.stack) == 0 {
		return value{}, errors.New("it takes from an empty stack")
	}
	v := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	return v, nil
}

// popMark removes everything down to the last mark and returns it.
func (m *machine) popMark() ([]value, error) {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if m.stack[i].kind == mark {
			items := m.stack[i+1:]
			m.stack = m.stack[:i]
			return items, nil
		}
	}
	return nil, errors.New("a mark is missing")
}

// run reads up to and including STOP.
func (m *machine) run() error {
	m.memo = map[uint64]value{}
	for n := 0; ; n++ {
		if n%4096 == 0 && m.ctx != nil && m.ctx.Err() != nil {
			return m.ctx.Err()
		}
		if n >= maxOpcodes {
			return errors.New("it has too many opcodes")
		}
		begin := m.src.at
		op, err := m.src.take(1)
		if err != nil {
			return err
		}
		code := op[0]
		stop, err := m.step(code, begin)
		if err != nil {
			return fmt.Errorf("opcode %q: %w", code, err)
		}
		if m.frameEnd > 0 && m.src.at > m.frameEnd {
			return errors.New("an opcode crosses the end of its frame: two readers would differ")
		}
		if m.src.at == m.frameEnd {
			m.frameEnd = 0
		}
		if stop {
			if m.frameEnd != 0 {
				return errors.New("it stops inside a frame: two readers would differ")
			}
			if len(m.stack) != 1 {
				return fmt.Errorf("it stops with %d values", len(m.stack))
			}
			return nil
		}
	}
}

// step does one opcode.
func (m *machine) step(op byte, begin int64) (stop bool, err error) {
	if done, err := m.data(op); done || err != nil {
		return false, err
	}
	switch op {
	case '.':
		return true, nil
	case 0x80: // PROTO
		v, err := m.src.uint(1)
		if err == nil && v > 5 {
			err = fmt.Errorf("protocol %d is not known", v)
		}
		return false, err
	case 0x95: // FRAME
		n, err := m.src.uint(8)
		if err == nil && (m.frameEnd != 0 || n > uint64(m.src.size-m.src.at)) {
			err = errors.New("frames overlap or leave the file: two readers would differ")
		}
		if err == nil && n > 0 {
			m.frameEnd = m.src.at + int64(n)
		}
		return false, err
	case '(':
		return false, m.push(value{kind: mark})
	case '0': // POP
		_, err := m.pop()
		return false, err
	case '1': // POP_MARK
		_, err := m.popMark()
		return false, err
	case '2': // DUP
		if len(m.stack) == 0 {
			return false, errors.New("it doubles nothing")
		}
		return false, m.push(m.stack[len(m.stack)-1])
	}
	if done, err := m.containers(op); done || err != nil {
		return false, err
	}
	if done, err := m.memoise(op); done || err != nil {
		return false, err
	}
	if done, err := m.imports(op); done || err != nil {
		return false, err
	}
	return false, fmt.Errorf("is not known (byte %d)", begin)
}

// data does the opcodes that push a value of their own.
func (m *machine) data(op byte) (done bool, err error) {
	push := func(err error) (bool, error) {
		if err != nil {
			return true, err
		}
		return true, m.push(value{})
	}
	sized := func(width int64, isText bool) (bool, error) {
		n, err := m.src.uint(width)
		if err != nil {
			return true, err
		}
		if !isText || n > maxName {
			return push(m.src.skip(n))
		}
		b, err := m.src.take(int64(n))
		if err != nil {
			return true, err
		}
		return true, m.push(value{kind: text, text: string(b)})
	}
	switch op {
	case 'N', 0x88, 0x89, ']', '}', ')', 0x8f: // None, True, False, empty containers
		return push(nil)
	case 'I', 'L', 'F': // text numbers
		_, err := m.src.line()
		return push(err)
	case 'K':
		return push(m.src.skip(1))
	case 'M':
		return push(m.src.skip(2))
	case 'J':
		return push(m.src.skip(4))
	case 'G':
		return push(m.src.skip(8))
	case 0x8a: // LONG1
		return true, m.long()
	case 0x8b: // LONG4
		return sized(4, false)
	case 'S', 'V':
		line, err := m.src.line()
		if err != nil {
			return true, err
		}
		return true, m.push(value{kind: text, text: strings.Trim(line, `'"`)})
	case 'T':
		return sized(4, true)
	case 'U', 0x8c:
		return sized(1, true)
	case 'X':
		return sized(4, true)
	case 0x8d:
		return sized(8, true)
	case 'B':
		return sized(4, false)
	case 'C':
		return sized(1, false)
	case 0x8e, 0x96:
		return sized(8, false)
	case 0x97: // NEXT_BUFFER
		m.refuse("it takes data from outside of the file")
		return push(nil)
	case 0x98: // READONLY_BUFFER
		m.refuse("it takes data from outside of the file")
		return true, nil
	}
	return false, nil
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
	return m.push(value{})
}

// containers does the opcodes that gather values.
func (m *machine) containers(op byte) (done bool, err error) {
	replace := func(n int) (bool, error) {
		if len(m.stack) < n {
			return true, errors.New("it takes more than there is")
		}
		m.stack = m.stack[:len(m.stack)-n]
		return true, m.push(value{})
	}
	drop := func(n int) (bool, error) {
		if len(m.stack) < n+1 {
			return true, errors.New("it takes more than there is")
		}
		m.stack = m.stack[:len(m.stack)-n]
		return true, nil
	}
	switch op {
	case 't', 'l', 'd', 0x91: // TUPLE, LIST, DICT, FROZENSET
		if _, err := m.popMark(); err != nil {
			return true, err
		}
		return true, m.push(value{})
	case 0x85:
		return replace(1)
	case 0x86:
		return replace(2)
	case 0x87:
		return replace(3)
	case 'a': // APPEND
		return drop(1)
	case 's': // SETITEM
		return drop(2)
	case 'e', 'u', 0x90: // APPENDS, SETITEMS, ADDITEMS
		if _, err := m.popMark(); err != nil {
			return true, err
		}
		if len(m.stack) == 0 {
			return true, errors.New("it adds to nothing")
		}
		if k := m.stack[len(m.stack)-1].kind; k == callee {
			m.refuse("it changes an imported name")
		}
		return true, nil
	}
	return false, nil
}

// memoise does the opcodes of the memo.
func (m *machine) memoise(op byte) (done bool, err error) {
	var key uint64
	get := false
	switch op {
	case 'p', 'g':
		line, err := m.src.line()
		if err != nil {
			return true, err
		}
		if _, err := fmt.Sscanf(line, "%d", &key); err != nil {
			return true, errors.New("a memo's number is none")
		}
		get = op == 'g'
	case 'q', 'h':
		key, err = m.src.uint(1)
		get = op == 'h'
	case 'r', 'j':
		key, err = m.src.uint(4)
		get = op == 'j'
	case 0x94:
		key = uint64(len(m.memo))
	default:
		return false, nil
	}
	if err != nil {
		return true, err
	}
	if get {
		v, ok := m.memo[key]
		if !ok {
			return true, fmt.Errorf("memo %d was never set", key)
		}
		return true, m.push(v)
	}
	if len(m.stack) == 0 || len(m.memo) >= maxMemo {
		return true, errors.New("it remembers nothing, or too much")
	}
	m.memo[key] = m.stack[len(m.stack)-1]
	return true, nil
}

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
		if _, err := m.popMark(); err != nil {
			return true, err
		}
		return true, m.call(f)
	case 'o': // OBJ
		items, err := m.popMark()
		if err != nil || len(items) == 0 {
			return true, errors.Join(errors.New("it makes an object of nothing"), err)
		}
		return true, m.call(items[0])
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
		if _, err := m.pop(); err != nil {
			return true, err
		}
		if !m.persistent {
			m.refuse("it refers to something outside of the file")
		}
		return true, m.push(value{})
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
	name, err := m.pop()
	if err != nil {
		return err
	}
	module, err := m.pop()
	if err != nil {
		return err
	}
	if name.kind != text || module.kind != text {
		m.refuse("it imports a name that it computes")
		m.globals = append(m.globals, global{"?", "?"})
		return m.push(value{kind: callee, g: global{"?", "?"}})
	}
	return m.imported(module.text, name.text)
}

func (m *machine) imported(module, name string) error {
	if m.guess && (!identifier.MatchString(module) || !identifier.MatchString(name)) {
		return errors.New("this is no name")
	}
	g := global{module, name}
	if len(m.globals) >= maxGlobals {
		return errors.New("it imports too many names")
	}
	m.globals = append(m.globals, g)
	return m.push(value{kind: callee, g: g})
}

// callArgs calls what lies below n arguments.
func (m *machine) callArgs(n int) error {
	for range n {
		if _, err := m.pop(); err != nil {
			return err
		}
	}
	f, err := m.pop()
	if err != nil {
		return err
	}
	return m.call(f)
}

func (m *machine) call(f value) error {
	m.calls++
	if f.kind != callee {
		m.refuse("it calls something that is not an imported name")
	}
	return m.push(value{kind: product})
}

// build gives a state to what an allowed name made; to anything else it would
// set attributes.
func (m *machine) build() error {
	if _, err := m.pop(); err != nil {
		return err
	}
	if len(m.stack) == 0 {
		return errors.New("it builds nothing")
	}
	m.calls++
	if k := m.stack[len(m.stack)-1].kind; k != product {
		m.refuse("it sets the state of something that it did not make")
	}
	return nil
}
