//go:build !race

// The race detector has nothing to find here, and to build d2 for it takes a minute.

package check

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/effector-go/resilience/docs/check/internal/draw"
)

// TestDiagramsAreThoseOfTheirSources draws each diagram again and compares.
func TestDiagramsAreThoseOfTheirSources(t *testing.T) {
	dir := filepath.Join(root, "docs", "diagrams")
	sources, err := filepath.Glob(filepath.Join(dir, "*.d2"))
	if err != nil || len(sources) == 0 {
		t.Fatalf("found %d sources: %v", len(sources), err)
	}
	drawn := map[string]bool{}
	for _, source := range sources {
		name := strings.TrimSuffix(source, ".d2") + ".svg"
		drawn[name] = true
		want, err := draw.File(t.Context(), source)
		if err != nil {
			t.Error(err)
			continue
		}
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not that of its source (%v): go run ./docs/check/diagrams", name, err)
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
