package huggingface

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"enisle/internal/ecosystem/fetch"
)

// maxToken is how much of a file with a token is read, in bytes.
const maxToken = 4096

// Credentials returns the user's token for the hub at an address, as the hub's own
// client finds it; none without an address.
func Credentials(endpoint string) []fetch.Credential {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return nil
	}
	token := os.Getenv("HF_TOKEN")
	if token == "" {
		token = stored()
	}
	if token = strings.TrimSpace(token); token == "" || strings.ContainsAny(token, " \r\n") {
		return nil
	}
	return []fetch.Credential{{Host: u.Host, Token: token}}
}

// stored is the token that 'hf auth login' wrote.
func stored() string {
	name := os.Getenv("HF_TOKEN_PATH")
	if name == "" {
		dir := os.Getenv("HF_HOME")
		if cache, err := os.UserCacheDir(); err == nil && dir == "" {
			dir = filepath.Join(cache, "huggingface")
		}
		name = filepath.Join(dir, "token")
	}
	st, err := os.Stat(name)
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxToken {
		return ""
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(b)
}
