package sandbox

import "golang.org/x/sys/unix"

const (
	nativeArch = unix.AUDIT_ARCH_X86_64
	maxCall    = 0x40000000 // from here on numbers are of the x32 ABI; asm/unistd.h
)

func makesProcesses() []uint32 { return []uint32{unix.SYS_FORK, unix.SYS_VFORK} }
