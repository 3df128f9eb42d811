package check

import (
	"fmt"
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

	markdown "github.com/yuin/goldmark/ast"
	tables "github.com/yuin/goldmark/extension/ast"
)

// policies are the packages whose pages have the common outline.
var policies = []string{
	"adaptive", "breaker", "budget", "bulkhead", "debounce", "hedge", "ratelimit", "retry", "share", "shed", "throttle", "timeout",
}

var outline = []string{"Usage", "Fields", "Errors", "Events", "Cost", "Common mistakes", "Sources"}

func TestPolicyPagesHaveCommonOutline(t *testing.T) {
	all := pages(t)
	for _, name := range policies {
		t.Run(name, func(t *testing.T) {
			p := all["docs/"+name+".md"]
			if p == nil {
				t.Fatalf("no page docs/%s.md", name)
			}
			var headings []string
			diagram := false
			p.each(func(n markdown.Node) {
				switch n := n.(type) {
				case *markdown.Heading:
					if n.Level == 2 {
						headings = append(headings, p.words(n))
					}
				case *markdown.Image:
					diagram = diagram || string(n.Destination) == "diagrams/"+name+".svg"
				}
			})
			common := slices.DeleteFunc(slices.Clone(headings), func(h string) bool { return !slices.Contains(outline, h) })
			if !slices.Equal(common, outline) {
				t.Errorf("headings are %q, want %q among them, in this order", headings, outline)
			}
			if !diagram {
				t.Errorf("does not show diagrams/%s.svg", name)
			}
		})
	}
}

var fieldsCell = regexp.MustCompile(`^[A-Z]\w*$`)

// TestFieldTablesMatchConfig compares the tables whose first column is "field" with the exported
// structs of the package: each field of a Config must be in a table, and each name in a table must
// be a field.
func TestFieldTablesMatchConfig(t *testing.T) {
	for _, p := range pages(t) {
		dir := strings.TrimSuffix(strings.TrimPrefix(p.path, "docs/"), ".md")
		switch dir {
		case "config", "grpc", "http", "sql":
			dir = "resilience" + dir
		case "observability":
			dir = "observe"
		case "testing":
			dir = "resiliencetest"
		}
		if info, err := os.Stat(filepath.Join(root, dir)); !strings.HasPrefix(p.path, "docs/") || err != nil || !info.IsDir() {
			continue
		}
		config, other, err := fields(filepath.Join(root, dir))
		if err != nil {
			t.Error(err)
			continue
		}
		listed := map[string]bool{}
		p.each(func(n markdown.Node) {
			table, ok := n.(*tables.Table)
			if !ok || p.words(table.FirstChild().FirstChild()) != "field" {
				return
			}
			for row := table.FirstChild().NextSibling(); row != nil; row = row.NextSibling() {
				for _, name := range strings.Split(p.words(row.FirstChild()), ", ") {
					listed[name] = true
					if fieldsCell.MatchString(name) && !config[name] && !other[name] {
						t.Errorf("%s: there is no field %s", p.path, name)
					}
				}
			}
		})
		for name := range config {
			if !listed[name] {
				t.Errorf("%s: the field %s is in no table", p.path, name)
			}
		}
	}
}

// fields returns the names of the exported fields of a package's structs: those of structs whose
// name ends in Config, and the others.
func fields(dir string) (config, other map[string]bool, err error) {
	config, other = map[string]bool{}, map[string]bool{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	isSource := func(entry fs.DirEntry) bool {
		return strings.HasSuffix(entry.Name(), ".go") && !strings.HasSuffix(entry.Name(), "_test.go")
	}
	for _, entry := range entries {
		if !isSource(entry) {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, entry.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", dir, err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !spec.Name.IsExported() {
				return true
			}
			fields, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			set := other
			if strings.HasSuffix(spec.Name.Name, "Config") {
				set = config
			}
			for _, field := range fields.Fields.List {
				for _, name := range field.Names {
					if name.IsExported() {
						set[name.Name] = true
					}
				}
			}
			return true
		})
	}
	return config, other, nil
}

func TestPagesShowEveryPicture(t *testing.T) {
	shown := map[string]bool{}
	for _, p := range pages(t) {
		p.each(func(n markdown.Node) {
			if image, ok := n.(*markdown.Image); ok {
				shown[path.Join(path.Dir(p.path), string(image.Destination))] = true
			}
		})
	}
	err := walk(func(file string) error {
		if strings.HasPrefix(file, "docs/") && strings.HasSuffix(file, ".svg") && !shown[file] {
			t.Errorf("no page shows %s", file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
