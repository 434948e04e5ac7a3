package pypi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// settings are what pip itself would use, asked of pip.
type settings struct {
	Exe     string   `json:"exe"`
	Version string   `json:"version"` // of Python, such as 3.11
	Machine string   `json:"machine"` // as uname says
	Pip     string   `json:"pip"`     // its version; empty without pip
	Index   string   `json:"index"`   // may hold credentials
	Extra   []string `json:"extra"`   // may hold credentials
	Cert    string   `json:"cert"`
}

// askPip prints the settings; pip merges its files and environment by itself.
// Options come from its parser, which has no public name; what it does not tell
// stays unknown.
const askPip = `
import json, platform, sys
out = {"exe": sys.executable, "version": "%d.%d" % sys.version_info[:2], "machine": platform.machine()}
try:
    import pip
    out["pip"] = pip.__version__
    from pip._internal.commands import create_command
    o, _ = create_command("install").parser.parse_args([])
    out.update(index=o.index_url or "", extra=o.extra_index_urls or [], cert=o.cert or "")
except Exception as e:
    sys.stderr.write("pip: %s\n" % e)
print(json.dumps(out))
`

func (p *Ecosystem) python(ctx context.Context, want ecosystem.Want) (settings, error) {
	var s settings
	out, stderr, err := p.opt.Runner.Run(ctx, want.Work, want.Hidden, []string{"python3", "-c", askPip})
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		return s, fail.As(fail.Failed, "install python3 with pip, or uv", fmt.Errorf("python3: %w: %s", err, lastLine(stderr)))
	}
	return s, nil
}

// Settings returns what fetching needs to reach where pip and uv download
// from: the certificates and credentials of pip's configuration, of the
// environment and of the user's netrc. What cannot be read is left out.
func (p *Ecosystem) Settings(ctx context.Context, want ecosystem.Want) fetch.Options {
	var opt fetch.Options
	s, err := p.python(ctx, want)
	if err != nil {
		p.opt.Log.DebugContext(ctx, "pip settings", "err", err)
	}
	seen := map[string]bool{}
	for _, f := range []string{s.Cert, os.Getenv("PIP_CERT"), os.Getenv("SSL_CERT_FILE"), os.Getenv("REQUESTS_CA_BUNDLE")} {
		if st, err := os.Stat(f); err == nil && st.Mode().IsRegular() && !seen[f] {
			seen[f] = true
			opt.CAFiles = append(opt.CAFiles, f)
		}
	}
	indexes := append([]string{s.Index}, s.Extra...)
	for _, name := range []string{"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"} {
		indexes = append(indexes, strings.Fields(os.Getenv(name))...)
	}
	for _, raw := range indexes {
		if c, ok := credential(raw); ok {
			opt.Credentials = append(opt.Credentials, c)
		}
	}
	opt.Credentials = append(opt.Credentials, netrc()...)
	return opt
}

// credential reads the userinfo of an index URL; uv writes NAME=URL too.
func credential(raw string) (fetch.Credential, bool) {
	if name, rest, ok := strings.Cut(raw, "="); ok && !strings.Contains(name, ":") {
		raw = rest
	}
	u, err := url.Parse(raw)
	if err != nil || u.User == nil || u.Host == "" {
		return fetch.Credential{}, false
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	password, _ := u.User.Password()
	return fetch.Credential{Host: net.JoinHostPort(u.Hostname(), port), User: u.User.Username(), Password: password, Plain: u.Scheme == "http"}, true
}

// maxNetrc is how much of a netrc is read, in bytes.
const maxNetrc = 1 << 20

// netrc returns the machines of the user's netrc, as pip would find it.
func netrc() []fetch.Credential {
	name := os.Getenv("NETRC")
	if home, err := os.UserHomeDir(); err == nil && name == "" {
		name = filepath.Join(home, ".netrc")
	}
	if st, err := os.Stat(name); err != nil || !st.Mode().IsRegular() || st.Size() > maxNetrc {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	return parseNetrc(b)
}

// parseNetrc reads "machine H login U password P" in any order and layout. A
// default entry is left out: it would send a password to every host.
func parseNetrc(b []byte) (out []fetch.Credential) {
	var words []string
	macro := false
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) == 0 {
			macro = false // an empty line ends a macro
			continue
		}
		if macro || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if fields[0] == "macdef" {
			macro = true
			continue
		}
		words = append(words, fields...)
	}
	var cur *fetch.Credential
	for i := 0; i < len(words); i++ {
		if words[i] == "default" {
			cur = nil
			continue
		}
		if i+1 == len(words) {
			break
		}
		value := words[i+1]
		switch words[i] {
		case "machine":
			out = append(out, fetch.Credential{Host: value})
			cur = &out[len(out)-1]
		case "login":
			if cur != nil {
				cur.User = value
			}
		case "password":
			if cur != nil {
				cur.Password = value
			}
		case "account":
		default:
			continue
		}
		i++
	}
	return out
}
