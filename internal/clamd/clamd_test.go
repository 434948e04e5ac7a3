package clamd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnswersThatAreNoPass plays daemons that answer all kinds of things.
func TestAnswersThatAreNoPass(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		pass   bool
	}{
		"a pass":                {"stream: OK\x00", true},
		"not to the end":        {"stream: OK", false},
		"nothing":               {"", false},
		"two answers":           {"stream: OKOK\x00", false},
		"another case":          {"stream: ok\x00", false},
		"a pass of a file":      {"/tmp/x: OK\x00", false},
		"an error":              {"stream: Can't allocate memory ERROR\x00", false},
		"found":                 {"stream: Eicar FOUND\x00", false},
		"found, and a line":     {"stream: Eicar\nstream: OK FOUND\x00", false},
		"an answer without end": {strings.Repeat("x", 1<<20), false},
		"unknown command":       {"UNKNOWN COMMAND\x00", false},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.CopyN(io.Discard, c, 10+4+1000+4)
				_, _ = io.WriteString(c, tc.answer)
				_ = c.Close()
			}()
			err = Client{socket}.Scan(t.Context(), bytes.NewReader(make([]byte, 1000)))
			if (err == nil) != tc.pass {
				t.Errorf("%q: %v", tc.answer, err)
			}
		})
	}
}

// A daemon that says OK and hangs up before it has read everything passes nothing.
func TestAPassBeforeTheEndIsNone(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, c, 10+4+chunk)
		_, _ = io.WriteString(c, "stream: OK\x00")
		_ = c.(*net.UnixConn).CloseRead()
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}()
	err = Client{socket}.Scan(t.Context(), bytes.NewReader(make([]byte, 8<<20)))
	if err == nil || !strings.Contains(err.Error(), "did not read to the end") {
		t.Errorf("%v", err)
	}
}

func TestReadHead(t *testing.T) {
	head := func(s string) io.Reader { return strings.NewReader(fmt.Sprintf("%-512s", s)) }
	h, err := ReadHead(head("ClamAV-VDB:24 Nov 2026 08-25 +0000:27800:2078000:90:0123:sig:builder:1795508700"))
	if err != nil || h.Version != 27800 || h.Number != 2078000 {
		t.Errorf("%+v, %v", h, err)
	}
	for _, bad := range []string{"", "ClamAV-VDB", "ClamAV-VDB:x:y:z:90:0:s:b:1", "ClamAV-VDB:x:0:1:90:0:s:b:1", "Other:x:1:1:90:0:s:b:1", "ClamAV-VDB:x:-1:1:90:0:s:b:1"} {
		if h, err := ReadHead(head(bad)); err == nil {
			t.Errorf("%q was taken: %+v", bad, h)
		}
	}
	if _, err := ReadHead(strings.NewReader("ClamAV-VDB:")); err == nil {
		t.Error("a head that ends was taken")
	}
}
