package huggingface

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

// Rehearse has hf download every repository at its commit.
func (e *Ecosystem) Rehearse(ctx context.Context, rh ecosystem.Rehearsal) error {
	if _, err := exec.LookPath("hf"); err != nil {
		return ecosystem.ErrNoClient
	}
	for _, a := range rh.Artifacts {
		i, ok := parseID(a.Ref.Name)
		if !ok {
			return fmt.Errorf("%s is the name of no repository", a.Ref)
		}
		kind := "model"
		if i.dataset {
			kind = "dataset"
		}
		to := filepath.Join(rh.Work, "repository")
		argv := []string{
			"env", "HF_ENDPOINT=" + rh.Base + "/" + Kind, "HF_HOME=" + filepath.Join(rh.Work, "home"), "HF_HUB_DISABLE_TELEMETRY=1",
			"hf", "download", i.name, "--repo-type", kind, "--revision", a.Ref.Version, "--local-dir", to,
		}
		if _, stderr, err := rh.Runner.Run(ctx, rh.Work, nil, argv); err != nil {
			return fmt.Errorf("%s: hf: %w: %.400s", a.Ref, err, strings.ReplaceAll(strings.TrimSpace(string(stderr)), "\n", "; "))
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
	return nil
}
