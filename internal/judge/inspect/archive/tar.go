package archive

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"enisle/internal/judge/inspect"
)

// maxExpand is how much a gzip stream may come to for each of its bytes; deflate
// gives at most 1032, honest files of any size stay far below.
const maxExpand = 200

// scanGzip reads what is inside: a tar, or one file.
func scanGzip(ctx context.Context, s inspect.Subject, run inspect.Run) (err error) {
	limit := max(s.Size*maxExpand, 64<<20)
	z, err := gzip.NewReader(bufio.NewReader(io.NewSectionReader(s, 0, s.Size)))
	if err != nil {
		run.Report("broken", inspect.Refuse, "not a gzip that can be read: "+err.Error())
		return nil
	}
	bounded := &bounded{r: z, left: limit}
	in := bufio.NewReaderSize(bounded, 1024)
	head, _ := in.Peek(512) // a shorter file is no tar
	if len(head) > 262 && string(head[257:262]) == "ustar" || strings.HasSuffix(s.Path, ".tar.gz") || strings.HasSuffix(s.Path, ".tgz") {
		if err := scanTar(ctx, in, run); err != nil {
			return err
		}
		return drain(in, run)
	}
	size, err := measure(s, limit)
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
	return run.Descend(ctx, strings.TrimSuffix(path.Base(s.Path), ".gz"), at, size)
}

// drain reads to the end, so that a checksum that is wrong is noticed.
func drain(r io.Reader, run inspect.Run) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		run.Report("broken", inspect.Refuse, err.Error())
	}
	return nil
}

// measure unpacks once to learn the length.
func measure(s inspect.Subject, limit int64) (int64, error) {
	z, err := gzip.NewReader(bufio.NewReader(io.NewSectionReader(s, 0, s.Size)))
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

func scanTar(ctx context.Context, r io.Reader, run inspect.Run) error {
	t := tar.NewReader(r)
	known := newNames(run)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
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
		switch h.Typeflag {
		case tar.TypeDir, tar.TypeXGlobalHeader:
			continue
		case tar.TypeReg:
		case tar.TypeSymlink, tar.TypeLink:
			run.Report("special", inspect.Refuse, fmt.Sprintf("member %q is a link to %q", h.Name, h.Linkname))
			continue
		default:
			run.Report("special", inspect.Refuse, fmt.Sprintf("member %q is a device, a pipe or unknown (%q)", h.Name, h.Typeflag))
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
