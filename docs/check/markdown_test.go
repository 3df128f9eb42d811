package check

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// root is the folder of the repository.
const root = "../.."

// A page is a Markdown file.
type page struct {
	path   string // from the root of the repository, with slashes
	source []byte
	tree   ast.Node
}

// line returns the number of the line that contains the byte.
func (p *page) line(offset int) int { return 1 + bytes.Count(p.source[:offset], []byte("\n")) }

// pages reads every page of the repository and returns them by path.
func pages(t *testing.T) map[string]*page {
	t.Helper()
	markdown := goldmark.New(goldmark.WithExtensions(extension.GFM))
	found := map[string]*page{}
	err := walk(func(path string) error {
		if !strings.HasSuffix(path, ".md") {
			return nil
		}
		source, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		found[path] = &page{path, source, markdown.Parser().Parse(text.NewReader(source))}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found["README.md"] == nil || found["docs/breaker.md"] == nil {
		t.Fatalf("%d pages, README.md or docs/breaker.md not among them", len(found))
	}
	return found
}

// walk calls visit with the path of each file, from the root of the repository, with slashes. It
// skips folders such as .git.
func walk(visit func(path string) error) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case entry.IsDir():
			return nil
		}
		path, err = filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(path))
	})
}

// each calls visit with every node of the page.
func (p *page) each(visit func(ast.Node)) {
	ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // the function returns no error
		if entering {
			visit(n)
		}
		return ast.WalkContinue, nil
	})
}

// words returns the text of a node without its markup.
func (p *page) words(n ast.Node) string {
	var b strings.Builder
	ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.Text:
			if entering {
				b.Write(n.Segment.Value(p.source))
				if n.SoftLineBreak() {
					b.WriteByte(' ')
				}
			}
		case *ast.String:
			if entering {
				b.Write(n.Value)
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}
