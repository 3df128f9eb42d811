package check

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark/ast"
)

// TestPageLinksResolve looks for the file and the heading of each link within the repository.
// Links to other sites are only parsed: a test needs no network.
func TestPageLinksResolve(t *testing.T) {
	all := pages(t)
	links := 0
	for _, p := range all {
		p.each(func(n ast.Node) {
			var to string
			switch n := n.(type) {
			case *ast.Link:
				to = string(n.Destination)
			case *ast.Image:
				to = string(n.Destination)
				if p.words(n) == "" {
					t.Errorf("%s: the image %s has no description", p.path, to)
				}
			case *ast.AutoLink:
				to = string(n.URL(p.source))
			default:
				return
			}
			links++
			if problem := follow(all, p, to); problem != "" {
				t.Errorf("%s: link to %q: %s", p.path, to, problem)
			}
		})
	}
	if links < 50 {
		t.Errorf("found %d links", links)
	}
}

// follow returns what is wrong with a link of the page, or "".
func follow(all map[string]*page, from *page, to string) (problem string) {
	link, err := url.Parse(to)
	switch {
	case err != nil:
		return err.Error()
	case link.Scheme == "https" || link.Scheme == "http":
		if !strings.Contains(link.Host, ".") || strings.ContainsAny(to, " \t<>\"") {
			return "not an address of a page"
		}
		return ""
	case link.Scheme != "" || link.Host != "":
		return "neither in the repository nor on the web"
	case strings.HasPrefix(link.Path, "/"):
		return "must be relative to the page"
	}
	target := from.path
	if link.Path != "" {
		target = path.Join(path.Dir(from.path), link.Path)
		if strings.HasPrefix(target, "..") {
			return "leads out of the repository"
		}
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(target))); err != nil {
			return "no such file"
		}
	}
	if link.Fragment == "" {
		return ""
	}
	page, ok := all[target]
	if !ok {
		return "not a page with headings"
	}
	if !anchors(page)[link.Fragment] {
		return "no such heading"
	}
	return ""
}

// anchors returns the names that GitHub gives to the headings of a page.
func anchors(p *page) map[string]bool {
	names := map[string]bool{}
	p.each(func(n ast.Node) {
		if n.Kind() != ast.KindHeading {
			return
		}
		base := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsNumber(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, p.words(n))
		name := base
		for i := 1; names[name]; i++ {
			name = fmt.Sprintf("%s-%d", base, i)
		}
		names[name] = true
	})
	return names
}
