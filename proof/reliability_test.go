package proof

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// named matches a test, benchmark, fuzz target, or example that a page names as code. That the test
// exists is checked by docs/check.
var named = regexp.MustCompile("`((?:Test|Benchmark|Fuzz|Example)[A-Z_][A-Za-z0-9_]*)`")

// TestReliabilityPageNamesTestOfEveryPromise reads the tables of docs/internals/reliability.md. A row
// may name a folder instead, if all of its tests are about the promise.
func TestReliabilityPageNamesTestOfEveryPromise(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "internals", "reliability.md"))
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
				t.Errorf("row names no test: %s", line)
			}
		}
	}
	if promises < 20 {
		t.Errorf("found %d promises, want at least 20", promises)
	}
}
