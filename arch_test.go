// Package enisle holds the tests of the whole repository.
package enisle

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pkg is one package of ours, as its production files show it.
type pkg struct {
	imports map[string]bool // all, full paths
	doc     bool
	dials   []string // names of diallers that it mentions
	inits   []string // files with func init
	vars    []string // package-level variables that code could change
}

const module = "enisle/"

// ours reads every Go file below internal and cmd, tests aside.
func ours(t *testing.T) map[string]*pkg {
	t.Helper()
	all := map[string]*pkg{}
	for _, root := range []string{"internal", "cmd"} {
		err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			name := strings.TrimPrefix(path.Dir(filepath.ToSlash(file)), "internal/")
			if all[name] == nil {
				all[name] = &pkg{imports: map[string]bool{}}
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			all[name].read(file, f)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages were found", len(all))
	}
	return all
}

var dialler = regexp.MustCompile(`^(http\.(Client|DefaultClient|Transport|DefaultTransport|Get|Head|Post|PostForm)|` +
	`net\.(Dial\w*|Dialer|Lookup\w*|Resolver|DefaultResolver|ResolveTCPAddr|ResolveUDPAddr)|tls\.(Dial\w*|Dialer)|` +
	`(unix|syscall)\.(Connect|Sendto|Sendmsg\w*))$`)

func (p *pkg) read(file string, f *ast.File) {
	if f.Doc != nil {
		p.doc = true
	}
	for _, im := range f.Imports {
		p.imports[strings.Trim(im.Path.Value, `"`)] = true
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && dialler.MatchString(x.Name+"."+s.Sel.Name) {
				p.dials = append(p.dials, file+": "+x.Name+"."+s.Sel.Name)
			}
		}
		return true
	})
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil {
			p.inits = append(p.inits, file)
		}
	}
	p.variables(file, f)
}

// constant are initialisers whose value nobody changes: errors, patterns,
// interface guards and functions.
var constant = regexp.MustCompile(`^(errors\.New|fmt\.Errorf|regexp\.MustCompile|strings\.NewReplacer)$`)

func (p *pkg) variables(file string, f *ast.File) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, s := range g.Specs {
			v, ok := s.(*ast.ValueSpec)
			if !ok || v.Names[0].Name == "_" {
				continue
			}
			if len(v.Values) == 1 {
				if call, ok := v.Values[0].(*ast.CallExpr); ok {
					if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
						if x, ok := sel.X.(*ast.Ident); ok && constant.MatchString(x.Name+"."+sel.Sel.Name) {
							continue
						}
					}
				}
			}
			if g.Doc != nil && strings.Contains(strings.ToLower(g.Doc.Text()), "constant") || v.Doc != nil && strings.Contains(strings.ToLower(v.Doc.Text()), "constant") {
				continue // a table that says it is never changed
			}
			p.vars = append(p.vars, file+": "+v.Names[0].Name)
		}
	}
}

// table reads the rows of ARCHITECTURE.md between two markers: first cell →
// the names in backquotes of the second.
func table(t *testing.T, marker string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 200 {
		t.Errorf("ARCHITECTURE.md has %d lines, more than 200", n)
	}
	_, rest, ok := strings.Cut(string(b), "<!-- "+marker+" -->")
	rows, _, ok2 := strings.Cut(rest, "<!-- /"+marker+" -->")
	if !ok || !ok2 {
		t.Fatalf("ARCHITECTURE.md has no table %q", marker)
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	out := map[string][]string{}
	for line := range strings.Lines(rows) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		first := quoted.FindStringSubmatch(cells[1])
		if first == nil {
			continue
		}
		out[first[1]] = nil
		for _, m := range quoted.FindAllStringSubmatch(cells[2], -1) {
			out[first[1]] = append(out[first[1]], m[1])
		}
	}
	return out
}

// matches reports whether a name is one of the patterns; "a/*" is anything below a.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		below, ok := strings.CutSuffix(p, "/*")
		return p == name || ok && strings.HasPrefix(name, below+"/")
	})
}

// row returns the row for a package, exact before pattern.
func row(rows map[string][]string, name string) ([]string, bool) {
	if r, ok := rows[name]; ok {
		return r, true
	}
	for p, r := range rows {
		if strings.HasSuffix(p, "/*") && matches([]string{p}, name) {
			return r, true
		}
	}
	return nil, false
}

func TestPackagesImportOnlyWhatTheMapSays(t *testing.T) {
	rows := table(t, "imports")
	all := ours(t)
	for name, p := range all {
		if strings.HasPrefix(name, "cmd/") {
			continue
		}
		allowed, ok := row(rows, name)
		if !ok {
			t.Errorf("%s has no row in ARCHITECTURE.md", name)
		}
		for im := range p.imports {
			if rel, ok := strings.CutPrefix(im, module+"internal/"); ok && !matches(allowed, rel) {
				t.Errorf("%s imports %s, which the map does not allow", name, rel)
			}
		}
	}
	for name := range rows {
		if _, ok := all[name]; !ok && !strings.HasSuffix(name, "/*") {
			t.Errorf("the map has a row for %s, which does not exist", name)
		}
	}
}

func TestTheLongestChainOfImportsIsShort(t *testing.T) {
	all := ours(t)
	depth := map[string]int{}
	var walk func(name string) int
	walk = func(name string) int {
		if d, ok := depth[name]; ok {
			return d
		}
		best := 0
		for im := range all[name].imports {
			if rel, ok := strings.CutPrefix(im, module+"internal/"); ok && all[rel] != nil {
				best = max(best, walk(rel))
			}
		}
		depth[name] = best + 1
		return best + 1
	}
	for name := range all {
		if d := walk(name); d > 9 {
			t.Errorf("a chain of %d imports begins at %s", d, name)
		}
	}
}

func TestOnlyTheListedPackagesDial(t *testing.T) {
	rows := table(t, "dial")
	for name, p := range ours(t) {
		if _, ok := rows[name]; !ok && len(p.dials) > 0 {
			t.Errorf("%s may not dial: %s", name, strings.Join(p.dials, ", "))
		}
	}
	for name := range rows {
		if p := ours(t)[name]; p == nil || len(p.dials) == 0 {
			t.Errorf("%s is listed as dialling and does not", name)
		}
	}
}

func TestParsersOfHostileBytesKnowNoNetworkAndNoDatabase(t *testing.T) {
	for name, p := range ours(t) {
		if name != "carry/shipment" && !strings.HasPrefix(name, "judge/") && name != "ecosystem/members" {
			continue
		}
		for im := range p.imports {
			if im == "net" || strings.HasPrefix(im, "net/") && im != "net/url" || im == "database/sql" || im == "os/exec" || im == "plugin" {
				t.Errorf("%s imports %s", name, im)
			}
		}
	}
}

func TestEveryPackageIsDocumentedAndPlain(t *testing.T) {
	for name, p := range ours(t) {
		if !p.doc {
			t.Errorf("%s has no package comment", name)
		}
		if len(p.inits) > 0 {
			t.Errorf("%s has init(): %v", name, p.inits)
		}
		if p.imports["testing"] && !strings.HasSuffix(name, "test") {
			t.Errorf("%s imports testing", name)
		}
		for _, v := range p.vars {
			t.Errorf("%s has state at package level, or a table that does not call itself constant: %s", name, v)
		}
	}
}

// What the project may not contain: paths of a machine it was made on.
func TestNoPathOfAMachine(t *testing.T) {
	bad := regexp.MustCompile(`/(home|Users|root)/[a-z.]`)
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == ".git" || n == ".cache" || n == "bin" || n == "demo" && file == "demo" || n == "node_modules" {
				return fs.SkipDir
			}
			return nil
		}
		switch filepath.Ext(file) {
		case ".go", ".md", ".yaml", ".sh", ".txt", ".txtar", "":
		default:
			return nil
		}
		if file == "arch_test.go" {
			return nil
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if m := bad.Find(b); m != nil {
			t.Errorf("%s names a path of a machine: %s", file, m)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheCommandIsShort(t *testing.T) {
	b, err := os.ReadFile("cmd/enisle/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 20 {
		t.Errorf("main.go has %d lines", n)
	}
}
