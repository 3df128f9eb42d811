package resiliencetest_test

import (
	"os"
	"strings"
	"testing"
)

// TestExamplesMatchTestingPage checks that each test function on docs/testing.md is in
// example_test.go, verbatim.
func TestExamplesMatchTestingPage(t *testing.T) {
	page, err := os.ReadFile("../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	run, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, block := range strings.Split(string(page), "```go\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if !strings.HasPrefix(block, "func Test") {
			continue
		}
		shown++
		if !strings.Contains(string(run), "\n"+block) {
			t.Errorf("not in example_test.go:\n%s", block)
		}
	}
	if shown < 5 {
		t.Errorf("found %d test functions, want at least 5", shown)
	}
}
