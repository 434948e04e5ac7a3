package oci

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"enisle/internal/ecosystem/fetch"
)

// maxSettings is how much of a client's settings is read, in bytes.
const maxSettings = 1 << 20

// Credentials returns what 'docker login' and 'podman login' wrote, one a host.
// What a helper program keeps is not asked for, what cannot be read is left out.
func Credentials() (out []fetch.Credential) {
	seen := map[string]bool{}
	for _, name := range settings() {
		st, err := os.Stat(name)
		if err != nil || !st.Mode().IsRegular() || st.Size() > maxSettings {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for _, c := range parseSettings(b) {
			if !seen[c.Host] {
				seen[c.Host] = true
				out = append(out, c)
			}
		}
	}
	return out
}

// settings are the files, in the order in which the clients look.
func settings() (out []string) {
	if f := os.Getenv("REGISTRY_AUTH_FILE"); f != "" {
		out = append(out, f)
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		out = append(out, filepath.Join(d, "containers", "auth.json"))
	}
	dir := os.Getenv("DOCKER_CONFIG")
	if home, err := os.UserHomeDir(); err == nil && dir == "" {
		dir = filepath.Join(home, ".docker")
	}
	return append(out, filepath.Join(dir, "config.json"))
}

// parseSettings reads {"auths": {HOST: {"auth": base64 of USER:PASSWORD}}}.
func parseSettings(b []byte) (out []fetch.Credential) {
	var s struct {
		Auths map[string]struct {
			Auth  string `json:"auth"`
			Token string `json:"registrytoken"`
		} `json:"auths"`
	}
	if json.Unmarshal(b, &s) != nil {
		return nil
	}
	for where, a := range s.Auths {
		host := where
		if u, err := url.Parse(where); err == nil && u.Host != "" {
			host = u.Host
		}
		host, _, _ = strings.Cut(host, "/")
		plain, err := base64.StdEncoding.DecodeString(a.Auth)
		user, password, ok := strings.Cut(string(plain), ":")
		switch {
		case a.Token != "":
			out = append(out, fetch.Credential{Host: host, Token: a.Token})
		case err == nil && ok && user != "":
			out = append(out, fetch.Credential{Host: host, User: user, Password: strings.TrimRight(password, "\x00")})
		}
	}
	return out
}
