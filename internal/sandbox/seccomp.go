package sandbox

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data; linux/seccomp.h. Only the low half of an
// argument is looked at: the kernel takes these arguments as 32-bit integers,
// so that a filter which compared all 64 bits could be walked around.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16 // 8 bytes each, little-endian on every architecture built for
)

// condition holds if the argument, masked, equals value (or does not).
type condition struct {
	arg   uint32
	mask  uint32 // 0 means all bits
	value uint32
	not   bool
}

// refusal makes one system call fail with errno if all conditions hold.
type refusal struct {
	call  uint32
	errno unix.Errno
	when  []condition
}

const protoMPTCP = 262 // IPPROTO_MPTCP; linux/in.h

// never are system calls no confined program has a use for: namespaces,
// mounts, other processes' memory, kernel loading, keys, and io_uring, which
// does file and network work that seccomp can not see.
func never() []uint32 {
	return []uint32{
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
		unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
		unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
		unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
		unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT,
		unix.SYS_QUOTACTL, unix.SYS_ACCT, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX,
		unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_SYSLOG, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_VHANGUP,
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	}
}

// baseFilter is what every confined program gets before it starts.
func baseFilter(s Spec, level Level) []refusal {
	var rs []refusal
	for _, nr := range never() {
		rs = append(rs, refusal{call: nr, errno: unix.EPERM})
	}
	for _, flag := range []uint32{unix.CLONE_NEWUSER, unix.CLONE_NEWNS, unix.CLONE_NEWNET, unix.CLONE_NEWPID, unix.CLONE_NEWIPC, unix.CLONE_NEWUTS, unix.CLONE_NEWCGROUP} {
		rs = append(rs, refusal{unix.SYS_CLONE, unix.EPERM, []condition{{arg: 0, mask: flag, value: flag}}})
	}
	// The flags of clone3 are behind a pointer; every library falls back to clone.
	rs = append(rs, refusal{call: unix.SYS_CLONE3, errno: unix.ENOSYS})
	rs = append(rs, refusal{unix.SYS_SOCKET, unix.EPROTONOSUPPORT, []condition{{arg: 2, value: protoMPTCP}}})
	if level == LevelSeccomp {
		rs = append(rs, refusal{unix.SYS_SOCKET, unix.EACCES, []condition{{arg: 0, value: unix.AF_UNIX, not: true}}})
	}
	if s.NoUnix {
		rs = append(rs, refusal{unix.SYS_SOCKET, unix.EAFNOSUPPORT, []condition{{arg: 0, value: unix.AF_UNIX}}})
	}
	if s.NoFork {
		rs = append(rs, noProcesses()...)
	}
	if s.NoConnect {
		fastOpen := func(arg uint32) []condition { // a connect by another name
			return []condition{{arg: arg, mask: unix.MSG_FASTOPEN, value: unix.MSG_FASTOPEN}}
		}
		rs = append(rs, refusal{call: unix.SYS_CONNECT, errno: unix.EACCES},
			refusal{unix.SYS_SENDTO, unix.EACCES, fastOpen(3)},
			refusal{unix.SYS_SENDMSG, unix.EACCES, fastOpen(2)},
			refusal{unix.SYS_SENDMMSG, unix.EACCES, fastOpen(3)},
			// Datagrams need no connection to reach a daemon.
			refusal{unix.SYS_SOCKET, unix.EACCES, []condition{{arg: 0, value: unix.AF_UNIX}, {arg: 1, mask: 0xf, value: unix.SOCK_DGRAM}}})
	}
	return rs
}

// noProcesses refuses to make processes, threads excepted.
func noProcesses() []refusal {
	rs := []refusal{
		{unix.SYS_CLONE, unix.EACCES, []condition{{arg: 0, mask: unix.CLONE_THREAD, value: 0}}},
		{call: unix.SYS_CLONE3, errno: unix.ENOSYS},
	}
	for _, nr := range makesProcesses() {
		rs = append(rs, refusal{call: nr, errno: unix.EACCES})
	}
	return rs
}

// Seal refuses, from now on and for every thread of the calling process, to
// start programs, to make processes, and to open, bind or connect sockets.
// It is for a worker that has started and needs nothing any more but the
// descriptors it holds; it must run confined already (no_new_privs set).
func Seal() error {
	rs := noProcesses()
	for _, nr := range []uint32{unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_IO_URING_SETUP} {
		rs = append(rs, refusal{call: nr, errno: unix.EACCES})
	}
	if err := loadFilter(rs, unix.SECCOMP_FILTER_FLAG_TSYNC); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}

// assemble writes the filter: what is not refused is allowed, and every call
// by another architecture's numbers is refused.
func assemble(rs []refusal) []bpf.Instruction {
	ret := func(errno unix.Errno) bpf.Instruction {
		return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
	}
	prog := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: nativeArch, SkipTrue: 1},
		ret(unix.ENOSYS),
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: maxCall, SkipTrue: 1},
		ret(unix.ENOSYS),
	}
	for _, r := range rs {
		var body []bpf.Instruction
		for _, c := range r.when {
			body = append(body, bpf.LoadAbsolute{Off: offArgs + 8*c.arg, Size: 4})
			if c.mask != 0 {
				body = append(body, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: c.mask})
			}
			body = append(body, bpf.JumpIf{Cond: bpf.JumpEqual, Val: c.value, SkipTrue: 0, SkipFalse: 0})
		}
		body = append(body, ret(r.errno))
		for i, c := 0, 0; i < len(body); i++ { // a condition that fails leaves the body
			if j, ok := body[i].(bpf.JumpIf); ok {
				if rest := uint8(len(body) - i - 1); r.when[c].not {
					j.SkipTrue = rest
				} else {
					j.SkipFalse = rest
				}
				body[i] = j
				c++
			}
		}
		prog = append(prog, bpf.LoadAbsolute{Off: offNumber, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.call, SkipFalse: uint8(len(body))})
		prog = append(prog, body...)
	}
	return append(prog, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
}

// loadFilter installs the filter on the calling thread, or with the flag TSYNC
// on all threads of the process.
func loadFilter(rs []refusal, flags uintptr) error {
	raw, err := bpf.Assemble(assemble(rs))
	if err != nil {
		return fmt.Errorf("assemble: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	if thread != 0 {
		return errors.New("a thread carries another filter")
	}
	return nil
}

// hasSeccomp reports whether the kernel knows filters: it answers EFAULT to a
// filter that is nowhere, EINVAL or ENOSYS if it does not know them.
func hasSeccomp() bool {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)
	return errors.Is(errno, unix.EFAULT)
}
