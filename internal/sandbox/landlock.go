package sandbox

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Landlock rights in groups; the kernel's userspace-api/landlock.rst.
const (
	rightsRead = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR

	rightsWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE

	// rightsNever are handled and granted to nobody.
	rightsNever = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK

	rightsExec   = unix.LANDLOCK_ACCESS_FS_EXECUTE
	rightsDevice = rightsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	rightsAll = rightsRead | rightsWrite | rightsNever | rightsExec | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	// rightsFile are those that a rule on something other than a directory may name.
	rightsFile = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// Version of Landlock from which on a group of rights is known.
const (
	abiRefer    = 2
	abiTruncate = 3
	abiNet      = 4
	abiIoctl    = 5
	abiScope    = 6
)

// devices may be used by every confined program; constant.
var devices = [...]string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts", "/dev/ptmx"}

// SystemLibraries returns the paths, of those that exist here, that a program
// linked against the system's libraries must be able to read to start.
func SystemLibraries() []string {
	var found []string
	for _, p := range []string{
		"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
		"/etc/localtime", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/devices/system/node",
	} {
		if _, err := os.Stat(p); err == nil {
			found = append(found, p)
		}
	}
	return found
}

// landlockABI returns the version of Landlock, 0 if there is none.
func landlockABI() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// rule allows rights beneath an open path.
type rule struct {
	fd     int
	owned  bool
	rights uint64
}

type rules []rule

func (rs rules) close() {
	for _, r := range rs {
		if r.owned {
			_ = unix.Close(r.fd) // opened with O_PATH: nothing can be lost
		}
	}
}

// add opens path and allows rights beneath it. A symbolic link is followed
// only if follow is set; else it is left out, because what it points at is
// judged where it is.
func (rs *rules) add(path string, rights uint64, follow bool) error {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return rs.addFile(fd, true, rights)
}

func (rs *rules) addFile(fd int, owned bool, rights uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("descriptor %d: %w", fd, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFLNK:
		if owned {
			_ = unix.Close(fd)
		}
		return nil
	default:
		rights &= rightsFile
	}
	*rs = append(*rs, rule{fd, owned, rights})
	return nil
}

// openRules turns the lists of a spec into open paths. On error nothing stays
// open that outlives the process.
func openRules(s Spec, program string) (rules, error) {
	var rs rules
	read := uint64(rightsRead | rightsExec)
	if s.NoExec {
		read = rightsRead
	}
	hidden, err := resolveHidden(s.Hidden)
	if err != nil {
		return rs, err
	}
	from := s.Read
	if len(from) == 0 && len(s.ReadFiles) == 0 {
		from, hidden = []string{"/"}, append(hidden, "/dev") // raw disks are everybody's files
	}
	for _, list := range []struct {
		paths  []string
		rights uint64
	}{{from, read}, {s.Write, read | rightsWrite}, {s.Sockets, unix.LANDLOCK_ACCESS_FS_MAKE_SOCK}} {
		for _, p := range list.paths {
			if err := rs.addTree(p, list.rights, hidden); err != nil {
				return rs, err
			}
		}
	}
	for _, p := range devices {
		if err := rs.add(p, rightsDevice, true); err != nil && !optional(err) {
			return rs, err
		}
	}
	if err := rs.add("/proc/self/uid_map", rightsRead, false); err != nil && !optional(err) { // for Unreachable
		return rs, err
	}
	for _, fd := range s.ReadFiles {
		if err := rs.addFile(fd, false, rightsRead); err != nil {
			return rs, err
		}
	}
	return rs, rs.addProgram(program)
}

// addProgram allows the program itself, and what the kernel opens to start it.
func (rs *rules) addProgram(program string) error {
	if err := rs.add(program, rightsRead|rightsExec, true); err != nil {
		return err
	}
	f, err := elf.Open(program)
	if err != nil {
		return nil // a script: its interpreter must be among what may be executed
	}
	defer func() { _ = f.Close() }() // only read
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > unix.PathMax {
			continue
		}
		name, err := io.ReadAll(p.Open())
		if err != nil {
			return fmt.Errorf("%s: interpreter: %w", program, err)
		}
		return rs.add(strings.TrimRight(string(name), "\x00"), rightsRead|rightsExec, true)
	}
	return nil
}

// resolveHidden returns the real paths of those hidden ones that exist.
func resolveHidden(paths []string) ([]string, error) {
	var real []string
	for _, p := range paths {
		r, err := filepath.EvalSymlinks(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, fs.ErrPermission): // this process can not get there, nor can a child of it
			real = append(real, p)
		case err != nil:
			return nil, fmt.Errorf("hidden path: %w", err)
		default:
			real = append(real, r)
		}
	}
	return real, nil
}

// addTree allows rights beneath root, without what is hidden.
func (rs *rules) addTree(root string, rights uint64, hidden []string) error {
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	for _, h := range hidden {
		if h == real {
			return fmt.Errorf("path %q is allowed and hidden at once", root)
		}
	}
	if !leadsTo(real, hidden) {
		return rs.add(real, rights, true)
	}
	return rs.addSiblings(real, rights, hidden)
}

// addSiblings allows everything in dir but the hidden, the way to the hidden,
// and keys.
func (rs *rules) addSiblings(dir string, rights uint64, hidden []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		switch {
		case strings.HasSuffix(e.Name(), ".key") || contains(hidden, p):
		case leadsTo(p, hidden):
			err = rs.addSiblings(p, rights, hidden)
		default:
			err = rs.add(p, rights, false)
		}
		if err != nil && !optional(err) {
			return err
		}
	}
	return nil
}

// optional reports an error that makes a path unusable for anybody, or gone.
func optional(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}

func contains(list []string, p string) bool {
	for _, l := range list {
		if l == p {
			return true
		}
	}
	return false
}

// leadsTo reports whether one of the hidden paths lies beneath dir.
func leadsTo(dir string, hidden []string) bool {
	prefix := strings.TrimSuffix(dir, "/") + "/"
	for _, h := range hidden {
		if strings.HasPrefix(h, prefix) {
			return true
		}
	}
	return false
}

// handled returns what a kernel of the given version can be asked to refuse.
func handled(abi int, s Spec, level Level) unix.LandlockRulesetAttr {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: rightsAll}
	if abi < abiRefer {
		attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi < abiTruncate {
		attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi < abiIoctl {
		attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= abiNet {
		if s.NoConnect || level == LevelSeccomp {
			attr.Handled_access_net |= unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
		if s.NoBind || level == LevelSeccomp {
			attr.Handled_access_net |= unix.LANDLOCK_ACCESS_NET_BIND_TCP
		}
	}
	if abi >= abiScope {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL
		if s.Net == NetNone || s.NoUnix {
			attr.Scoped |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		}
	}
	return attr
}

// enforce restricts the calling thread to the rules. Without Landlock in the
// kernel it does nothing: Command has refused that if the spec is strict.
func (rs rules) enforce(s Spec, level Level) error {
	abi := landlockABI()
	if abi == 0 {
		return nil
	}
	attr := handled(abi, s, level)
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("create ruleset: %w", errno)
	}
	defer func() { _ = unix.Close(int(set)) }() // a ruleset holds no data
	for _, r := range rs {
		beneath := unix.LandlockPathBeneathAttr{Allowed_access: r.rights & attr.Handled_access_fs, Parent_fd: int32(r.fd)}
		if beneath.Allowed_access == 0 {
			continue
		}
		// What Program made lies in no file system that Landlock knows, and takes no rule.
		if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH,
			uintptr(unsafe.Pointer(&beneath)), 0, 0, 0); errno != 0 && errno != unix.EBADFD {
			return fmt.Errorf("add rule: %w", errno)
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		return fmt.Errorf("restrict: %w", errno)
	}
	return nil
}
