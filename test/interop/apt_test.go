package interop

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/crossing"
)

// Packages of Debian with all that they depend on are collected by apt from the archive
// that this machine uses, and installed by apt from the mirror alone, into a root where
// nothing is, with the site's signature verified. After a recall, apt sees an index that
// is signed again.
func TestAptInstallsInsideANamespace(t *testing.T) {
	client(t, "apt-get")
	client(t, "dpkg-deb")
	if out, err := exec.Command("apt-get", "update", "-q").CombinedOutput(); err != nil {
		t.Skipf("no archive can be reached: %v: %s", err, out)
	}
	dir, enisle := crossed(t, map[string]string{"enisle.yaml": "name: tools\nbring:\n  debian: [ jq ]\n"})
	keys := run(t, "", "sh", "-c", "for f in /usr/share/keyrings/* /etc/apt/trusted.gpg.d/*; do gpg --show-keys --with-colons \"$f\" 2>/dev/null || true; done")
	for ref, by := range signersOf(t, dir, enisle) {
		if !strings.HasPrefix(ref, "debian/") {
			continue
		}
		if len(by) == 0 {
			t.Errorf("%s: nobody inside knows that the archive signed it", ref)
		}
		for _, s := range by {
			if f, ok := strings.CutPrefix(s, "apt:key:"); !ok || !strings.Contains(keys, ":"+f+":") {
				t.Errorf("%s is signed by %s, which gpg does not find among the keys of this machine", ref, s)
			}
		}
	}
	script := `
rm -rf apt && mkdir -p apt/lists/partial apt/cache/archives/partial apt/state apt/tree && : > apt/status
curl -sf "$URL/debian/enisle.asc" > apt/enisle.asc
"$ENISLE" mirror config apt --url "$URL" | sed "s#/etc/apt/keyrings/enisle.asc#$PWD/apt/enisle.asc#; s#bookworm#$CODENAME#" > apt/enisle.sources
APT="-o Dir::State=$PWD/apt/state -o Dir::State::Lists=$PWD/apt/lists -o Dir::State::status=$PWD/apt/status -o Dir::Cache=$PWD/apt/cache -o Dir::Etc::sourcelist=$PWD/apt/enisle.sources -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User= -o Acquire::Languages=none"
apt-get $APT update -q
apt-get $APT install -y -q --no-install-recommends --download-only $WHAT
for f in apt/cache/archives/*.deb; do dpkg-deb -x "$f" apt/tree; done
`
	codename := strings.TrimSpace(run(t, "", "sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME"))
	first := inside(t, dir, "CODENAME="+codename+" WHAT=jq"+script+`
LD_LIBRARY_PATH=$(dirname "$(find apt/tree -name 'libjq.so.1' | head -1)") apt/tree/usr/bin/jq -rn '"jq says " + (6*7|tostring)'
`)
	if !strings.Contains(first, "jq says 42") || strings.Contains(first, "WARNING") {
		t.Error(first)
	}
	var ref string
	for l := range strings.Lines(enisle("-C", "high", "sbom")) {
		if i := strings.Index(l, `"debian/`+codename+`/jq@`); i >= 0 && strings.Contains(l, "bom-ref") && !strings.Contains(l, "#") {
			ref = strings.Trim(strings.TrimSpace(l[i:]), `",`)
		}
	}
	enisle("-C", "high", "recall", ref, "--reason", "tried whether it goes", "--as", "alice", "--key", "alice.key")
	second := inside(t, dir, "CODENAME="+codename+" WHAT=libjq1"+script+`
apt-get $APT install -y -q --no-install-recommends --download-only jq 2>&1 | grep -i 'unable to locate\|no installation candidate' && echo gone
`)
	if !strings.Contains(second, "gone") {
		t.Error(second)
	}
	if err := os.RemoveAll(dir + "/apt"); err != nil {
		t.Error(err)
	}
}

// signersOf returns who signed each artifact of the one shipment that is here, as the
// evidence for the auditor has it.
func signersOf(t *testing.T, dir string, enisle func(args ...string) string) map[string][]string {
	t.Helper()
	var rows []struct{ ID string }
	if err := json.Unmarshal([]byte(enisle("-C", "high", "review", "--json")), &rows); err != nil || len(rows) == 0 {
		t.Fatalf("%v, %v", rows, err)
	}
	enisle("-C", "high", "evidence", rows[0].ID, "--to", "evidence")
	b, err := os.ReadFile(filepath.Join(dir, "evidence", "evidence.json"))
	if err != nil {
		t.Fatal(err)
	}
	var e crossing.Evidence
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	html, err := os.ReadFile(filepath.Join(dir, "evidence", "evidence.html"))
	if err != nil {
		t.Fatal(err)
	}
	report := e.Review.Judged.Report
	out := map[string][]string{}
	for _, c := range report.Contents {
		out[c.Ref] = nil
	}
	for _, v := range report.Verified {
		out[v.Artifact] = append(out[v.Artifact], v.Signer)
		if !strings.Contains(string(html), strings.ReplaceAll(v.Signer, "+", "&#43;")) {
			t.Errorf("the page for people does not name %s", v.Signer)
		}
	}
	return out
}
