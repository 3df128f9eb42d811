package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/effector-go/resilience/docs/check/internal/diagram"
)

func TestDiagramsNameHashOfTheirSource(t *testing.T) {
	dir := filepath.Join(root, "docs", "diagrams")
	sources, err := filepath.Glob(filepath.Join(dir, "*.d2"))
	if err != nil || len(sources) == 0 {
		t.Fatalf("%d sources: %v", len(sources), err)
	}
	drawn := map[string]bool{}
	for _, source := range sources {
		name := strings.TrimSuffix(source, ".d2") + ".svg"
		drawn[name] = true
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		svg, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if !diagram.Signed(svg, text) {
			t.Errorf("%s was drawn from another source: go run ./docs/check/diagrams %s",
				name, strings.TrimPrefix(source, "../../"))
		}
	}
	svgs, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range svgs {
		if !drawn[name] {
			t.Errorf("%s has no source", name)
		}
	}
}

func TestSignedRejectsChangedSource(t *testing.T) {
	source, svg := []byte("a -> b\n"), []byte("<svg></svg>\n\n")
	signed := diagram.Sign(svg, source)
	if !diagram.Signed(signed, source) {
		t.Errorf("%s: not signed with its own source", signed)
	}
	if !diagram.Signed(signed, []byte("a -> b\r\n")) {
		t.Error("the source has other line ends in a checkout on Windows: not signed")
	}
	for name, other := range map[string][]byte{"source changed": signed, "unsigned": svg, "empty": nil} {
		if diagram.Signed(other, []byte("a -> c\n")) {
			t.Errorf("%s: signed", name)
		}
	}
}
