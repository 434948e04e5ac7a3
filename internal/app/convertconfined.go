package app

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/model/safetensors"
	"enisle/internal/model/torch"
	"enisle/internal/sandbox"
)

// convertVerb is the hidden verb of the child that converts: it is handed the
// checkpoint as descriptor 3 and the file to write as 4, an order on stdin, and
// answers on stdout, a line each.
const convertVerb = "convert-confined"

type convertOrder struct {
	Key   string `json:"key"`
	Write bool   `json:"write"`
}

// convertWord is one line: how many bytes there will be, how many more were
// written, or the answer.
type convertWord struct {
	Total  int64          `json:"total,omitempty"`
	Done   int64          `json:"done,omitempty"`
	Answer *convertAnswer `json:"answer,omitempty"`
}

type convertAnswer struct {
	Conversion Conversion `json:"conversion"`
	Error      string     `json:"error,omitempty"`
	Refused    bool       `json:"refused,omitempty"`
	Hint       string     `json:"hint,omitempty"`
}

// convertConfined is the child.
func convertConfined(ctx context.Context) error {
	if _, err := sandbox.Unreachable(); err != nil {
		return err
	}
	if err := sandbox.Seal(); err != nil {
		return err
	}
	var o convertOrder
	if err := json.NewDecoder(io.LimitReader(os.Stdin, 1<<20)).Decode(&o); err != nil {
		return err
	}
	in := os.NewFile(3, "checkpoint")
	st, err := in.Stat()
	if err != nil {
		return err
	}
	c := &converter{say: json.NewEncoder(os.Stdout)}
	if o.Write {
		c.out = os.NewFile(4, "output")
	}
	answer := &convertAnswer{}
	if err := c.convert(ctx, in, st.Size(), o.Key, &answer.Conversion); err != nil {
		answer.Error, answer.Refused = err.Error(), c.failed == nil
		var r *torch.Refusal
		if errors.As(err, &r) {
			answer.Hint = r.Next
		}
	}
	return c.say.Encode(convertWord{Answer: answer})
}

// converter writes one checkpoint.
type converter struct {
	out    *os.File // nil: nothing is written
	say    *json.Encoder
	sum    hash.Hash
	silent int64 // bytes written and not yet told
	failed error // of writing
}

func (c *converter) convert(ctx context.Context, in io.ReaderAt, size int64, key string, done *Conversion) error {
	ck, err := torch.Read(ctx, in, size)
	if err != nil {
		return err
	}
	if key != "" {
		if done.Elsewhere, err = ck.Under(key); err != nil {
			return err
		}
	}
	if len(ck.Tensors) == 0 {
		return errors.New("it holds no tensor")
	}
	meta := describe(ck, done)
	sources := make([]safetensors.Source, len(ck.Tensors))
	for i, t := range ck.Tensors {
		sources[i] = safetensors.Source{Name: t.Name, Type: t.Type, Shape: t.Shape, Copy: t.Copy}
	}
	plan, err := safetensors.Lay(meta, sources)
	if err != nil {
		return err
	}
	done.Size = int64(plan.Size)
	if c.out == nil {
		return nil
	}
	if err := c.say.Encode(convertWord{Total: done.Size}); err != nil {
		return err
	}
	c.sum = sha256.New()
	w := bufio.NewWriterSize(c, 256<<10)
	if err := errors.Join(plan.Write(ctx, w), w.Flush()); err != nil {
		return err
	}
	done.OutputDigest = artifact.FromSum([32]byte(c.sum.Sum(nil)))
	// What was written is read again as strictly as any file that comes in.
	h, err := safetensors.Read(ctx, c.out, done.Size)
	if err == nil && len(h.Tensors) != len(sources) {
		err = fmt.Errorf("%d tensors came of %d", len(h.Tensors), len(sources))
	}
	if err != nil {
		return fmt.Errorf("what was written is no safetensors file: %w", err)
	}
	return nil
}

// tellEvery is how many bytes are written between two words on progress.
const tellEvery = 16 << 20

// Write writes to the output and says how far it is.
func (c *converter) Write(b []byte) (int, error) {
	n, err := c.out.Write(b)
	c.sum.Write(b[:n])
	if c.silent += int64(n); err == nil && c.silent >= tellEvery {
		err = c.say.Encode(convertWord{Done: c.silent})
		c.silent = 0
	}
	if err != nil {
		c.failed = err
	}
	return n, err
}

// Metadata of the output, at most.
const (
	maxMetadata      = 256      // values
	maxMetadataBytes = 64 << 10 // of names and values
)

// describe lists what a checkpoint holds and chooses the metadata of the output:
// the small values beside the tensors, and the word by which readers know that the
// tensors are laid out as torch does.
func describe(ck *torch.Checkpoint, done *Conversion) map[string]string {
	done.Format = ck.Format
	done.Tensors, done.LeftOut = make([]ConvertedTensor, 0, len(ck.Tensors)), make([]LeftOut, 0, len(ck.Leaves))
	for _, t := range ck.Tensors {
		done.Tensors = append(done.Tensors, ConvertedTensor{t.Name, t.Type, append([]uint64{}, t.Shape...), t.Size(), t.Shares})
	}
	meta := map[string]string{"format": "pt"}
	room := maxMetadataBytes
	for _, l := range ck.Leaves {
		left := LeftOut{Name: l.Name, Kind: l.Kind, Value: l.Text}
		_, taken := meta[l.Name]
		plainKind := l.Kind == "int" || l.Kind == "float" || l.Kind == "bool" || l.Kind == "str"
		need := len(l.Name) + len(l.Text)
		if plainKind && !l.Cut && !taken && l.Name != "" && !strings.ContainsRune(l.Name+l.Text, 0) && len(meta) < maxMetadata && need <= room {
			meta[l.Name] = l.Text
			room -= need
			left.Metadata = true
		}
		done.LeftOut = append(done.LeftOut, left)
	}
	return meta
}
