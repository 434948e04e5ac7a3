package torch_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"testing"

	"enisle/internal/model/torch"
)

// plan is a view of one storage of 16-bit numbers that count up.
type plan struct {
	offset         int64
	shape, strides []int64
}

// naive gathers as the definition says: element by element.
func (p plan) naive(w io.Writer) {
	index := make([]int64, len(p.shape))
	out := make([]byte, 0, 64<<10)
	for {
		at := p.offset
		for i := range index {
			at += index[i] * p.strides[i]
		}
		if out = binary.LittleEndian.AppendUint16(out, uint16(at*40503)); len(out) == cap(out) {
			_, _ = w.Write(out)
			out = out[:0]
		}
		i := len(index) - 1
		for ; i >= 0; i-- {
			if index[i]++; index[i] < p.shape[i] {
				break
			}
			index[i] = 0
		}
		if i < 0 {
			_, _ = w.Write(out)
			return
		}
	}
}

// Views larger than a box come out as the definition says.
func TestLargeViewsAreGatheredExactly(t *testing.T) {
	const elements = 300 * 211 * 200 // 25 MB
	raw := make([]byte, 2*elements)
	for i := range uint64(elements) {
		binary.LittleEndian.PutUint16(raw[2*i:], uint16(i*40503))
	}
	for label, p := range map[string]plan{
		"transposed":              {0, []int64{200, 63300}, []int64{1, 200}},
		"turned twice":            {0, []int64{200, 211, 300}, []int64{1, 200, 42200}},
		"turned in the middle":    {0, []int64{300, 200, 211}, []int64{42200, 1, 200}},
		"first to last":           {0, []int64{211, 200, 300}, []int64{200, 1, 42200}},
		"every second":            {1, []int64{150, 211, 100}, []int64{84400, 200, 2}},
		"a narrow column":         {7, []int64{63300, 3}, []int64{200, 1}},
		"far apart":               {0, []int64{42200, 299}, []int64{1, 42200}},
		"repeated outside":        {0, []int64{3, 200, 63300}, []int64{0, 1, 200}},
		"repeated inside":         {0, []int64{200, 63300, 2}, []int64{1, 200, 0}},
		"one row again and again": {5, []int64{60000, 200}, []int64{0, 1}},
		"one number":              {9, []int64{3000, 4000}, []int64{0, 0}},
		"windows that overlap":    {0, []int64{1000000, 9}, []int64{3, 1}},
		"one long dimension":      {1, []int64{elements / 3}, []int64{3}},
		"with dimensions of one":  {0, []int64{1, 200, 1, 63300}, []int64{0, 1, 999999999, 200}},
	} {
		t.Run(label, func(t *testing.T) {
			view := tensor(storage("ShortStorage", "0", elements), p.offset, numbers(p.shape...), numbers(p.strides...))
			b := archived(t, file{name: "a/data.pkl", body: pickled(view)}, file{name: "a/data/0", body: string(raw)})
			c, err := torch.Read(t.Context(), bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			got, want := fnv.New64a(), fnv.New64a()
			if err := c.Tensors[0].Copy(t.Context(), got); err != nil {
				t.Fatal(err)
			}
			p.naive(want)
			if g, w := fmt.Sprintf("%x", got.Sum(nil)), fmt.Sprintf("%x", want.Sum(nil)); g != w {
				t.Errorf("got %s, want %s", g, w)
			}
		})
	}
}
