package resilience_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// packages parses every package of the repository, including those of nested modules, by folder. It
// leaves out internal and main packages.
func packages(t *testing.T) map[string]*doc.Package {
	t.Helper()
	files := map[string][]*ast.File{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			if path != "." && (name == "internal" || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
		case strings.HasSuffix(name, ".go"):
			file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			files[filepath.Dir(path)] = append(files[filepath.Dir(path)], file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	parsed := map[string]*doc.Package{}
	for dir, files := range files {
		importable := false
		for _, file := range files {
			name := fset.Position(file.Pos()).Filename
			importable = importable || !strings.HasSuffix(name, "_test.go") && file.Name.Name != "main"
		}
		if !importable { // a program, or a folder that contains only tests
			continue
		}
		pkg, err := doc.NewFromFiles(fset, files, dir)
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		parsed[dir] = pkg
	}
	return parsed
}

func TestDocCommentsCoverExportedNames(t *testing.T) {
	for dir, pkg := range packages(t) {
		undocumented := func(text string, names ...string) {
			if strings.TrimSpace(text) == "" {
				t.Errorf("%s: %s has no doc comment", dir, strings.Join(names, ", "))
			}
		}
		undocumented(pkg.Doc, "package "+pkg.Name)
		values := func(list []*doc.Value) {
			for _, value := range list {
				for _, spec := range value.Decl.Specs { // a comment on the group, or one on each name
					spec := spec.(*ast.ValueSpec)
					undocumented(value.Doc+spec.Doc.Text()+spec.Comment.Text(), value.Names...)
				}
			}
		}
		functions := func(prefix string, list []*doc.Func) {
			for _, f := range list {
				undocumented(f.Doc, prefix+f.Name)
			}
		}
		values(pkg.Consts)
		values(pkg.Vars)
		functions("", pkg.Funcs)
		for _, typ := range pkg.Types {
			undocumented(typ.Doc, typ.Name)
			values(typ.Consts)
			values(typ.Vars)
			functions("", typ.Funcs)
			var plain []*doc.Func
			for _, method := range typ.Methods {
				// The names of an error's standard methods say everything.
				switch method.Name {
				case "Error", "Unwrap", "Is", "Timeout", "String":
				default:
					plain = append(plain, method)
				}
			}
			functions(typ.Name+".", plain)
		}
	}
}

func TestPackagesHaveExamples(t *testing.T) {
	for dir, pkg := range packages(t) {
		top := strings.Split(filepath.ToSlash(dir), "/")[0]
		if top == "bench" || top == "docs" || top == "proof" { // not for import
			continue
		}
		matches, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, name := range matches {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(text), "\nfunc Example")
		}
		if !found {
			t.Errorf("%s: package %s has no Example", dir, pkg.Name)
		}
	}
}
