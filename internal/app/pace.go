package app

import (
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
)

const (
	// spareGarbage is how many bytes may gather before they are collected, however little
	// is in use. Go collects when what is in use has doubled: in a server that holds
	// little that is many times a second, and costs more than it gives back.
	spareGarbage = 48 << 20
	leastPercent = 100 // of what is in use, as usual in Go
	mostPercent  = 1000
)

// paceGarbage has it that the collector of this process waits for spareGarbage. It looks
// again after each collection; with much in use all is as usual.
func paceGarbage() {
	live := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(live)
	percent := leastPercent
	if n := live[0].Value.Uint64(); n > 0 {
		percent = int(min(max(spareGarbage*100/n, leastPercent), mostPercent))
	}
	debug.SetGCPercent(percent)
	mark := new([64]byte) // nobody holds it: the next collection finds it
	runtime.AddCleanup(mark, func(struct{}) { paceGarbage() }, struct{}{})
}
