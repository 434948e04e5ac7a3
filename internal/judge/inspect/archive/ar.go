package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"enisle/internal/judge/inspect"
)

// The format of packages of Debian (deb(5), ar(5)): a line, then members, each with a
// head of 60 bytes and an even length.
const (
	arMagic  = "!<arch>\n"
	arHead   = 60
	arMaxAll = 1000 // members
)

func isAr(s inspect.Subject) bool {
	return s.Ref.Kind == "debian" && (bytes.HasPrefix(s.Head, []byte(arMagic)) || path.Ext(s.Path) == ".deb")
}

// scanAr reads every member, and refuses what the readers of packages would differ over.
func scanAr(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	if !bytes.HasPrefix(s.Head, []byte(arMagic)) {
		run.Report("broken", inspect.Refuse, "not an archive of ar")
		return nil
	}
	known := newNames(s, run)
	at := int64(len(arMagic))
	for n := 0; at < s.Size; n++ {
		head := make([]byte, arHead)
		if n == arMaxAll {
			run.Report("limit", inspect.Refuse, "too many members")
			return nil
		}
		if _, err := io.ReadFull(io.NewSectionReader(s, at, arHead), head); err != nil || string(head[58:]) != "`\n" {
			run.Report("broken", inspect.Refuse, fmt.Sprintf("at byte %d stands no member", at))
			return nil
		}
		name := strings.TrimSuffix(strings.TrimRight(string(head[:16]), " "), "/")
		size, err := strconv.ParseInt(strings.TrimRight(string(head[48:58]), " "), 10, 64)
		at += arHead
		if err != nil || size < 0 || size > s.Size-at || name == "" || strings.HasPrefix(name, "#1/") || strings.HasPrefix(name, "/") {
			run.Report("broken", inspect.Refuse, fmt.Sprintf("member %q has a length or a name that cannot be", name))
			return nil
		}
		known.check(name)
		if n == 0 && name != "debian-binary" {
			run.Report("broken", inspect.Refuse, "it does not begin as a package of Debian")
		}
		if err := run.Descend(ctx, name, io.NewSectionReader(s, at, size), size); err != nil {
			return err
		}
		at += size + size%2
	}
	return nil
}
