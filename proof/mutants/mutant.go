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
	"io"
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

// imports reports whether the package's tests import the other one.
func (p *goPackage) imports(other *goPackage) bool {
	return slices.Contains(p.TestImports, other.ImportPath) || slices.Contains(p.XTestImports, other.ImportPath)
}

// list returns the packages that match the patterns.
func list(ctx context.Context, dir string, patterns ...string) (all []*goPackage, err error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-json"}, patterns...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(goPackage)
		switch err := decoder.Decode(p); err {
		case nil:
			all = append(all, p)
		case io.EOF:
			return all, nil
		default:
			return nil, fmt.Errorf("go list: %w", err)
		}
	}
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
				all = append(all, &function{f, d, receiver(d) + d.Name.Name})
			}
		}
	}
	return all, nil
}

// receiver returns the name of the method's type and a dot, or nothing for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	typ := d.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t.Name + "."
		default:
			return ""
		}
	}
}

// An edit replaces a part of a file.
type edit struct {
	from, to int // offsets
	text     string
}

// apply returns the part of the source between from and to with the edits, which must be in order.
func apply(source string, from, to int, edits []edit) string {
	var b strings.Builder
	for _, e := range edits {
		b.WriteString(source[from:e.from] + e.text)
		from = e.to
	}
	b.WriteString(source[from:to])
	return b.String()
}

// A mutant is a function with a fault.
type mutant struct {
	id            string // package/function/kind/name
	function      *function
	kind          string
	edits         []edit
	before, after string // what is replaced by what, on one line each
}

func newMutant(f *function, kind, name string, edits []edit, before, after string) *mutant {
	id := path.Join(f.file.pkg.label(), f.name, kind, name)
	return &mutant{id, f, kind, edits, oneLine(before), oneLine(after)}
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
	f := m.function.file
	return fmt.Sprintf("%s:%d", path.Join(f.pkg.folder(), filepath.Base(f.path)), 1+strings.Count(f.source[:m.edits[0].from], "\n"))
}

// alone reports whether the mutant can't be in one program with others (see [switched]): the function has a label, or its body
// declares a variable again that is a parameter or result, which in a case of a switch would be another variable.
func (m *mutant) alone() (yes bool) {
	names := map[string]bool{}
	d := m.function.decl
	ast.Inspect(d.Body, func(n ast.Node) bool {
		_, label := n.(*ast.LabeledStmt)
		yes = yes || label
		return !yes
	})
	for _, list := range []*ast.FieldList{d.Recv, d.Type.Params, d.Type.Results} {
		if list != nil {
			for _, field := range list.List {
				for _, name := range field.Names {
					names[name.Name] = true
				}
			}
		}
	}
	for _, s := range d.Body.List {
		if s, ok := s.(*ast.AssignStmt); ok && s.Tok == token.DEFINE {
			for _, left := range s.Lhs {
				if name, ok := left.(*ast.Ident); ok && name.Name != "_" && names[name.Name] {
					return true
				}
			}
		}
	}
	return yes
}

// selector is the variable of a mutated package that says which mutant is on. No number means that none is.
const selector = "mutantThatIsOn"

// missingReturn is what a mutant panics with if it returns no results. Without the other mutants it would not compile.
const missingReturn = "mutants: missing return"

// lines says which lines of a file are a mutant's.
type lines struct {
	from, to int
	mutant   *mutant
}

// switched returns the text of the file with all its mutants: each function begins with a switch whose cases are copies of its
// body, with one fault each. A case's number is the mutant's index.
func switched(f *sourceFile, mutants []*mutant) (text string, where []lines) {
	byFunction := map[*function][]int{}
	var order []*function
	for i, m := range mutants {
		if m.function.file == f {
			if byFunction[m.function] == nil {
				order = append(order, m.function)
			}
			byFunction[m.function] = append(byFunction[m.function], i)
		}
	}
	slices.SortFunc(order, func(a, b *function) int { return cmp.Compare(a.decl.Pos(), b.decl.Pos()) })

	var b strings.Builder
	line, from := 1, 0
	write := func(text string) {
		b.WriteString(text)
		line += strings.Count(text, "\n")
	}
	for _, fn := range order {
		write(f.source[from:fn.begin()] + "\nswitch " + selector + " {\n")
		for _, i := range byFunction[fn] {
			first := line
			write(fmt.Sprintf("case %d:\n", i) + apply(f.source, fn.begin(), fn.end(), mutants[i].edits))
			if fn.decl.Type.Results == nil {
				write("\nreturn\n")
			} else {
				write(fmt.Sprintf("\npanic(%q)\n", missingReturn))
			}
			where = append(where, lines{first, line - 1, mutants[i]})
		}
		write("}\n")
		from = fn.begin()
	}
	write(f.source[from:])
	return b.String(), where
}

// alternative returns the text of the mutant's file with only this fault.
func (m *mutant) alternative() string {
	source := m.function.file.source
	return apply(source, 0, len(source), m.edits)
}
