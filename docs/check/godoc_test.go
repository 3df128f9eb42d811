package check

import (
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docLink matches [Name], [Type.Member], [package.Name], or [package.Type.Member] in a doc comment,
// with or without a star.
var docLink = regexp.MustCompile(`(?:^|[^\w\]])\[\*?([a-z]\w*\.)?([A-Z]\w*)(\.[A-Z]\w*)?\](?:[^(\w]|$)`)

// TestDocLinksResolve looks up what the doc comments of the root module's packages link to.
func TestDocLinksResolve(t *testing.T) {
	compiled := map[string]string{}
	for line := range strings.Lines(goList(t, root, "-e", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", "./...")) {
		if importPath, file, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			compiled[importPath] = file
		}
	}
	imports := importer.ForCompiler(token.NewFileSet(), "gc", func(importPath string) (io.ReadCloser, error) {
		return os.Open(compiled[importPath])
	})
	links := 0
	list := goList(t, root, "-f", `{{.ImportPath}} {{.Dir}} {{join .Imports " "}}`, "./...")
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		own, dir := fields[0], fields[1]
		if strings.Contains(own, "/internal/") || compiled[own] == "" {
			continue
		}
		byName := map[string]string{"": own, path.Base(own) + ".": own, "errors.": "errors", "context.": "context"}
		for _, importPath := range fields[2:] {
			byName[packageName(importPath)+"."] = importPath
		}
		for _, link := range linksIn(t, dir) {
			links++
			importPath, ok := byName[link.pkg]
			if !ok || compiled[importPath] == "" {
				t.Errorf("%s: [%s]: the package is not imported", link.at, link.text)
				continue
			}
			pkg, err := imports.Import(importPath)
			if err != nil {
				t.Fatal(err)
			}
			object := pkg.Scope().Lookup(link.name)
			if object == nil {
				t.Errorf("%s: [%s]: there is no such name", link.at, link.text)
				continue
			}
			if link.member != "" {
				if member, _, _ := types.LookupFieldOrMethod(object.Type(), true, pkg, link.member); member == nil {
					t.Errorf("%s: [%s]: there is no such field or method", link.at, link.text)
				}
			}
		}
	}
	if links < 100 {
		t.Errorf("found %d links", links)
	}
}

// A link is a link in a doc comment.
type link struct {
	at                      token.Position
	text, pkg, name, member string
}

// linksIn returns the links in the comments of a package's files. It skips indented lines: they are
// code.
func linksIn(t *testing.T, dir string) (found []link) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range file.Comments {
			for _, comment := range group.List {
				if strings.HasPrefix(comment.Text, "//\t") {
					continue
				}
				for _, match := range docLink.FindAllStringSubmatch(comment.Text, -1) {
					found = append(found, link{
						at:   fset.Position(comment.Pos()),
						text: match[1] + match[2] + match[3],
						pkg:  match[1], name: match[2], member: strings.TrimPrefix(match[3], "."),
					})
				}
			}
		}
	}
	return found
}
