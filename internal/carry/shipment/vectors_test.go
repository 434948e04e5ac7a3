package shipment

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/carry/parity"
	"enisle/internal/carry/planes"
)

// vectors are the examples of docs/spec/vectors/shipment.json, for those who
// write another implementation.
type vectors struct {
	Comment string         `json:"comment"`
	Volume  volumeVector   `json:"volume"`
	Chunks  []chunkVector  `json:"chunks"`
	Parity  []parityVector `json:"parity"`
	Coded   []codedVector  `json:"coded"`
}

type volumeVector struct {
	Set     string   `json:"set"`
	Number  int      `json:"number"`
	Frames  []string `json:"frames"` // content, as text; not age files, so that they fit here
	Middle  int      `json:"middle"`
	First   string   `json:"first"` // superblock
	Headers []string `json:"headers"`
	Mid     string   `json:"mid"` // superblock
	Index   string   `json:"index"`
	Last    string   `json:"last"` // superblock
	Size    int64    `json:"size"`
	SHA256  string   `json:"sha256"`
	Root    string   `json:"root"`
}

type chunkVector struct {
	What  string `json:"what"`
	Bytes string `json:"bytes"`
}

type parityVector struct {
	Data     []string `json:"data"`
	Payloads []string `json:"payloads"` // of the parity frames
}

type codedVector struct {
	Encoding int    `json:"encoding"`
	Length   int    `json:"length"` // of the bytes: number i, counting from 0, is value(i)
	Stored   string `json:"stored"` // base64
}

// weight is the ith of the numbers that the coded vectors hold: bits of a bf16.
func weight(i int) uint16 { return uint16(0x3c00 + (i*i)%97 + 128*(i%3)) }

func TestVectors(t *testing.T) {
	const file = "../../../docs/spec/vectors/shipment.json"
	v := vectors{Comment: "Made by internal/carry/shipment/vectors_test.go. Bytes are in hex, unless said otherwise. Meaning: docs/spec/shipment.md."}
	v.Volume = exampleVolume(t)
	blob := Blob{artifact.Sum([]byte("hello\n")), 6}
	plain := make([]byte, chunkHeaderSize)
	chunkHead{blob: blob, length: 6, stored: 6}.put(plain)
	copied := make([]byte, chunkHeaderSize)
	chunkHead{blob: blob, offset: 1, length: 5, stored: sourceSize, encoding: encodedCopy}.put(copied)
	copied = Source{artifact.Sum([]byte("Jello\n")), 1}.append(copied)
	v.Chunks = []chunkVector{
		{"all of 'hello' and a line feed, as it is", hex.EncodeToString(append(plain, "hello\n"...))},
		{"its last five bytes, copied from 'Jello' and a line feed, which is held", hex.EncodeToString(copied)},
	}
	for _, data := range [][]string{{"abc"}, {"first", "second one", "3"}} {
		v.Parity = append(v.Parity, exampleParity(t, data))
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var old vectors
	if err := json.Unmarshal(want, &old); err != nil {
		t.Fatal(err)
	}
	// What another version compresses to may differ; what it decodes to may not.
	if v.Coded = old.Coded; os.Getenv("ENISLE_UPDATE") != "" {
		v.Coded = encoded(t)
	}
	decode(t, v.Coded)
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if os.Getenv("ENISLE_UPDATE") != "" {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
		want = got
	}
	if !bytes.Equal(got, want) {
		t.Error("the vectors are others now: the format changed")
	}
}

func exampleVolume(t *testing.T) volumeVector {
	t.Helper()
	v := volumeVector{Set: "0102030405060708090a0b0c0d0e0f10", Number: 1, Frames: []string{"abc", "defgh"}, Middle: 1}
	p := place{Header{Set: v.Set}.SetBytes(), v.Number}
	l := &layout{front: frontAlign}
	var body []byte
	for i, f := range v.Frames {
		e := entry{kindData, uint32(len(f)), sha256.Sum256([]byte(f))}
		l.add(e)
		v.Headers = append(v.Headers, hex.EncodeToString(p.frameHeader(i+1, e)))
		body = append(append(body, p.frameHeader(i+1, e)...), f...)
		if i+1 == v.Middle {
			l.middle = v.Middle
			b, _ := p.middle(l)
			v.Mid = hex.EncodeToString(b)
			body = append(body, b...)
		}
	}
	all := append(append(p.front(l), body...), p.tail(l)...)
	root, err := p.root(l)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(all)
	v.First, v.Index = hex.EncodeToString(all[:superblockSize]), hex.EncodeToString(p.index(l))
	v.Last = hex.EncodeToString(all[len(all)-superblockSize:])
	v.Size, v.SHA256, v.Root = int64(len(all)), hex.EncodeToString(sum[:]), string(root)
	if _, err := p.parseIndex(Volume{Number: 1, Size: v.Size, Frames: 2, Root: root}, p.index(l)); err != nil {
		t.Error(err)
	}
	return v
}

func exampleParity(t *testing.T, data []string) parityVector {
	t.Helper()
	g, err := parity.NewGroup(2, 16)
	if err != nil {
		t.Fatal(err)
	}
	v := parityVector{Data: data}
	for _, d := range data {
		if err := g.Add([]byte(d)); err != nil {
			t.Fatal(err)
		}
	}
	for j := range 2 {
		head, shard := g.Parity(j)
		v.Payloads = append(v.Payloads, hex.EncodeToString(append(head, shard...)))
	}
	return v
}

func numbers() (plain []byte) {
	for i := range 512 {
		plain = binary.LittleEndian.AppendUint16(plain, weight(i))
	}
	return plain
}

func encoded(t *testing.T) (out []codedVector) {
	t.Helper()
	e, err := planes.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []planes.Encoding{planes.Zstd, planes.Two, planes.Four} {
		out = append(out, codedVector{int(how), len(numbers()), base64.StdEncoding.EncodeToString(e.EncodeAs(nil, numbers(), how))})
	}
	return out
}

func decode(t *testing.T, all []codedVector) {
	t.Helper()
	d, err := planes.NewDecoder(1 << 20)
	if err != nil || len(all) != 3 {
		t.Fatal(len(all), err)
	}
	for _, c := range all {
		stored, err := base64.StdEncoding.DecodeString(c.Stored)
		got := make([]byte, c.Length)
		if err == nil {
			err = d.Decode(got, stored, planes.Encoding(c.Encoding))
		}
		if err != nil || !bytes.Equal(got, numbers()) {
			t.Errorf("encoding %d: %v", c.Encoding, err)
		}
	}
}
