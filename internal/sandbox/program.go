package sandbox

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"enisle/internal/fail"
)

// Program copies a program into memory, where it can be executed and nobody can change
// it any more, and returns it as a file to inherit: argv[0] is ProgramFile of its
// descriptor in the child. The caller has what src gave verified before it is used.
// It refuses (fail.Refused) what is no ELF program.
func Program(name string, src io.Reader) (f *os.File, err error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 there is no other kind
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fail.As(fail.Failed, "the kernel's setting vm.memfd_noexec must be 0 or 1", fmt.Errorf("sandbox: program %s: memory: %w", name, err))
	}
	f = os.NewFile(uintptr(fd), name)
	defer func() {
		if err != nil {
			f, err = nil, errors.Join(fmt.Errorf("sandbox: program %s: %w", name, err), f.Close())
		}
	}()
	if _, err := io.Copy(f, src); err != nil {
		return f, err
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return f, fmt.Errorf("seal: %w", err)
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return f, fail.Refuse("release a build for this system", fmt.Errorf("is not an executable of this system: %w", err))
	}
	return f, e.Close()
}

// ProgramFile is the path of a file that a child inherits as descriptor fd.
func ProgramFile(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
