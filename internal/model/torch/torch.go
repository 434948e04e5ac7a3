// Package torch reads checkpoints of PyTorch as data: which tensors a file holds,
// under which names, and where their bytes stand.
//
// It runs nothing and imports nothing. A strict machine (machine.go) understands
// the opcodes and the few names by which torch.save writes tensors and plain
// containers, gives each exactly the meaning that torch.load gives it, and refuses
// everything else. It judges nothing beyond that and knows no other format of
// models. Layouts: torch/serialization.py (_save and _load, _legacy_save and
// _legacy_load) and torch/_utils.py; opcodes: CPython, Lib/pickletools.py.
package torch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// Limits of one checkpoint.
const (
	maxPickle  = 256 << 20 // bytes of a pickle
	maxOpcodes = 10_000_000
	maxDepth   = 100     // containers inside containers
	maxTensors = 1 << 20 // names; what one container holds may be reached by many
	maxLeaves  = 1 << 20 // values that are no tensors
	maxNodes   = 1 << 23 // values visited, each as often as it is reached
	maxName    = 512     // bytes of a tensor's name
	maxDims    = 64
	maxEntries = 1 << 20   // members of an archive
	maxGrowth  = 16        // times the bytes of its storages that the tensors may come to,
	maxFree    = 256 << 20 // beyond this many bytes
	leafText   = 1 << 10   // bytes of a value that are kept
)

// Checkpoint is what one file holds.
type Checkpoint struct {
	Format  string   // "zip" or "legacy"
	Tensors []Tensor // in the order in which the file names them
	Leaves  []Leaf   // what is no tensor
}

// Tensor is one tensor under one name. Two that share a storage are two tensors.
type Tensor struct {
	Name   string
	Type   string   // as safetensors names it, such as BF16
	Shape  []uint64 // nil of a number without dimensions
	Shares string   // name of the first tensor of the same storage, or empty

	view *view
}

// Leaf is a value that is no tensor: a number, a text, a setting.
type Leaf struct {
	Name string
	Kind string // int, float, bool, str, None, bytes, or what torch calls it
	Text string // at most 1 KiB of it
	Cut  bool   // Text is not all
}

// Refusal is an error that knows what the person may do next.
type Refusal struct {
	What, Next string
}

// Error returns what is refused.
func (r *Refusal) Error() string { return r.What }

// Read reads the checkpoint in r, of size bytes. It keeps the graph of the pickle
// in memory, and of the tensors only what stands inside the pickle itself; the rest
// is read from r when a tensor is copied. Every error but one of r or ctx means that
// the file is refused.
func Read(ctx context.Context, r io.ReaderAt, size int64) (*Checkpoint, error) {
	head := make([]byte, min(512, size))
	if n, err := r.ReadAt(head, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(head)) {
		return nil, err
	}
	var c *Checkpoint
	var root any
	var stored int64
	var err error
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		c = &Checkpoint{Format: "zip"}
		root, stored, err = readZip(ctx, r, size)
	case bytes.HasPrefix(head, []byte(legacyStart)):
		c = &Checkpoint{Format: "legacy"}
		root, stored, err = readLegacy(ctx, r, size)
	default:
		return nil, foreign(head)
	}
	if err != nil {
		return nil, err
	}
	return c, c.flatten(root, stored)
}

// foreign says what a file is that is no checkpoint this package reads.
func foreign(head []byte) error {
	switch {
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return &Refusal{"it is a checkpoint of torch before 0.1.10, a tar", "load it with torch where it was made, save it again, and convert that"}
	case bytes.HasPrefix(head, []byte("GGUF")):
		return &Refusal{"it is a GGUF file, not a checkpoint of torch", "it holds numbers and needs no conversion"}
	case len(head) > 8 && head[8] == '{':
		return &Refusal{"it begins as safetensors, not as a checkpoint of torch", "it needs no conversion if 'enisle inspect' says that it is safetensors"}
	case len(head) > 1 && head[0] == 0x80:
		return &Refusal{"it is a pickle, and none that torch.save writes", "save the tensors with torch.save or as safetensors where the file was made"}
	}
	return &Refusal{"it is no checkpoint of torch: neither the zip nor the legacy format begins like this", "name a file that torch.save wrote"}
}

// refuse makes an error of what stands in the file.
func refuse(format string, args ...any) error { return fmt.Errorf(format, args...) }
