package check

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testName matches a test, benchmark, fuzz target, or example that a page names as code.
var testName = regexp.MustCompile("`((?:Test|Benchmark|Fuzz|Example)[A-Z_][A-Za-z0-9_]*)`")

func TestPagesNameExistingTests(t *testing.T) {
	exist, count := testFunctions(t), 0
	for _, p := range pages(t) {
		for _, name := range testName.FindAllSubmatch(p.source, -1) {
			if count++; !exist[string(name[1])] {
				t.Errorf("%s: there is no test %s", p.path, name[1])
			}
		}
	}
	if count < 50 {
		t.Errorf("found %d names", count)
	}
}

// testFunctions returns the names of all functions in test files of the repository.
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := walk(func(path string) error {
		if !strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testdata/") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				found[f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
