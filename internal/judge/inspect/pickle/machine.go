package pickle

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"

	"enisle/internal/judge/inspect"
)

// Limits of one stream.
const (
	maxOpcodes = 50_000_000
	maxStack   = 2_000_000
	maxMemo    = 2_000_000
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

type global struct{ module, name string }

// machine is the reading of one stream.
type machine struct {
	src        *source
	ctx        context.Context //nolint:containedctx // lives for one stream
	persistent bool            // persistent ids are allowed
	script     bool            // classes of TorchScript are allowed
	guess      bool            // the file may be no pickle at all
	// beside says why a storage that a persistent id names is not what stands in the
	// archive; nil if the pickle stands in none.
	beside func(id value) string

	stack      []value
	memo       map[uint64]value
	under      map[uint64]value // of the machine this one was forked from
	globals    []global         // as written, each once
	seen       map[global]use
	followed   int // items of containers
	calls      int
	copied     float64 // bytes that calls were given
	refusals   []string
	nested     []span // bytes that an allowed name unpickles
	torchMagic bool
	bomb       bool  // reported already
	frameEnd   int64 // offset at which the current frame ends; 0 outside of one
}

// span is a run of bytes of the subject.
type span struct{ at, size int64 }

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
	if m.memo == nil {
		m.memo, m.seen = map[uint64]value{}, map[global]use{}
	}
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
