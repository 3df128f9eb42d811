package check

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/importer"
	"go/parser"
	"go/printer"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	markdown "github.com/yuin/goldmark/ast"
)

// TestPageCodeCompiles type-checks every go block of README.md and docs and runs those that say
// what they print. It also requires that gofmt leaves each block unchanged.
func TestPageCodeCompiles(t *testing.T) {
	var all []part
	for _, p := range pages(t) {
		if p.path == "README.md" || strings.HasPrefix(p.path, "docs/") {
			all = append(all, parts(p)...)
		}
	}
	if len(all) < 40 {
		t.Fatalf("found %d parts", len(all))
	}
	packages := load(t, all)
	for _, code := range all {
		if formatted, err := format.Source([]byte(code.text)); err == nil && dense(string(formatted)) != dense(code.text) {
			t.Errorf("%s:%d: gofmt would write:\n%s", code.page, code.line, formatted)
		}
		program, err := packages.check(code)
		switch {
		case code.broken && err == nil:
			t.Errorf("%s:%d: compiles, but says that it does not", code.page, code.line)
		case code.broken:
		case err != nil:
			t.Error(err)
		default:
			if want, ok := output(code.text); ok {
				got, err := run(t, program)
				if err != nil || got != want {
					t.Errorf("%s:%d: printed (error %v)\n%swant\n%s", code.page, code.line, err, got, want)
				}
			}
		}
	}
}

// A part is code with a scope of its own: a go block, or one of several parts that a block shows
// for comparison.
type part struct {
	page   string
	line   int // of the page, where the text starts
	text   string
	broken bool // the page says that it does not compile
}

var partStart = regexp.MustCompile(`^// (wrong|right|before|after)\b`)

// parts returns the code of a page.
func parts(p *page) (found []part) {
	p.each(func(n markdown.Node) {
		block, ok := n.(*markdown.FencedCodeBlock)
		if !ok || string(block.Language(p.source)) != "go" || block.Lines().Len() == 0 {
			return
		}
		first := p.line(block.Lines().At(0).Start)
		lines := strings.SplitAfter(string(block.Lines().Value(p.source)), "\n")
		// The lines before the first start belong to all parts.
		var starts []int
		for i, line := range lines {
			if partStart.MatchString(line) {
				starts = append(starts, i)
			}
		}
		if len(starts) == 0 {
			found = append(found, part{p.path, first, strings.Join(lines, ""), false})
			return
		}
		for i, start := range starts {
			end := len(lines)
			if i+1 < len(starts) {
				end = starts[i+1]
			}
			blank := strings.Repeat("\n", start-starts[0]) // keeps line numbers right
			found = append(found, part{
				page:   p.path,
				line:   first,
				text:   strings.Join(lines[:starts[0]], "") + blank + strings.Join(lines[start:end], ""),
				broken: strings.Contains(lines[start], "does not compile"),
			})
		}
	})
	return found
}

// dense returns the text without blank lines, which parts have to keep line numbers right.
func dense(text string) string { return blankLines.ReplaceAllString(text, "\n") }

var blankLines = regexp.MustCompile(`\n\s*\n`)

// output returns what the code says it prints.
func output(text string) (string, bool) {
	_, comment, ok := strings.Cut(text, "// Output:\n")
	if !ok {
		return "", false
	}
	var want strings.Builder
	for line := range strings.Lines(comment) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "//"); ok {
			want.WriteString(strings.TrimPrefix(rest, " ") + "\n")
		}
	}
	return want.String(), true
}

// standard lists the packages of the standard library that code may use without an import.
var standard = []string{
	"bytes", "context", "database/sql", "encoding/json", "errors", "fmt", "io", "log", "log/slog", "math", "math/rand/v2", "net", "net/http", "net/http/httptest",
	"os", "sort", "strconv", "strings", "sync", "sync/atomic", "syscall", "testing", "testing/synctest", "time",
}

// others are packages of other modules that code may use without an import, by their names.
var others = map[string]string{
	"backoff":          "github.com/cenkalti/backoff/v4",
	"prometheus":       "github.com/prometheus/client_golang/prometheus",
	"promhttp":         "github.com/prometheus/client_golang/prometheus/promhttp",
	"resilienceconfig": "github.com/effector-go/resilience/resilienceconfig",
	"resilienceotel":   "github.com/effector-go/resilience/resilienceotel",
	"resilienceprom":   "github.com/effector-go/resilience/resilienceprom",
}

// packages are what code may import.
type packages struct {
	imports types.Importer
	byName  map[string]string // import paths of those that code may use without an import
}

var importLine = regexp.MustCompile(`(?m)^(?:import )?\t?(?:\w+ )?"([\w./-]+)"$`)

// load compiles the packages that the code may use.
func load(t *testing.T, all []part) *packages {
	t.Helper()
	byName := map[string]string{}
	want := slices.Clone(standard)
	own := strings.Fields(goList(t, root, "-f", `{{if ne .Name "main"}}{{.ImportPath}}{{end}}`, "./..."))
	for _, p := range append(own, standard...) {
		if strings.Contains(p, "/internal/") || strings.HasSuffix(p, "/bench") {
			continue
		}
		byName[path.Base(strings.TrimSuffix(p, "/v2"))] = p
		want = append(want, p)
	}
	for name, p := range others {
		byName[name] = p
		want = append(want, p)
	}
	for _, code := range all {
		for _, match := range importLine.FindAllStringSubmatch(code.text, -1) {
			want = append(want, match[1])
		}
	}
	compiled := map[string]string{}
	args := append([]string{"-e", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, want...)
	for line := range strings.Lines(goList(t, ".", args...)) {
		if importPath, file, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			compiled[importPath] = file
		}
	}
	lookup := func(importPath string) (io.ReadCloser, error) {
		file, ok := compiled[importPath]
		if !ok {
			return nil, fmt.Errorf("no package %s", importPath)
		}
		return os.Open(file)
	}
	return &packages{importer.ForCompiler(token.NewFileSet(), "gc", lookup), byName}
}

func goList(t *testing.T, dir string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	list := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	list.Dir, list.Stderr = dir, &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	return string(out)
}

// check type-checks the code together with the prelude. If there is no error, the files are a
// program.
func (p *packages) check(code part) ([]*ast.File, error) {
	fset := token.NewFileSet()
	file, err := parse(fset, code)
	if err != nil {
		return nil, err
	}
	declarations, err := parsePrelude(fset, code.page)
	if err != nil {
		return nil, err
	}
	declared := map[string]bool{}
	for _, decl := range file.Decls {
		for _, name := range names(decl) {
			declared[name] = true
		}
	}
	prelude := &ast.File{Name: ast.NewIdent("main")} // a separate file, so that the code can import other packages by the same names
	for _, decl := range declarations {
		if keep(decl, declared) {
			prelude.Decls = append(prelude.Decls, decl)
		}
	}
	files := []*ast.File{file, prelude}
	for _, f := range files {
		addImports(f, p.byName)
	}

	var problems []string
	config := types.Config{
		GoVersion: "go1.25",
		Importer:  p.imports,
		Error: func(err error) {
			if e := err.(types.Error); !e.Soft { // soft: something is declared but not used
				problems = append(problems, fmt.Sprintf("%s: %s", fset.Position(e.Pos), e.Msg))
			}
		},
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	config.Check("main", fset, files, info) // the error it returns is the first problem, or a soft one
	if len(problems) > 0 {
		return nil, fmt.Errorf("%s", strings.Join(problems, "\n"))
	}
	for _, f := range files {
		dropUnusedImports(f, info)
	}
	return files, nil
}

var (
	declaration = regexp.MustCompile(`^(func (\(|\w)|type |var |const )`)
	function    = regexp.MustCompile(`(?m)^func (\(|\w)`)
	importBlock = regexp.MustCompile(`(?m)^import (\([^)]*\)|(\w+ )?"[^"]*")\n`)
)

// parse makes a file of the code, which consists of declarations, statements, or both.
func parse(fset *token.FileSet, code part) (*ast.File, error) {
	if strings.HasPrefix(code.text, "package ") {
		return parser.ParseFile(fset, path.Base(code.page), fmt.Sprintf("//line %s:%d\n%s", path.Base(code.page), code.line, code.text), parser.ParseComments)
	}
	imports := importBlock.FindAllString(code.text, -1)
	text := importBlock.ReplaceAllStringFunc(code.text, func(s string) string { return strings.Repeat("\n", strings.Count(s, "\n")) })
	head := "package main\n" + strings.Join(imports, "")
	at := func(line int) string { return fmt.Sprintf("//line %s:%d\n", path.Base(code.page), code.line+line) }

	asFile := head + at(0) + text
	if file, err := parser.ParseFile(fset, path.Base(code.page), asFile, parser.SkipObjectResolution); err == nil {
		file.Decls = append(file.Decls, &ast.FuncDecl{Name: ast.NewIdent("main"), Type: &ast.FuncType{Params: &ast.FieldList{}}, Body: &ast.BlockStmt{}})
		return file, nil
	}
	// If the code has functions, declarations are moved out of main. A declaration ends with a line
	// that is only a closing bracket.
	var outside, inside strings.Builder
	inside.WriteString("func main() {\n" + at(0))
	hoist := function.MatchString(text)
	open := false
	for i, line := range strings.SplitAfter(text, "\n") {
		if hoist && !open && declaration.MatchString(line) {
			open = true
			outside.WriteString(at(i))
		}
		if !open {
			inside.WriteString(line)
			continue
		}
		outside.WriteString(line)
		inside.WriteString("\n")
		end := strings.TrimRight(line, "\n")
		open = !(end == "}" || end == ")" || declaration.MatchString(line) && !strings.HasSuffix(end, "{") && !strings.HasSuffix(end, "("))
	}
	file, err := parser.ParseFile(fset, path.Base(code.page), head+outside.String()+inside.String()+"\n}\n", parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "main" && f.Recv == nil {
			loosen(f.Body)
		}
	}
	return file, nil
}

// loosen allows a fragment to return results and to leave a value unused.
func loosen(body *ast.BlockStmt) {
	replace := func(list []ast.Stmt) {
		for i, statement := range list {
			switch s := statement.(type) {
			case *ast.ReturnStmt:
				list[i] = &ast.ExprStmt{X: &ast.CallExpr{Fun: &ast.Ident{Name: "results", NamePos: s.Return}, Args: s.Results}}
			case *ast.ExprStmt:
				if _, call := s.X.(*ast.CallExpr); !call {
					list[i] = &ast.AssignStmt{Lhs: []ast.Expr{ast.NewIdent("_")}, TokPos: s.Pos(), Tok: token.ASSIGN, Rhs: []ast.Expr{s.X}}
				}
			}
		}
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.BlockStmt:
			replace(n.List)
		case *ast.CaseClause:
			replace(n.Body)
		case *ast.CommClause:
			replace(n.Body)
		}
		return true
	})
}

// parsePrelude returns the declarations that code on the page may use: those for all pages, unless
// the page has its own.
func parsePrelude(fset *token.FileSet, pagePath string) ([]ast.Decl, error) {
	dir := filepath.Join("testdata", "prelude")
	var decls []ast.Decl
	declared := map[string]bool{}
	for _, name := range []string{strings.TrimSuffix(path.Base(pagePath), ".md") + ".go", "common.go"} {
		file := filepath.Join(dir, strings.ToLower(name))
		if _, err := os.Stat(file); err != nil && name != "common.go" {
			continue
		}
		parsed, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		seen := map[string]bool{}
		for _, decl := range parsed.Decls {
			if keep(decl, declared) {
				decls = append(decls, decl)
			}
			for _, name := range names(decl) {
				seen[name] = true
			}
		}
		maps.Copy(declared, seen)
	}
	return decls, nil
}

// names returns the names that a declaration declares. For a method it returns the name of its
// type.
func names(decl ast.Decl) (list []string) {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv == nil {
			return []string{decl.Name.Name}
		}
		receiver := decl.Recv.List[0].Type
		if pointer, ok := receiver.(*ast.StarExpr); ok {
			receiver = pointer.X
		}
		if name, ok := receiver.(*ast.Ident); ok {
			return []string{name.Name}
		}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					list = append(list, name.Name)
				}
			case *ast.TypeSpec:
				list = append(list, spec.Name.Name)
			}
		}
	}
	return list
}

// keep removes what is already declared from a declaration of the prelude and reports whether
// anything is left.
func keep(decl ast.Decl, declared map[string]bool) bool {
	general, ok := decl.(*ast.GenDecl)
	if !ok {
		return !slices.ContainsFunc(names(decl), func(name string) bool { return declared[name] })
	}
	general.Specs = slices.DeleteFunc(general.Specs, func(spec ast.Spec) bool {
		switch spec := spec.(type) {
		case *ast.ImportSpec:
			return true
		case *ast.TypeSpec:
			return declared[spec.Name.Name]
		case *ast.ValueSpec:
			return slices.ContainsFunc(spec.Names, func(name *ast.Ident) bool { return declared[name.Name] })
		}
		return false
	})
	return len(general.Specs) > 0
}

// addImports imports the packages that the file uses but doesn't import.
func addImports(file *ast.File, byName map[string]string) {
	named := map[string]bool{}
	for _, spec := range file.Imports {
		if spec.Name != nil {
			named[spec.Name.Name] = true
			continue
		}
		importPath := strings.Trim(spec.Path.Value, `"`)
		named[packageName(importPath)] = true
	}
	var specs []ast.Spec
	ast.Inspect(file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		base, ok := selector.X.(*ast.Ident)
		if !ok || named[base.Name] || byName[base.Name] == "" {
			return true
		}
		named[base.Name] = true
		spec := &ast.ImportSpec{Path: &ast.BasicLit{Kind: token.STRING, Value: fmt.Sprintf("%q", byName[base.Name])}}
		specs = append(specs, spec)
		file.Imports = append(file.Imports, spec)
		return true
	})
	if len(specs) > 0 {
		imports := &ast.GenDecl{Tok: token.IMPORT, Lparen: 1, Specs: specs, Rparen: 1}
		file.Decls = append([]ast.Decl{imports}, file.Decls...)
	}
}

var versionEnd = regexp.MustCompile(`(/v\d+|-go(/v\d+)?)$`)

// packageName guesses the name of an imported package from its path.
func packageName(importPath string) string {
	return path.Base(versionEnd.ReplaceAllString(importPath, ""))
}

// dropUnusedImports removes imports that the compiler would reject.
func dropUnusedImports(file *ast.File, info *types.Info) {
	used := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			if name, ok := info.Uses[id].(*types.PkgName); ok {
				used[name.Imported().Path()] = true
			}
		}
		return true
	})
	for _, decl := range file.Decls {
		if general, ok := decl.(*ast.GenDecl); ok && general.Tok == token.IMPORT {
			general.Specs = slices.DeleteFunc(general.Specs, func(spec ast.Spec) bool {
				return !used[strings.Trim(spec.(*ast.ImportSpec).Path.Value, `"`)]
			})
		}
	}
}

// run runs the program and returns what it printed.
func run(t *testing.T, program []*ast.File) (string, error) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"run"}
	for i, file := range program {
		var source bytes.Buffer
		if err := printer.Fprint(&source, token.NewFileSet(), file); err != nil {
			return "", err
		}
		name := filepath.Join(dir, fmt.Sprintf("%d.go", i))
		if err := os.WriteFile(name, source.Bytes(), 0o666); err != nil {
			return "", err
		}
		args = append(args, name)
	}
	out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput()
	return string(out), err
}
