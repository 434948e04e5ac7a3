package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// walk writes all fields, and those of bodies that read as messages.
func walk(m Message, out *strings.Builder) error {
	for {
		f, err := m.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if f.Type == Bytes {
			text, err := f.Body.Text(1 << 10)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%d=%q ", f.Number, text)
		} else {
			fmt.Fprintf(out, "%d=%d ", f.Number, f.Value)
		}
	}
}

func TestFields(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"numbers and texts":           {"\x08\x96\x01\x12\x02hi", `1=150 2="hi" `},
		"numbers of fixed size":       {"\x0d\x01\x00\x00\x00\x11\x02\x00\x00\x00\x00\x00\x00\x00", "1=1 2=2 "},
		"a negative number":           {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "1=18446744073709551615 "},
		"nothing":                     {"", ""},
		"a number that is too long":   {"\x08\x81\x00", "shortest"},
		"a number beyond 64 bits":     {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "shortest"},
		"a tag that is too long":      {"\x88\x00\x01", "shortest"},
		"a number without end":        {"\x08\xff", "beyond"},
		"a text beyond the end":       {"\x12\x05hi", "beyond"},
		"a text of enormous size":     {"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "beyond"},
		"four bytes that are two":     {"\x0d\x01\x00", "beyond"},
		"field zero":                  {"\x00\x01", "not allowed"},
		"a field of too large number": {"\x80\x80\x80\x80\x10\x01", "not allowed"},
		"a group":                     {"\x0b\x0c", "type 3"},
		"a type that is not known":    {"\x0f", "type 7"},
	} {
		var out strings.Builder
		err := walk(Open(strings.NewReader(tc.in), int64(len(tc.in)), 100), &out)
		if got := out.String() + fmt.Sprint(err); tc.want != "" && !strings.Contains(got, tc.want) || err == nil && out.String() != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	many := strings.Repeat("\x08\x01", 101)
	if err := walk(Open(strings.NewReader(many), int64(len(many)), 100), &strings.Builder{}); err == nil {
		t.Error("101 fields of 100 were read")
	}
	if err := walk(Open(strings.NewReader("\x08"), 9, 100), &strings.Builder{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that is shorter than it says: %v", err)
	}
}

func FuzzFields(f *testing.F) {
	f.Add([]byte("\x08\x96\x01\x12\x02hi\x0d\x01\x00\x00\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = walk(Open(bytes.NewReader(b), int64(len(b)), 1000), &strings.Builder{})
	})
}
