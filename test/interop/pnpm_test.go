package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// nodeProgram returns a package manager that npm installs.
func nodeProgram(t *testing.T, name, version string) string {
	t.Helper()
	npm := client(t, "npm")
	dir, err := filepath.Abs("../../.cache/" + name + "-" + version)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "node_modules", ".bin", name)
	if _, err := os.Stat(program); err != nil {
		if out, err := exec.Command(npm, "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", name+"@"+version).CombinedOutput(); err != nil {
			t.Skipf("%s can not be fetched: %v: %s", name, err, out)
		}
	}
	return program
}

// webApp answers one request with express and says so.
const webApp = `const app = require("express")(), qs = require("qs");
app.get("/", (q, r) => r.send("served by express " + require("express/package.json").version + " " + qs.stringify({a: [1]})));
const s = app.listen(0, "127.0.0.1", () => fetch("http://127.0.0.1:" + s.address().port).then(r => r.text()).then(t => { console.log(t); s.close(); }));
`

// Lockfiles of pnpm and of yarn with everything that express needs are collected from the
// real registry and installed as they are, with nothing but the mirror to be reached: by
// the settings that 'mirror config' prints, and without any where the mirror answers in
// the registry's place. What was installed runs.
func TestPnpmAndYarnInstallTheirLockfiles(t *testing.T) {
	for _, tc := range []struct{ name, version, lock, lockfile, install, settings string }{
		{"pnpm", "10.34.8", "install --lockfile-only --ignore-scripts", "pnpm-lock.yaml", "install --frozen-lockfile --ignore-scripts", ".npmrc"},
		{"yarn", "1.22.22", "install --ignore-scripts --non-interactive --no-bin-links", "yarn.lock", "install --frozen-lockfile --ignore-scripts --non-interactive", ".yarnrc"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			program := nodeProgram(t, tc.name, tc.version)
			work := t.TempDir()
			files := map[string]string{"package.json": `{"name":"app","version":"1.0.0","dependencies":{"express":"4.21.1","qs":"6.13.0"}}`, "app.js": webApp}
			write(t, filepath.Join(work, "package.json"), files["package.json"])
			cmd := exec.Command(program, strings.Fields(tc.lock)...)
			cmd.Dir = work
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Skipf("the registry of npm can not be reached: %v: %s", err, out)
			}
			lock, err := os.ReadFile(filepath.Join(work, tc.lockfile))
			if err != nil {
				t.Fatal(err)
			}
			files[tc.lockfile] = string(lock)
			files["enisle.yaml"] = "name: web\nbring:\n  npm: [ {lockfile: " + tc.lockfile + "} ]\n"
			dir, enisle := crossed(t, files)
			if n := standIn(t, dir, enisle); n < 1 {
				t.Fatalf("%d hosts", n)
			}
			const fresh = `
rm -rf app "$HOME/.cache" "$HOME/.local" && mkdir app && cp package.json app.js LOCK app/ && cd app
`
			const installed = `
PROGRAM INSTALL >../install.log 2>&1 || { cat ../install.log; exit 1; }
node app.js
cmp LOCK ../LOCK && echo unmodified
cd ..
`
			script := fresh + `"$ENISLE" mirror config ` + tc.name + ` --url "$URL" > ` + tc.settings + installed +
				inPlace + fresh + installed + `if curl -s -o /dev/null --max-time 2 http://192.0.2.1/; then echo LEAK; fi
`
			out := inside(t, dir, strings.NewReplacer("PROGRAM", program, "INSTALL", tc.install, "LOCK", tc.lockfile).Replace(script))
			if strings.Count(out, "served by express 4.21.1 a%5B0%5D=1") != 2 || strings.Count(out, "unmodified") != 2 || strings.Contains(out, "LEAK") {
				t.Error(out)
			}
		})
	}
}
