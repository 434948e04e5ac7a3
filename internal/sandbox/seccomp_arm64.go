package sandbox

import "golang.org/x/sys/unix"

const (
	nativeArch = unix.AUDIT_ARCH_AARCH64
	maxCall    = 0x40000000
)

func makesProcesses() []uint32 { return nil }
