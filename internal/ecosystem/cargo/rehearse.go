package cargo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"enisle/internal/ecosystem"
)

var _ ecosystem.Rehearser = (*Ecosystem)(nil)

// Rehearse has cargo fetch everything, with what it depends on but for the features that
// nobody asked for. Of several versions of one crate, each is fetched for itself.
func (e *Ecosystem) Rehearse(ctx context.Context, rh ecosystem.Rehearsal) error {
	if _, err := exec.LookPath("cargo"); err != nil {
		return ecosystem.ErrNoClient
	}
	var rounds []string
	count := map[string]int{}
	for i, a := range rh.Artifacts {
		n := count[a.Ref.Name]
		count[a.Ref.Name]++
		if n == len(rounds) {
			rounds = append(rounds, "")
		}
		rounds[n] += fmt.Sprintf("p%d = { package = %q, version = %q, default-features = false }\n", i, a.Ref.Name, exactly(a.Ref.Version))
	}
	r := &resolving{run: rh.Runner, want: ecosystem.Want{Work: rh.Work}, home: filepath.Join(rh.Work, "home")}
	err := os.MkdirAll(r.home, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.home, "config.toml"), []byte(e.Config("cargo", rh.Base)+"\n[net]\nretry = 0\n"), 0o600)
	}
	if err != nil {
		return err
	}
	for i, lines := range rounds {
		dir := filepath.Join(rh.Work, fmt.Sprintf("round-%d", i))
		if err := project(dir, lines, ""); err != nil {
			return err
		}
		if _, err := r.cargo(ctx, dir, "fetch"); err != nil {
			_, why, found := strings.Cut(err.Error(), "error: ")
			if found {
				return fmt.Errorf("cargo: %s", why)
			}
			return err
		}
	}
	return nil
}
