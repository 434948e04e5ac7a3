package gomod

import (
	"context"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/module"

	"enisle/internal/ecosystem"
)

var _ ecosystem.Rehearser = (*Ecosystem)(nil)

// maxArguments is how many modules go is asked for at once.
const maxArguments = 200

// Rehearse has go download every module that is carried whole, each verified with the
// checksum database that is carried; what no database was asked for outside is not asked
// for here.
func (*Ecosystem) Rehearse(ctx context.Context, rh ecosystem.Rehearsal) error {
	if _, err := exec.LookPath("go"); err != nil {
		return ecosystem.ErrNoClient
	}
	var wanted, unlisted []string
	listed := map[string]bool{}
	for _, a := range rh.Artifacts {
		for _, f := range a.Files {
			if _, key, ok := strings.Cut(f.Path, "/lookup/"); ok && strings.HasPrefix(a.Ref.Name, databaseName) {
				name, version, _ := strings.Cut(key, "@")
				if m, _, ok := unescape(name, version, ""); ok {
					listed[m.Path] = true
				}
			}
		}
	}
	for _, a := range rh.Artifacts {
		m := module.Version{Path: a.Ref.Name, Version: a.Ref.Version}
		at := escaped(m)
		for _, f := range a.Files {
			if at != "" && f.Path == path.Base(at)+".zip" {
				wanted = append(wanted, m.Path+"@"+m.Version)
				if !listed[m.Path] && !slices.Contains(unlisted, m.Path) {
					unlisted = append(unlisted, m.Path)
				}
			}
		}
	}
	r := &resolving{
		run: rh.Runner, want: ecosystem.Want{Work: rh.Work}, gopath: filepath.Join(rh.Work, "gopath"), cache: filepath.Join(rh.Work, "mod"),
		more: []string{"GOPROXY=" + rh.Base + "/go", "GONOSUMDB=" + strings.Join(unlisted, ","), "GOENV=off"},
	}
	for some := range slices.Chunk(wanted, maxArguments) {
		if _, err := r.download(ctx, rh.Work, some...); err != nil {
			return err
		}
	}
	return nil
}
