package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A goPackage is what go list reports of a package.
type goPackage struct {
	Dir, ImportPath, Name              string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports []string
	Module                             struct{ Path, Dir string }
}

// list returns the packages that match the pattern.
func list(ctx context.Context, dir, pattern string) (all []*goPackage, err error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-json", pattern)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		p := new(goPackage)
		if err := decoder.Decode(p); err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		all = append(all, p)
	}
	return all, nil
}

// folder is the package's folder, relative to the module's root.
func (p *goPackage) folder() string {
	return cmp.Or(strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, p.Module.Path), "/"), ".")
}

// label is how IDs and reports name the package.
func (p *goPackage) label() string {
	if p.folder() == "." {
		return p.Name
	}
	return p.folder()
}

func (p *goPackage) tested() bool { return len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 }

// tests reports whether the package's tests import the package with the path.
func (p *goPackage) tests(importPath string) bool {
	return slices.Contains(p.TestImports, importPath) || slices.Contains(p.XTestImports, importPath)
}

// A sourceFile is a file of a mutated package.
type sourceFile struct {
	pkg    *goPackage
	path   string
	source string
	fset   *token.FileSet
}

func (f *sourceFile) offset(p token.Pos) int { return f.fset.Position(p).Offset }

// A function is a declared function or method with a body.
type function struct {
	file *sourceFile
	decl *ast.FuncDecl
	name string // with the receiver's type: Breaker.Do
}

// begin and end are the offsets of the body, without its braces.
func (f *function) begin() int { return f.file.offset(f.decl.Body.Lbrace) + 1 }
func (f *function) end() int   { return f.file.offset(f.decl.Body.Rbrace) }

// text returns the source of a part of the function, or nothing if there is no such part.
func (f *function) text(n ast.Node) string {
	if n == (*ast.FieldList)(nil) {
		return ""
	}
	return f.file.source[f.file.offset(n.Pos()):f.file.offset(n.End())]
}

// functions parses the package and returns its functions in the order of the source.
func functions(p *goPackage, read func(name string) ([]byte, error)) (all []*function, err error) {
	for _, name := range p.GoFiles {
		source, err := read(filepath.Join(p.Dir, name))
		if err != nil {
			return nil, err
		}
		f := &sourceFile{p, filepath.Join(p.Dir, name), string(source), token.NewFileSet()}
		tree, err := parser.ParseFile(f.fset, f.path, source, 0)
		if err != nil {
			return nil, err
		}
		for _, d := range tree.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil {
				fn := &function{f, d, d.Name.Name}
				if d.Recv != nil {
					receiver, _, _ := strings.Cut(fn.text(d.Recv.List[0].Type), "[")
					fn.name = strings.TrimPrefix(receiver, "*") + "." + fn.name
				}
				all = append(all, fn)
			}
		}
	}
	return all, nil
}

// An edit replaces a part of a file.
type edit struct {
	from, to int // offsets
	text     string
}

// A mutant is a function with a fault.
type mutant struct {
	*function
	id            string // package/function/kind/name
	kind          string
	edits         []edit // in order
	before, after string // what is replaced by what, on one line each
}

func newMutant(f *function, kind, name string, edits []edit, before, after string) *mutant {
	return &mutant{f, path.Join(f.file.pkg.label(), f.name, kind, name), kind, edits, oneLine(before), oneLine(after)}
}

func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 100 {
		text = string(r[:97]) + "..."
	}
	return text
}

func (m *mutant) change() string { return m.before + "  ->  " + m.after }

// position is the file, relative to the module's root, and line of the first edit.
func (m *mutant) position() string {
	return fmt.Sprintf("%s:%d", path.Join(m.file.pkg.folder(), filepath.Base(m.file.path)), m.file.line(m.edits[0].from))
}

func (f *sourceFile) line(offset int) int { return 1 + strings.Count(f.source[:offset], "\n") }

// apply returns the part of the file between the offsets, with the fault.
func (m *mutant) apply(from, to int) string {
	var b strings.Builder
	for _, e := range m.edits {
		b.WriteString(m.file.source[from:e.from] + e.text)
		from = e.to
	}
	return b.String() + m.file.source[from:to]
}

// selector is the variable of a mutated package that says which mutant is on.
const selector = "mutantThatIsOn"

// combined returns the text of the file with all its mutants: each function begins with a switch
// whose cases call copies of its body, with one fault each. A case's number is the mutant's index.
// The compiler takes each copy for a file with this number in its name, so that it complains about
// the mutant. The copies are closures, so that a name that a body declares again stays the same
// variable. A function that is deferred itself and recovers would no longer do so; this module has
// none.
func combined(f *sourceFile, mutants []*mutant) string {
	cases := map[*function]string{}
	for i, m := range mutants {
		if m == nil || m.file != f {
			continue
		}
		before, after := "", "return"
		if r := m.decl.Type.Results; r != nil {
			before, after = "return", ""
		}
		cases[m.function] += fmt.Sprintf("case %d:\n%s func() %s {\n//line mutant%d.go:1\n%s\n}()\n%s\n",
			i, before, m.text(m.decl.Type.Results), i, m.apply(m.begin(), m.end()), after)
	}
	var b strings.Builder
	from := 0
	byPosition := func(a, b *function) int { return cmp.Compare(a.begin(), b.begin()) }
	for _, fn := range slices.SortedFunc(maps.Keys(cases), byPosition) {
		fmt.Fprintf(&b, "%s\nswitch %s {\n%s}\n", f.source[from:fn.begin()], selector, cases[fn])
		fmt.Fprintf(&b, "//line %s:%d\n", filepath.Base(f.path), f.line(fn.begin()))
		from = fn.begin()
	}
	return b.String() + f.source[from:]
}
