// Package wire walks messages of Protocol Buffers field by field, without a schema
// and without reading the bodies that nobody asks for.
//
// It reads what honest writers write: numbers in their shortest form, no groups,
// every length inside of the message around it. Memory is one window, whatever the
// size of the file. Format: protobuf.dev, "Encoding".
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// Type is how a field is written.
type Type byte

// The types, as the format numbers them; groups are refused.
const (
	Varint  Type = 0
	Fixed64 Type = 1
	Bytes   Type = 2
	Fixed32 Type = 5
)

// window is how much of the file is in memory, in bytes.
const window = 16 << 10

// source is the file that all messages of one walk share.
type source struct {
	r      io.ReaderAt
	buf    []byte
	at     int64 // where in the file buf begins
	fields int   // that may still be read
}

// Message is a stretch of a file that holds fields.
type Message struct {
	src     *source
	at, end int64 // in the file
}

// Field is one field. Value is set for numbers, Body for bytes.
type Field struct {
	Number int
	Type   Type
	Value  uint64
	Body   Message
}

// Open returns the message that fills the first size bytes of r. More than fields
// fields, at all depths together, are an error.
func Open(r io.ReaderAt, size int64, fields int) Message {
	return Message{src: &source{r: r, buf: make([]byte, 0, window), fields: fields}, end: size}
}

// Size returns the length of the rest of the message, in bytes.
func (m Message) Size() int64 { return m.end - m.at }

// At returns where in the file the rest of the message begins.
func (m Message) At() int64 { return m.at }

var (
	errCut  = errors.New("a field reaches beyond the message that it stands in")
	errLong = errors.New("a number is not in its shortest form")
)

// Next returns the next field, and io.EOF behind the last one.
func (m *Message) Next() (f Field, err error) {
	if m.at == m.end {
		return f, io.EOF
	}
	if m.src.fields--; m.src.fields < 0 {
		return f, errors.New("it has too many fields")
	}
	tag, err := m.varint()
	if err != nil {
		return f, err
	}
	if tag>>3 == 0 || tag>>3 > 1<<29-1 {
		return f, fmt.Errorf("field number %d is not allowed", tag>>3)
	}
	f.Number, f.Type = int(tag>>3), Type(tag&7)
	switch f.Type {
	case Varint:
		f.Value, err = m.varint()
	case Fixed32:
		var b []byte
		if b, err = m.take(4); err == nil {
			f.Value = uint64(binary.LittleEndian.Uint32(b))
		}
	case Fixed64:
		var b []byte
		if b, err = m.take(8); err == nil {
			f.Value = binary.LittleEndian.Uint64(b)
		}
	case Bytes:
		var n uint64
		if n, err = m.varint(); err == nil && n > uint64(m.end-m.at) {
			err = errCut
		}
		if err == nil {
			f.Body = Message{src: m.src, at: m.at, end: m.at + int64(n)}
			m.at += int64(n)
		}
	default:
		err = fmt.Errorf("field %d is of type %d, which is not read", f.Number, f.Type)
	}
	return f, err
}

// Varint reads a bare number, as packed fields hold them one after the other.
func (m *Message) Varint() (uint64, error) {
	if m.at == m.end {
		return 0, io.EOF
	}
	return m.varint()
}

// Text returns the rest of the message as bytes; more than limit are an error.
func (m Message) Text(limit int) (string, error) {
	if m.Size() > int64(limit) {
		return "", fmt.Errorf("a text has %d bytes, more than %d", m.Size(), limit)
	}
	b := make([]byte, m.Size())
	if n, err := m.src.r.ReadAt(b, m.at); n < len(b) {
		return "", fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err)
	}
	return string(b), nil
}

func (m *Message) varint() (uint64, error) {
	b, err := m.peek(min(10, m.end-m.at))
	if err != nil {
		return 0, err
	}
	v, n := binary.Uvarint(b)
	switch {
	case n == 0:
		return 0, errCut
	case n < 0 || n != max(1, (bits.Len64(v)+6)/7):
		return 0, errLong
	}
	m.at += int64(n)
	return v, nil
}

func (m *Message) take(n int64) ([]byte, error) {
	if n > m.end-m.at {
		return nil, errCut
	}
	b, err := m.peek(n)
	m.at += n
	return b, err
}

// peek returns n bytes, of at most ten, from the window, which it moves as needed.
func (m *Message) peek(n int64) ([]byte, error) {
	s := m.src
	if m.at < s.at || m.at+n > s.at+int64(len(s.buf)) {
		got, err := s.r.ReadAt(s.buf[:window], m.at)
		if int64(got) < n {
			return nil, fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err)
		}
		s.buf, s.at = s.buf[:got], m.at
	}
	off := m.at - s.at
	return s.buf[off : off+n], nil
}
