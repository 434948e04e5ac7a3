package torch

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strings"
	"unicode/utf8"
)

// machine reads one pickle into values. Each opcode has its full meaning or is
// refused, so that what comes out is what torch.load would make.
type machine struct {
	ctx      context.Context //nolint:containedctx // lives for one stream
	in       *bufio.Reader
	at, end  int64 // of the stream so far, and the most it may have
	frameEnd int64 // where the current frame ends; 0 outside of one

	stack []any
	marks []int // lengths of the stack at each mark
	memo  map[uint32]any

	// persistent makes a storage of a persistent id; nil: none are allowed.
	persistent func(id []any) (any, error)
	// empty are containers that must hold nothing when the stream has ended: a
	// pickle may fill them after it handed them on.
	empty []*dict
}

func newMachine(ctx context.Context, r io.Reader, limit int64) *machine {
	return &machine{ctx: ctx, in: bufio.NewReaderSize(r, 64<<10), end: limit, memo: map[uint32]any{}}
}

var errCut = errors.New("it is cut short, or its pickle is too large")

func (m *machine) take(n uint64) ([]byte, error) {
	if n > uint64(m.end-m.at) {
		return nil, errCut
	}
	// Grow with what really comes: a length may lie.
	b := make([]byte, 0, min(n, 64<<10))
	for uint64(len(b)) < n {
		step := min(n-uint64(len(b)), max(64<<10, uint64(len(b))))
		from := len(b)
		b = append(b, make([]byte, step)...)
		if _, err := io.ReadFull(m.in, b[from:]); err != nil {
			return nil, cut(err)
		}
	}
	m.at += int64(n)
	return b, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}

func (m *machine) uint(n uint64) (uint64, error) {
	b, err := m.take(n)
	if err != nil {
		return 0, err
	}
	var buf [8]byte
	copy(buf[:], b)
	return binary.LittleEndian.Uint64(buf[:]), nil
}

func (m *machine) line() (string, error) {
	var b strings.Builder
	for b.Len() < 1024 { // no name of torch is longer
		c, err := m.take(1)
		if err != nil {
			return "", err
		}
		if c[0] == '\n' {
			return b.String(), nil
		}
		b.WriteByte(c[0])
	}
	return "", errors.New("a name is too long")
}

func (m *machine) push(v any) error {
	m.stack = append(m.stack, v)
	return nil
}

// pop takes n values above the last mark.
func (m *machine) pop(n int) ([]any, error) {
	floor := 0
	if len(m.marks) > 0 {
		floor = m.marks[len(m.marks)-1]
	}
	if len(m.stack)-n < floor {
		return nil, errors.New("it takes more than there is")
	}
	items := m.stack[len(m.stack)-n:]
	m.stack = m.stack[:len(m.stack)-n]
	return items, nil
}

// popMark takes everything above the last mark, and the mark.
func (m *machine) popMark() ([]any, error) {
	if len(m.marks) == 0 {
		return nil, errors.New("a mark is missing")
	}
	floor := m.marks[len(m.marks)-1]
	m.marks = m.marks[:len(m.marks)-1]
	items := m.stack[floor:]
	m.stack = m.stack[:floor]
	return items, nil
}

func (m *machine) top() (any, error) {
	items, err := m.pop(1)
	if err != nil {
		return nil, err
	}
	return items[0], m.push(items[0])
}

// run reads up to and including STOP and returns the value of the pickle.
func (m *machine) run() (any, error) {
	for n := 0; n < maxOpcodes; n++ {
		if n%4096 == 0 && m.ctx.Err() != nil {
			return nil, m.ctx.Err()
		}
		begin := m.at
		op, err := m.take(1)
		if err != nil {
			return nil, err
		}
		if op[0] == 0x80 && n > 0 || op[0] != 0x80 && n == 0 {
			return nil, refuse("byte %d: a pickle of torch states its protocol first, and once", begin)
		}
		if op[0] == '.' {
			return m.stop()
		}
		if err := m.step(op[0]); err != nil {
			return nil, fmt.Errorf("byte %d, opcode %#x: %w", begin, op[0], err)
		}
		if m.frameEnd > 0 && m.at > m.frameEnd {
			return nil, refuse("byte %d: an opcode crosses the end of its frame: two readers would differ", begin)
		}
		if m.at == m.frameEnd {
			m.frameEnd = 0
		}
	}
	return nil, errors.New("it has too many opcodes")
}

func (m *machine) stop() (any, error) {
	if m.frameEnd != 0 && m.at != m.frameEnd {
		return nil, errors.New("it stops inside a frame: two readers would differ")
	}
	if len(m.stack) != 1 || len(m.marks) != 0 {
		return nil, refuse("it stops with %d values and %d marks", len(m.stack), len(m.marks))
	}
	for _, d := range m.empty {
		if len(d.keys) > 0 {
			return nil, errors.New("hooks or metadata of a tensor are not empty")
		}
	}
	return m.stack[0], nil
}

// step does one opcode other than STOP.
func (m *machine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		v, err := m.uint(1)
		if err == nil && (v < 2 || v > 5) {
			err = refuse("protocol %d is not understood", v)
		}
		return err
	case 0x95: // FRAME
		n, err := m.uint(8)
		if err == nil && (m.frameEnd != 0 || n > uint64(m.end-m.at)) {
			err = errors.New("frames overlap or leave the file: two readers would differ")
		}
		if err == nil && n > 0 {
			m.frameEnd = m.at + int64(n)
		}
		return err
	case '(':
		m.marks = append(m.marks, len(m.stack))
		return nil
	case 'c', 0x93, 'R', 0x81, 'b', 'Q':
		return m.calls(op)
	case 'q', 'r', 0x94, 'h', 'j':
		return m.memoise(op)
	case 't', 0x85, 0x86, 0x87, 'l', 'd', ']', '}', ')', 'a', 'e', 's', 'u':
		return m.containers(op)
	}
	v, err := m.atom(op)
	if err != nil {
		return err
	}
	return m.push(v)
}

// atom does the opcodes that push a value of their own.
func (m *machine) atom(op byte) (any, error) {
	number := func(width uint64) (any, error) {
		n, err := m.uint(width)
		if width == 4 {
			return int64(int32(uint32(n))), err
		}
		return int64(n), err
	}
	switch op {
	case 'N':
		return none{}, nil
	case 0x88, 0x89:
		return op == 0x88, nil
	case 'K':
		return number(1)
	case 'M':
		return number(2)
	case 'J':
		return number(4)
	case 'G': // BINFLOAT, the only number that stands with its high byte first
		b, err := m.take(8)
		if err != nil {
			return nil, err
		}
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	case 0x8a: // LONG1
		n, err := m.uint(1)
		if err != nil {
			return nil, err
		}
		b, err := m.take(n)
		return integer(b), err
	case 'U', 0x8c: // SHORT_BINSTRING of Python 2, which torch reads as UTF-8, SHORT_BINUNICODE
		return m.text(1)
	case 'T', 'X':
		return m.text(4)
	case 0x8d:
		return m.text(8)
	case 'C':
		return m.bytes(1)
	case 'B':
		return m.bytes(4)
	case 0x8e:
		return m.bytes(8)
	}
	return nil, errors.New("an opcode that saving tensors does not need is not understood")
}

// integer reads a number in two's complement, low byte first.
func integer(b []byte) any {
	n := new(big.Int)
	for i := len(b) - 1; i >= 0; i-- {
		n.Or(n.Lsh(n, 8), big.NewInt(int64(b[i])))
	}
	if len(b) > 0 && b[len(b)-1]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	if n.IsInt64() {
		return n.Int64()
	}
	return large(n.String())
}

func (m *machine) text(width uint64) (any, error) {
	b, err := m.bytes(width)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(b) {
		return nil, errors.New("a text is not UTF-8")
	}
	return string(b), nil
}

func (m *machine) bytes(width uint64) ([]byte, error) {
	n, err := m.uint(width)
	if err != nil {
		return nil, err
	}
	return m.take(n)
}

// memoise does the opcodes of the memo. A place is filled once, as pickle does:
// readers differ in what comes of the second time.
func (m *machine) memoise(op byte) error {
	var key uint64
	var err error
	switch op {
	case 'q', 'h':
		key, err = m.uint(1)
	case 'r', 'j':
		key, err = m.uint(4)
	case 0x94:
		key = uint64(len(m.memo))
	}
	if err != nil {
		return err
	}
	old, known := m.memo[uint32(key)]
	if op == 'h' || op == 'j' {
		if !known {
			return refuse("memo %d was never set", key)
		}
		return m.push(old)
	}
	if known {
		return refuse("memo %d is set twice", key)
	}
	v, err := m.top()
	m.memo[uint32(key)] = v
	return err
}

// containers does the opcodes that gather values.
func (m *machine) containers(op byte) error {
	switch op {
	case ']':
		return m.push(&list{})
	case '}':
		return m.push(&dict{})
	case ')':
		return m.push(&tuple{})
	case 0x85, 0x86, 0x87:
		items, err := m.pop(int(op) - 0x84)
		if err != nil {
			return err
		}
		return m.push(&tuple{clone(items)})
	case 't', 'l', 'd':
		items, err := m.popMark()
		if err != nil {
			return err
		}
		switch op {
		case 't':
			return m.push(&tuple{clone(items)})
		case 'l':
			return m.push(&list{clone(items)})
		}
		d := &dict{}
		if err := d.set(items); err != nil {
			return err
		}
		return m.push(d)
	}
	var items []any
	var err error
	switch op {
	case 'a':
		items, err = m.pop(1)
	case 's':
		items, err = m.pop(2)
	default:
		items, err = m.popMark()
	}
	if err != nil {
		return err
	}
	items = clone(items)
	top, err := m.top()
	if err != nil {
		return err
	}
	switch c := top.(type) {
	case *list:
		if op == 'a' || op == 'e' {
			c.items = append(c.items, items...)
			return nil
		}
	case *dict:
		if op == 's' || op == 'u' {
			return c.set(items)
		}
	}
	return errors.New("it adds items to something that is no plain container")
}

func clone(items []any) []any { return append([]any(nil), items...) }
