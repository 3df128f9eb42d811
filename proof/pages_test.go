package proof

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = ".."

// functions are the names of all functions of the repository's tests.
func functions(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := entry.Name(); entry.IsDir() && (base == "testdata" || base != ".." && strings.HasPrefix(base, ".")) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
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

// named are the tests, benchmarks, fuzz targets and examples that a text names as code.
var named = regexp.MustCompile("`((?:Test|Benchmark|Fuzz|Example)[A-Z_][A-Za-z0-9_]*)`")

func TestEveryTestThatAPageNamesIsThere(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	internals, err := filepath.Glob(filepath.Join(root, "docs", "internals", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	there, count := functions(t), 0
	for _, page := range append(pages, internals...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range named.FindAllSubmatch(text, -1) {
			if count++; !there[string(name[1])] {
				t.Errorf("%s: no test is named %s", page, name[1])
			}
		}
	}
	if count < 50 {
		t.Errorf("found %d names", count)
	}
}

// TestEveryPromiseNamesItsTest, in the tables of docs/internals/reliability.md. One may name a folder whose tests are all about it.
func TestEveryPromiseNamesItsTest(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "internals", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	promises := 0
	for _, section := range strings.Split(string(text), "\n## ") {
		if !strings.HasPrefix(section, "Promises") {
			continue
		}
		for line := range strings.Lines(section) {
			if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| promise") || strings.HasPrefix(line, "| ---") {
				continue
			}
			if promises++; !named.MatchString(line) && !strings.Contains(line, "](../../proof/others/)") {
				t.Errorf("no test is named: %s", line)
			}
		}
	}
	if promises < 20 {
		t.Errorf("found %d promises", promises)
	}
}
