package debian

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"enisle/internal/ecosystem"
)

var _ ecosystem.Rehearser = (*Ecosystem)(nil)

// Rehearse has apt download everything, with what it depends on, for a machine where
// nothing is installed.
func (e *Ecosystem) Rehearse(ctx context.Context, rh ecosystem.Rehearsal) error {
	byRelease := map[string][]string{}
	for _, a := range rh.Artifacts {
		release := path.Dir(a.Ref.Name)
		byRelease[release] = append(byRelease[release], path.Base(a.Ref.Name)+"="+a.Ref.Version)
	}
	for release, packages := range byRelease {
		dir := filepath.Join(rh.Work, release)
		for _, d := range []string{"lists/partial", "cache/archives/partial", "state"} {
			if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
				return err
			}
		}
		sources := strings.Replace(e.Config("apt", rh.Base), "bookworm", release, 1)
		sources = strings.Replace(sources, "Signed-By: /etc/apt/keyrings/enisle.asc", "Trusted: yes", 1)
		for name, text := range map[string]string{"status": "", "all.sources": sources} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				return err
			}
		}
		r := run{Ecosystem: &Ecosystem{Runner: rh.Runner}, want: ecosystem.Want{Work: rh.Work, Target: rh.Target}, dir: dir, release: release}
		r.wants.sources = filepath.Join(dir, "all.sources")
		if _, err := r.apt(ctx, "apt-get", "update", "-q"); err != nil {
			return fmt.Errorf("%s: %w", release, err)
		}
		if _, err := r.apt(ctx, "apt-get", append([]string{"install", "-y", "-qq", "--download-only", "--allow-downgrades"}, packages...)...); err != nil {
			return fmt.Errorf("%s: %w", release, err)
		}
	}
	return nil
}
