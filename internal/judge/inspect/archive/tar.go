package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"enisle/internal/judge/inspect"
)

// maxExpand is how much a gzip stream may come to for each of its bytes; deflate
// gives at most 1032, honest files of any size stay far below.
const maxExpand = 200

// packed is a compression of one stream of bytes.
type packed struct {
	name, suffix string
	open         func(io.Reader) (io.Reader, error)
}

// packedAs returns the compression that the first bytes are of; nil: none. Streams
// of zlib are what joblib writes; they are looked for only where a pickle may be.
func packedAs(s inspect.Subject) *packed {
	has := func(magic string) bool { return bytes.HasPrefix(s.Head, []byte(magic)) }
	switch {
	case has("\x1f\x8b"):
		return &packed{"gzip", ".gz", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }}
	case has("BZh") && len(s.Head) > 9 && (string(s.Head[4:10]) == "1AY&SY" || string(s.Head[4:10]) == "\x17rE8P\x90"):
		return &packed{"bzip2", ".bz2", func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }}
	case has("\x28\xb5\x2f\xfd"):
		return &packed{"zstd", ".zst", func(r io.Reader) (io.Reader, error) {
			return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDictionary))
		}}
	case has("\xfd7zXZ\x00"):
		return &packed{"xz", ".xz", func(r io.Reader) (io.Reader, error) { return xz.ReaderConfig{DictCap: maxDictionary}.NewReader(r) }}
	case len(s.Head) > 13 && has("\x5d\x00\x00") && s.Head[4] == 0:
		return &packed{"lzma", ".lzma", func(r io.Reader) (io.Reader, error) { return lzma.ReaderConfig{DictCap: maxDictionary}.NewReader(r) }}
	case has(lz4Magic):
		return &packed{"lz4", ".lz4", newLZ4}
	case isZlib(s):
		return &packed{"zlib", ".z", func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }}
	}
	return nil
}

// isZlib reports whether a subject is a stream of zlib: joblib reads one under any
// name, so that in a model only the bytes count.
func isZlib(s inspect.Subject) bool {
	if len(s.Head) < 7 || s.Head[0] != 0x78 || (int(s.Head[0])<<8|int(s.Head[1]))%31 != 0 || s.Head[1]&0x20 != 0 {
		return false
	}
	if slices.Contains([]string{".joblib", ".pkl", ".pickle", ".z", ".zlib"}, path.Ext(s.Path)) {
		return true
	}
	if s.Ref.Kind != "model" && s.Ref.Kind != "hf" {
		return false
	}
	z, err := zlib.NewReader(io.NewSectionReader(s, 0, s.Size))
	if err != nil {
		return false
	}
	_, err = io.ReadFull(z, make([]byte, 1))
	return err == nil
}

// maxDictionary is the largest dictionary of LZMA that is kept in memory, in bytes;
// xz -9 uses it.
const maxDictionary = 64 << 20

// scanPacked reads what is inside: a tar, or one file.
func scanPacked(ctx context.Context, s inspect.Subject, how *packed, run inspect.Run) (err error) {
	limit := max(s.Size*maxExpand, 64<<20)
	src := bufio.NewReader(io.NewSectionReader(s, 0, s.Size))
	z, err := how.open(src)
	if err != nil {
		run.Report("broken", inspect.Refuse, "not a "+how.name+" that can be read: "+err.Error())
		return nil
	}
	bounded := &bounded{r: z, left: limit}
	in := bufio.NewReaderSize(bounded, 1024)
	head, _ := in.Peek(512) // a shorter file is no tar
	if len(head) > 262 && string(head[257:262]) == "ustar" || strings.HasSuffix(s.Path, ".tar"+how.suffix) || strings.HasSuffix(s.Path, ".tgz") {
		if err := scanTar(ctx, s, in, run); err != nil {
			return err
		}
		return drain(in, run)
	}
	size, err := measure(s, how, limit)
	if err != nil {
		run.Report("broken", inspect.Refuse, err.Error())
		return nil
	}
	at, release, err := inspect.Spool(in, size)
	if err != nil {
		run.Report("broken", inspect.Refuse, err.Error())
		return nil
	}
	defer func() { err = errors.Join(err, release()) }()
	if _, err := src.Peek(1); !errors.Is(err, io.EOF) {
		run.Report("junk", inspect.Refuse, "bytes stand behind the end of the "+how.name)
	}
	return run.Descend(ctx, strings.TrimSuffix(path.Base(s.Path), how.suffix), at, size)
}

// drain reads to the end, so that a checksum that is wrong is noticed.
func drain(r io.Reader, run inspect.Run) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		run.Report("broken", inspect.Refuse, err.Error())
	}
	return nil
}

// measure unpacks once to learn the length.
func measure(s inspect.Subject, how *packed, limit int64) (int64, error) {
	z, err := how.open(bufio.NewReader(io.NewSectionReader(s, 0, s.Size)))
	if err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, &bounded{r: z, left: limit})
}

// bounded ends with an error when more comes than is allowed.
type bounded struct {
	r    io.Reader
	left int64
}

var errBomb = errors.New("it unpacks to too many bytes: an archive bomb")

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errBomb
	}
	return n, err
}

// scanTar reads a tar, which the subject is or holds. Where a package manager or an engine
// for containers unpacks it as the root of a system, links are ordinary.
func scanTar(ctx context.Context, s inspect.Subject, r io.Reader, run inspect.Run) error {
	t := tar.NewReader(r)
	known := newNames(s, run)
	known.below = below(s)
	linked := &links{to: map[string]bool{}, below: known.below}
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			if name := linked.through(); name != "" && len(linked.to) > 0 {
				run.Report("special", s.Data(), fmt.Sprintf("member %q stands below a link", name))
			}
			if n == 0 {
				run.Report("broken", inspect.Refuse, "a tar without members")
			}
			return nil
		}
		if err != nil {
			run.Report("broken", inspect.Refuse, "not a tar that can be read: "+err.Error())
			return nil
		}
		known.check(h.Name)
		if !installs(s) {
			linked.names = append(linked.names, h.Name)
		}
		switch h.Typeflag {
		case tar.TypeDir, tar.TypeXGlobalHeader:
			continue
		case tar.TypeReg:
		case tar.TypeSymlink, tar.TypeLink:
			if installs(s) {
				continue // whoever unpacks it is a package manager, in a root of its own
			}
			sev := s.Data()
			if linked.stays(h.Name, h.Linkname, h.Typeflag == tar.TypeLink) {
				sev = inspect.Warn
			}
			run.Report("special", sev, fmt.Sprintf("member %q is a link to %q", h.Name, h.Linkname))
			continue
		case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
			if installs(s) {
				run.Report("special", inspect.Warn, fmt.Sprintf("member %q is a device or a pipe", h.Name))
				continue
			}
			run.Report("special", s.Data(), fmt.Sprintf("member %q is a device or a pipe", h.Name))
			continue
		default:
			run.Report("special", s.Data(), fmt.Sprintf("member %q is a device, a pipe or unknown (%q)", h.Name, h.Typeflag))
			continue
		}
		if err := tarMember(ctx, t, h, run); err != nil {
			return err
		}
	}
}

func tarMember(ctx context.Context, t *tar.Reader, h *tar.Header, run inspect.Run) (err error) {
	at, release, err := inspect.Spool(t, h.Size)
	if err != nil {
		run.Report("broken", inspect.Refuse, fmt.Sprintf("member %q: %v", h.Name, err))
		return nil
	}
	defer func() { err = errors.Join(err, release()) }()
	return run.Descend(ctx, h.Name, at, h.Size)
}
