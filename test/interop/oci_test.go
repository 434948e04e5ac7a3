package interop

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/ecosystem/oci"
	"enisle/internal/ecosystem/ocidist/ocidisttest"
)

// The servers and clients that come from the module proxy, pinned.
const (
	registryModule    = "github.com/distribution/distribution/v3/cmd/registry@v3.1.2"
	craneModule       = "github.com/google/go-containerregistry/cmd/crane@v0.20.7"
	conformanceModule = "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111"
)

// tool returns a program of a Go module, which is built into .cache; without the
// module proxy the test is skipped.
func tool(t *testing.T, module string) string {
	t.Helper()
	path, version, _ := strings.Cut(module, "@")
	name := filepath.Base(path)
	if testing.Short() {
		t.Skip("short: " + name + " is not run")
	}
	dir, err := filepath.Abs(filepath.Join("..", "..", ".cache", "tools", name+"-"+version))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, name)
	if _, err := os.Stat(program); err == nil {
		return program
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", module)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%s cannot be fetched: %v: %.300s", name, err, out)
	}
	return program
}

// distribution starts a registry on loopback and returns its host and port.
func distribution(t *testing.T) string {
	t.Helper()
	program := tool(t, registryModule)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone with the test's context
		_ = cmd.Wait()
	})
	for range 100 {
		if c, err := net.Dial("tcp", host); err == nil {
			_ = c.Close()
			return host
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the registry did not start")
	return ""
}

// layer packs directories of this machine.
func layer(t *testing.T, dirs ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, dir := range dirs {
		if err := w.AddFS(os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// fetched returns the contents of everything that was resolved: what was made is
// read, the rest is downloaded by our client and checked.
func fetched(t *testing.T, client *fetch.Client, found []artifact.Artifact, work string) *ecosystemtest.Release {
	t.Helper()
	rel := &ecosystemtest.Release{}
	for _, a := range found {
		files := map[string][]byte{}
		for _, f := range a.Files {
			if at, _, ok := ecosystem.ParseMade(f.Origin); ok {
				b, err := os.ReadFile(filepath.Join(work, at))
				if err != nil {
					t.Fatal(err)
				}
				files[f.Path] = b
				continue
			}
			body, _, _, err := client.Get(t.Context(), f.Origin, 0)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(body)
			_ = body.Close()
			if err != nil || artifact.Sum(b) != f.Digest {
				t.Fatalf("%s: %d bytes, %v", f.Path, len(b), err)
			}
			files[f.Path] = b
		}
		if err := a.Check(); err != nil {
			t.Fatal(err)
		}
		rel.AddAll(a.Ref, files)
	}
	return rel
}

func outside(t *testing.T) *fetch.Client {
	t.Helper()
	client, err := fetch.New(fetch.Options{Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// images is a mirror of an image for two platforms with a signature, which went
// through a real registry, and what it was made of.
func images(t *testing.T) (mirror *httptest.Server, name string, c *ocidisttest.Content, list, amd, sig ocidisttest.Descriptor) {
	t.Helper()
	alone(t)
	host := distribution(t)
	c = ocidisttest.New()
	amd = c.Image("linux", "amd64", layer(t, "../../docs"), layer(t, "../../scripts"))
	arm := c.Image("linux", "arm64", layer(t, "../../changelog"))
	list = c.List(amd, arm)
	sig = c.Refer(list, "application/vnd.example.signature", []byte("signed"))
	c.Tags["1.4"] = list.Digest
	c.Tags["sha256-"+list.Digest.Hex()] = c.List(sig).Digest // distribution has no list of referrers
	if err := c.Push(t.Context(), "http://"+host+"/v2/team/app"); err != nil {
		t.Fatal(err)
	}
	out, work := outside(t), t.TempDir()
	found, err := (&oci.Ecosystem{Get: out}).Resolve(t.Context(), ecosystem.Want{
		Items: []any{map[string]any{"image": host + "/team/app:1.4", "platforms": []any{"linux/amd64"}}}, Work: work,
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := (&oci.Ecosystem{}).Handler(fetched(t, out, found, work))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/v2/", http.StripPrefix("/v2", h))
	mirror = httptest.NewServer(mux)
	t.Cleanup(mirror.Close)
	return mirror, found[0].Ref.Name, c, list, amd, sig
}

func TestSkopeoCopiesAnImageFromTheMirror(t *testing.T) {
	program := client(t, "skopeo")
	s, _, _, list, amd, _ := images(t)
	host := strings.TrimPrefix(s.URL, "http://")
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "image")
	run(t, "", program, "--policy", policy, "--override-os", "linux", "--override-arch", "amd64", "copy", "--src-tls-verify=false",
		"docker://"+host+"/team/app:1.4", "dir:"+to)
	b, err := os.ReadFile(filepath.Join(to, "manifest.json"))
	if err != nil || artifact.Sum(b) != amd.Digest {
		t.Errorf("copied another manifest, %v", err)
	}
	raw := run(t, "", program, "inspect", "--raw", "--tls-verify=false", "docker://"+host+"/team/app:1.4")
	if artifact.Sum([]byte(raw)) != list.Digest {
		t.Error("the index is not what it was")
	}
	if out := run(t, "", program, "list-tags", "--tls-verify=false", "docker://"+host+"/team/app"); !strings.Contains(out, `"1.4"`) {
		t.Errorf("tags: %s", out)
	}
}

func TestCranePullsAnImageFromTheMirror(t *testing.T) {
	program := tool(t, craneModule)
	s, name, _, list, amd, _ := images(t)
	host := strings.TrimPrefix(s.URL, "http://")
	for _, at := range []string{host + "/team/app:1.4", host + "/" + name + ":1.4"} {
		if got := strings.TrimSpace(run(t, "", program, "digest", "--insecure", at)); got != string(list.Digest) {
			t.Errorf("%s is %s, want %s", at, got, list.Digest)
		}
	}
	to := filepath.Join(t.TempDir(), "image")
	run(t, "", program, "pull", "--insecure", "--format", "oci", "--platform", "linux/amd64", host+"/team/app:1.4", to)
	if _, err := os.Stat(filepath.Join(to, "blobs", "sha256", amd.Digest.Hex())); err != nil {
		t.Error(err)
	}
	run(t, "", program, "validate", "--insecure", "--remote", host+"/team/app@"+string(amd.Digest))
	if out := run(t, "", program, "catalog", "--insecure", host); !strings.Contains(out, name) {
		t.Errorf("the catalogue: %s", out)
	}
}

func TestPodmanPullsAnImageFromTheMirror(t *testing.T) {
	program := client(t, "podman")
	s, _, _, _, _, _ := images(t)
	host := strings.TrimPrefix(s.URL, "http://")
	dir, err := os.MkdirTemp("", "p") // it wants a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	run(t, "", program, "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs",
		"pull", "--tls-verify=false", "--arch", "amd64", host+"/team/app:1.4")
}

func TestTheMirrorPassesTheConformanceSuite(t *testing.T) {
	program := tool(t, conformanceModule)
	s, name, c, list, amd, sig := images(t)
	var image struct{ Layers []ocidisttest.Descriptor }
	if err := json.Unmarshal(c.Manifests[amd.Digest], &image); err != nil {
		t.Fatal(err)
	}
	blobs := ""
	for _, l := range image.Layers {
		blobs += " " + string(l.Digest)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "OCI_REGISTRY="+strings.TrimPrefix(s.URL, "http://"), "OCI_TLS=disabled", "OCI_REPO1="+name, "OCI_VERSION=1.1",
		"OCI_API_PUSH=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_TAGS_DELETE=false", "OCI_API_BLOBS_DIGEST_HEADER=true",
		"OCI_RO_DATA_TAGS=1.4", "OCI_RO_DATA_MANIFESTS="+strings.Join([]string{string(list.Digest), string(amd.Digest), string(sig.Digest)}, " "),
		"OCI_RO_DATA_BLOBS="+strings.TrimSpace(blobs), "OCI_RO_DATA_REFERRERS="+string(list.Digest))
	// The status is not looked at: without pushing, this version breaks when it has
	// printed its report and begins to write the same as a file.
	out, _ := cmd.CombinedOutput()
	report := string(out)
	if _, rest, ok := strings.Cut(report, "OCI Conformance Result:"); ok {
		report, _, _ = strings.Cut(rest, "panic:")
	}
	t.Logf("%s", report)
	for _, part := range []string{"Tag listing", "Blob get", "Blob head", "Manifest get by digest", "Manifest get by tag", "Manifest head by digest", "Manifest head by tag", "Referrers", "Ping", "Read Only Inputs"} {
		if !regexp.MustCompile(`(?m)^\s*` + part + `\.+:\s+Pass$`).MatchString(report) {
			t.Errorf("%s did not pass", part)
		}
	}
	if strings.Contains(report, ": FAIL") || !regexp.MustCompile(`FAIL\.+:\s+0\b`).MatchString(report) {
		t.Error("the suite failed")
	}
}
