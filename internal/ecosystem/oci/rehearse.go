package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"enisle/internal/ecosystem"
)

var _ ecosystem.Rehearser = (*Ecosystem)(nil)

// Rehearse has skopeo copy every image that is carried, each platform for itself, and read
// every list of them.
func (*Ecosystem) Rehearse(ctx context.Context, rh ecosystem.Rehearsal) error {
	if _, err := exec.LookPath("skopeo"); err != nil {
		return ecosystem.ErrNoClient
	}
	base, err := url.Parse(rh.Base)
	if err != nil {
		return err
	}
	skopeo := func(args ...string) ([]byte, error) {
		stdout, stderr, err := rh.Runner.Run(ctx, rh.Work, nil, append([]string{"skopeo", "--insecure-policy"}, args...))
		return stdout, unmet(stderr, err)
	}
	for _, a := range rh.Artifacts {
		name := "docker://" + base.Host + "/" + a.Ref.Name
		wanted := []string{name + ":" + a.Ref.Version}
		if strings.Contains(a.Ref.Version, ":") {
			wanted[0] = name + "@" + a.Ref.Version
		}
		for _, f := range a.Files {
			if hex, ok := strings.CutPrefix(f.Path, "manifests/"); ok {
				wanted = append(wanted, name+"@sha256:"+hex)
			}
		}
		for _, at := range wanted {
			raw, err := skopeo("inspect", "--raw", "--tls-verify=false", at)
			if err != nil {
				return fmt.Errorf("%s: %w", a.Ref, err)
			}
			var list struct {
				Manifests []json.RawMessage `json:"manifests"`
			}
			if err := json.Unmarshal(raw, &list); err != nil || list.Manifests != nil {
				continue // its images are copied by themselves, those that are carried
			}
			to := filepath.Join(rh.Work, "image")
			if _, err := skopeo("copy", "--quiet", "--src-tls-verify=false", at, "dir:"+to); err != nil {
				return fmt.Errorf("%s: %w", a.Ref, err)
			}
			if err := os.RemoveAll(to); err != nil {
				return err
			}
		}
	}
	return nil
}

// unmet says what skopeo could not get, in its own last words.
func unmet(stderr []byte, err error) error {
	lines := strings.Split(strings.TrimSpace(string(stderr)), "\n")
	if last := lines[len(lines)-1]; err != nil && last != "" {
		return fmt.Errorf("skopeo: %.400s", last)
	}
	return err
}
