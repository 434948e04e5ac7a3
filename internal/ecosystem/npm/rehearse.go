package npm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"enisle/internal/ecosystem"
)

var _ ecosystem.Rehearser = (*Ecosystem)(nil)

// Rehearse has npm install everything, each version under a name of its own, with what it
// depends on.
func (*Ecosystem) Rehearse(ctx context.Context, r ecosystem.Rehearsal) error {
	deps := map[string]string{}
	for i, a := range r.Artifacts {
		deps[fmt.Sprintf("rehearsed-%d", i)] = "npm:" + a.Ref.Name + "@" + a.Ref.Version
	}
	b, err := json.Marshal(map[string]any{"name": "rehearsal", "version": "0.0.0", "private": true, "dependencies": deps})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.Work, "package.json"), b, 0o600); err != nil {
		return err
	}
	for _, name := range []string{"user", "global"} {
		if err := os.WriteFile(filepath.Join(r.Work, name+".npmrc"), nil, 0o600); err != nil {
			return err
		}
	}
	argv := []string{
		"npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--legacy-peer-deps", "--fetch-retries=0", "--userconfig=" + filepath.Join(r.Work, "user.npmrc"), "--globalconfig=" + filepath.Join(r.Work, "global.npmrc"),
		"--registry", r.Base + "/npm/", "--cache", filepath.Join(r.Work, "cache"), "--prefix", r.Work,
	}
	if _, stderr, err := r.Runner.Run(ctx, r.Work, nil, argv); err != nil {
		for l := range strings.Lines(string(stderr)) {
			// The first line that says what: "404  The requested resource 'x@1' could not …".
			if strings.Contains(l, "could not be found") || strings.Contains(l, "No matching version") {
				return errors.New(strings.TrimSpace(l))
			}
		}
		return fmt.Errorf("npm: %w: %s", err, tail(stderr))
	}
	return nil
}
