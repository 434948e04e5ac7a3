package helm

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

// Rehearse has helm pull every chart of a repository; those of registries are images.
func (*Ecosystem) Rehearse(ctx context.Context, rh ecosystem.Rehearsal) error {
	if _, err := exec.LookPath("helm"); err != nil {
		return ecosystem.ErrNoClient
	}
	cache := filepath.Join(rh.Work, "helm")
	if err := os.MkdirAll(filepath.Join(cache, "repository"), 0o755); err != nil { // helm expects it
		return err
	}
	for _, a := range rh.Artifacts {
		argv := []string{"env", "HELM_CACHE_HOME=" + cache, "helm", "pull", a.Ref.Name, "--version", a.Ref.Version, "--repo", rh.Base + "/helm", "--destination", rh.Work}
		if _, stderr, err := rh.Runner.Run(ctx, rh.Work, nil, argv); err != nil {
			return fmt.Errorf("%s: helm: %w: %.400s", a.Ref, err, strings.ReplaceAll(strings.TrimSpace(string(stderr)), "\n", "; "))
		}
	}
	return nil
}
