package crossing_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/crossing"
)

// spread puts each volume of a shipment on a medium of its own, with header and
// bill.
func (w *world) spread(from string) (dirs []string) {
	w.t.Helper()
	files, err := filepath.Glob(w.path(from, "volume-*"))
	w.must(err)
	for i, f := range files {
		dir := w.path(fmt.Sprintf("disc%d", i+1))
		w.must(os.Mkdir(dir, 0o755))
		for _, name := range []string{"header.json", "BILL.txt"} {
			b, err := os.ReadFile(w.path(from, name))
			w.must(err)
			w.must(os.WriteFile(filepath.Join(dir, name), b, 0o600))
		}
		w.must(os.Rename(f, filepath.Join(dir, filepath.Base(f))))
		dirs = append(dirs, dir)
	}
	return dirs
}

// A burst on one disc, and another one lost: import repairs while it reads, and
// says what.
func TestDamagedAndLostDiscsAreRepaired(t *testing.T) {
	w := newWorld(t)
	w.request("repair", 30<<20)
	w.collect()
	packed := w.packed("all", crossing.PackOptions{VolumeSize: 12 << 20, Parity: 300, Spare: 1, Fill: true})
	dirs := w.spread("all")
	if len(dirs) != packed.Volumes || len(dirs) < 4 {
		t.Fatalf("%d discs, %d volumes", len(dirs), packed.Volumes)
	}
	second, err := os.ReadFile(filepath.Join(dirs[1], "volume-0002.enisle"))
	w.must(err)
	first, err := os.ReadFile(filepath.Join(dirs[0], "volume-0001.enisle"))
	w.must(err)
	burst := bytes.Clone(first)
	clear(burst[1<<20 : 2<<20])
	w.must(os.WriteFile(filepath.Join(dirs[0], "volume-0001.enisle"), burst, 0o600))
	there := append([]string{dirs[0]}, dirs[2:]...) // the second is lost

	checked, err := w.app("high").Verify(t.Context(), "", there...)
	refused(t, err, "volume 2 of")
	refused(t, err, "volume 1, frame 1")
	b, err := json.Marshal(checked)
	if err != nil || !strings.Contains(string(b), `"why":"volume 1, frame 1: damaged`) {
		t.Errorf("%s, %v", b, err)
	}
	checked, err = w.app("high").Verify(t.Context(), w.path("good"), there...)
	w.must(err)
	if fmt.Sprint(checked.Repaired) != "[1 2]" {
		t.Errorf("repaired: %v", checked.Repaired)
	}
	for i, want := range [][]byte{first, second} {
		got, err := os.ReadFile(w.path("good", fmt.Sprintf("volume-%04d.enisle", i+1)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("volume %d was not repaired: %v", i+1, err)
		}
	}

	out, err := w.app("high").Import(t.Context(), there...)
	w.must(err)
	if len(out.Repaired) < 2 || out.Repaired[0].Volume == 0 {
		t.Errorf("repaired: %+v", out.Repaired)
	}
	w.imported(out.ID)
}

// Beyond what there is parity for, nothing comes in.
func TestTooMuchDamageIsRefused(t *testing.T) {
	w := newWorld(t)
	w.request("repair", 30<<20)
	w.collect()
	w.packed("all", crossing.PackOptions{VolumeSize: 12 << 20, Spare: 1})
	dirs := w.spread("all")
	_, err := w.app("high").Import(t.Context(), append([]string{dirs[1]}, dirs[3:]...)...)
	refused(t, err, "volume 1 of")
	w.nothingHere()
	_, err = w.app("high").Verify(t.Context(), w.path("good"), dirs[1:2]...)
	refused(t, err, "beyond repair")
}

// Images hold volume, header and bill; what an independent reader takes out of
// them is imported. Packing again finds them; so does a run that was interrupted.
func TestImagesOfDiscs(t *testing.T) {
	if _, err := exec.LookPath("bsdtar"); err != nil {
		t.Skipf("bsdtar is not here: %v", err)
	}
	w := newWorld(t)
	w.request("images", 30<<20)
	w.collect()
	packed := w.packed("all", crossing.PackOptions{VolumeSize: 12 << 20, ISO: true})
	w.must(os.Rename(w.path("all/disc-0002.iso"), w.path("all/disc-0002.iso.partial")))
	again := w.packed("all", crossing.PackOptions{VolumeSize: 12 << 20, ISO: true})
	if !again.Already || again.ID != packed.ID || len(again.Images) != packed.Volumes {
		t.Errorf("again: %+v", again)
	}
	var dirs []string
	for _, image := range packed.Images {
		dir := w.path(strings.TrimSuffix(image, ".iso"))
		w.must(os.Mkdir(dir, 0o755))
		if out, err := exec.Command("bsdtar", "-xf", w.path("all", image), "-C", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		dirs = append(dirs, dir)
	}
	out, err := w.app("high").Import(t.Context(), dirs...)
	w.must(err)
	w.imported(out.ID)
}

// Superblock and index are there twice: without any parity the one stands in for
// the other, and verify names what is wrong.
func TestADamagedIndexIsNamedAndRepaired(t *testing.T) {
	w := newWorld(t)
	w.pack("media", 0)
	for i, at := range []int64{-10, -70, 3, 100} {
		flip(t, w.path("media/volume-0001.enisle"), at)
		_, err := w.app("high").Verify(t.Context(), "", w.path("media"))
		refused(t, err, "volume 1, frame")
		if i < 3 {
			flip(t, w.path("media/volume-0001.enisle"), at)
		}
	}
	out, err := w.app("high").Import(t.Context(), w.path("media"))
	w.must(err)
	if len(out.Repaired) != 1 || !out.Repaired[0].Mended {
		t.Errorf("repaired: %+v", out.Repaired)
	}
	w.imported(out.ID)
}

// bf16 returns n weights of a normal distribution.
func bf16(rng *rand.Rand, n int) []byte {
	var b []byte
	for range n {
		b = binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(float32(rng.NormFloat64()*0.02))>>16))
	}
	return b
}

// checkpoint writes a model of tensors as safetensors.
func checkpoint(tensors [][]byte) []byte {
	head := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	at := 0
	var data []byte
	for i, x := range tensors {
		head[fmt.Sprintf("layer.%03d.weight", i)] = map[string]any{"dtype": "BF16", "shape": []int{len(x) / 2}, "data_offsets": []int{at, at + len(x)}}
		at += len(x)
		data = append(data, x...)
	}
	h, err := json.Marshal(head)
	if err != nil {
		panic(err)
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(h))), h...), data...)
}

// A fine-tune that changes one tensor in twenty ships one in twenty, compressed.
func TestAFineTuneShipsWhatItChanged(t *testing.T) {
	w := newWorld(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var tensors [][]byte
	for range 40 {
		tensors = append(tensors, bf16(rng, 1<<19))
	}
	w.request("a model", 100)
	w.must(os.WriteFile(w.path("big.bin"), checkpoint(tensors), 0o600))
	w.collect()
	one := w.packed("one", crossing.PackOptions{Compress: true})
	if float64(one.Bytes) > 0.75*float64(one.Payload) {
		t.Errorf("compressed: %d bytes of %d", one.Bytes, one.Payload)
	}
	id, err := w.importFrom("one")
	w.must(err)
	w.imported(id)
	got, err := w.app("high").Receipt(t.Context(), "")
	w.must(err)
	_, err = w.app("low").AddReceipt(t.Context(), got.Envelope)
	w.must(err)

	// Another shape in front, and two tensors anew.
	tuned := append([][]byte{}, tensors...)
	tuned[7], tuned[20] = bf16(rng, 1<<19), bf16(rng, 1<<19)
	tuned = append(tuned, bf16(rng, 10))
	w.must(os.WriteFile(w.path("big.bin"), checkpoint(tuned), 0o600))
	w.collect()
	two := w.packed("two", crossing.PackOptions{VolumeSize: 1 << 20})
	if two.Bytes*100 > two.Content*7 || len(two.Base) != 1 {
		t.Errorf("the fine-tune: %d bytes of %d, building on %v", two.Bytes, two.Content, two.Base)
	}
	out, err := w.app("high").Import(t.Context(), w.path("two"))
	w.must(err)
	w.imported(out.ID)
}
