// Package clamd has files scanned by clamd, the daemon of ClamAV, over its socket.
//
// Only the words "stream: OK" are a pass; whatever else it answers, or does not
// answer, refuses. Before it is believed it must show that it finds EICAR's test
// file, that it passes what is harmless, and that it does not call clean what it did
// not look at because of its own limits (AlertExceedsMax in its configuration).
package clamd

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"time"
)

// Limits of what clamd is waited for and sent.
const (
	patient   = 5 * time.Minute // without any progress
	maxAnswer = 4096            // bytes
	chunk     = 256 << 10       // bytes
)

// Client asks one clamd.
type Client struct {
	Socket string // path of its Unix socket
}

// ErrTooLarge says that clamd does not take streams of this size.
var ErrTooLarge = errors.New("it is larger than clamd takes (StreamMaxLength)") // constant

// Found is the name of a signature that matched.
type Found string

// Error says what was found.
func (f Found) Error() string { return "clamd finds " + string(f) }

// answerForm is what clamd answers to a stream; constant.
var answerForm = regexp.MustCompile(`^stream: ([^\x00-\x1f\x7f]{1,300}) FOUND$`)

// dial connects; the connection ends with ctx.
func (c Client) dial(ctx context.Context) (*net.UnixConn, func() bool, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return nil, nil, fmt.Errorf("clamd does not answer: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // whoever waits is told by the error of reading
	return conn.(*net.UnixConn), stop, nil
}

// ask sends one command and returns the answer.
func (c Client) ask(ctx context.Context, command string, content io.Reader) (answer string, err error) {
	conn, stop, err := c.dial(ctx)
	if err != nil {
		return "", err
	}
	defer stop()
	defer func() { _ = conn.Close() }() // only read from now
	deadline := func() error { return conn.SetDeadline(time.Now().Add(patient)) }
	if err := deadline(); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "z"+command+"\x00"); err != nil {
		return "", fmt.Errorf("clamd: %w", err)
	}
	var sent error
	if content != nil {
		sent = send(conn, content, deadline)
		var broken readError
		if errors.As(sent, &broken) {
			return "", broken.error
		}
	}
	// It may have answered, and hung up, before the end: it says why.
	b, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	text, _, whole := strings.Cut(string(b), "\x00")
	if !whole {
		return "", fmt.Errorf("clamd did not answer to the end: %w", errors.Join(ctx.Err(), sent, err, io.ErrUnexpectedEOF))
	}
	if sent != nil && text == pass {
		return "", fmt.Errorf("clamd passes what it did not read to the end: %w", sent)
	}
	return text, nil
}

// pass is the only answer that is one.
const pass = "stream: OK"

// readError is an error of what is scanned, not of clamd.
type readError struct{ error }

// send writes the content in chunks, each with its length before it, and an empty one.
func send(conn io.Writer, content io.Reader, deadline func() error) error {
	buf := make([]byte, 4+chunk)
	for {
		n, err := io.ReadFull(content, buf[4:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return readError{err}
		}
		if derr := deadline(); derr != nil {
			return derr
		}
		binary.BigEndian.PutUint32(buf, uint32(n)) // at most chunk
		if _, werr := conn.Write(buf[:4+n]); werr != nil {
			return werr
		}
		if n == 0 {
			return nil
		}
		if err != nil {
			_, werr := conn.Write([]byte{0, 0, 0, 0})
			return werr
		}
	}
}

// Scan has content scanned: nil is a pass, Found names what matched, any other error
// means that nobody knows.
func (c Client) Scan(ctx context.Context, content io.Reader) error {
	answer, err := c.ask(ctx, "INSTREAM", content)
	if err != nil {
		return err
	}
	if m := answerForm.FindStringSubmatch(answer); m != nil {
		return Found(m[1])
	}
	switch {
	case answer == pass:
		return nil
	case strings.Contains(answer, "size limit exceeded"):
		return ErrTooLarge
	}
	return fmt.Errorf("clamd answers %.120q", answer)
}

// Version is what clamd says of itself.
type Version struct {
	Engine     string    `json:"engine"`           // ClamAV 1.4.6
	Signatures string    `json:"signatures"`       // number of its daily signatures; empty when there are none
	Dated      time.Time `json:"dated,omitzero"`   // of those
	Text       string    `json:"text,omitempty"`   // all of it
	Socket     string    `json:"socket,omitempty"` // that it answers on
}

// Version asks which engine and signatures answer.
func (c Client) Version(ctx context.Context) (Version, error) {
	text, err := c.ask(ctx, "VERSION", nil)
	if err != nil {
		return Version{}, err
	}
	v := Version{Text: text, Socket: c.Socket}
	parts := strings.Split(text, "/")
	if v.Engine = parts[0]; !strings.HasPrefix(v.Engine, "ClamAV ") || len(text) > 200 {
		return v, fmt.Errorf("this is no clamd: it says %.60q", text)
	}
	if len(parts) == 3 {
		v.Signatures = parts[1]
		if v.Dated, err = time.Parse(time.ANSIC, parts[2]); err != nil {
			return v, fmt.Errorf("clamd does not say how old its signatures are: %.60q", text)
		}
	}
	return v, nil
}

// Reload makes clamd read its signatures again.
func (c Client) Reload(ctx context.Context) error {
	answer, err := c.ask(ctx, "RELOAD", nil)
	if err == nil && answer != "RELOADING" {
		err = fmt.Errorf("clamd answers %.60q", answer)
	}
	return err
}

// Eicar is the test file that every scanner finds (www.eicar.org). It is put
// together here, so that no scanner finds it in this program.
func Eicar() []byte {
	return []byte(`X5O!P%@AP[4\PZX54(P^)` + `7CC)7}$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!$H+H*`)
}

// harmless is what must pass; constant.
const harmless = "This text is harmless, and a scanner that finds something in it finds something in everything.\n"

// nested is how deep the probe of limits is packed: deeper than clamd unpacks.
const nested = 60

// Probe finds out whether clamd may be believed.
func (c Client) Probe(ctx context.Context) error {
	var found Found
	err := c.Scan(ctx, bytes.NewReader(Eicar()))
	switch {
	case err == nil:
		return errors.New("clamd does not find EICAR's test file: it has no signatures, or not those it should have")
	case !errors.As(err, &found):
		return err
	}
	if err := c.Scan(ctx, strings.NewReader(harmless)); err != nil {
		return fmt.Errorf("clamd does not pass a harmless text: %w", err)
	}
	deep := []byte(harmless)
	for range nested {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(deep); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		deep = b.Bytes()
	}
	err = c.Scan(ctx, bytes.NewReader(deep))
	switch {
	case err == nil:
		return errors.New("clamd calls clean what it did not look into: set 'AlertExceedsMax yes' in its configuration")
	case !errors.As(err, &found):
		return err
	}
	return nil
}
