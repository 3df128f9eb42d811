package check

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/golangci/misspell"
)

// TestSpellingIsAmerican reads every page, every Go file (its names are words too), and every
// diagram's source.
func TestSpellingIsAmerican(t *testing.T) {
	spelling := misspell.New()
	spelling.AddRuleList(misspell.DictAmerican)
	spelling.Compile()
	files := 0
	err := walk(func(path string) error {
		if !slices.Contains([]string{".md", ".go", ".d2", ".tmpl"}, filepath.Ext(path)) {
			return nil
		}
		files++
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		_, mistakes := spelling.Replace(string(text))
		for _, m := range mistakes {
			t.Errorf("%s:%d: %q, want %q", path, m.Line, m.Original, m.Corrected)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Errorf("read %d files", files)
	}
}
