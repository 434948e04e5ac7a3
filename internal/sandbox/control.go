package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Control is the parent's end of a pair of sockets over which a confined child is
// handed files it could not open itself, each with a message.
type Control struct{ end *os.File }

// NewControl returns the parent's end, and the child's as a file to inherit.
func NewControl() (Control, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Control{}, nil, fmt.Errorf("sandbox: control: %w", err)
	}
	return Control{os.NewFile(uintptr(pair[0]), "control")}, os.NewFile(uintptr(pair[1]), "control"), nil
}

// Send hands over a file with a message of at most 64 KiB.
func (c Control) Send(message []byte, file syscall.Conn) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("sandbox: control: %w", err)
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		sent = unix.Sendmsg(int(c.end.Fd()), message, unix.UnixRights(int(fd)), nil, 0)
	})
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("sandbox: control: %w", err)
	}
	return nil
}

// Close tells the child that there is no more.
func (c Control) Close() error { return c.end.Close() }

// Receive waits, in the child, for the next message and file on a descriptor that
// it inherited; both are nil when the parent has closed its end.
func Receive(fd int, buf []byte) (message []byte, file *os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	for {
		if n, oobn, _, _, err = unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil || n == 0 {
		return nil, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, nil, errors.Join(errors.New("sandbox: control: no file came"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, nil, errors.Join(errors.New("sandbox: control: not one file came"), err)
	}
	return buf[:n], os.NewFile(uintptr(fds[0]), "handed over"), nil
}
