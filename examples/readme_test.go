// Package examples_test checks the program on the README.
package examples_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fence matches a fenced code block: its language and its text.
var fence = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// openTime matches how long the breaker stays open, which depends on how fast the program runs.
var openTime = regexp.MustCompile(`retry in [\d.]+m?s`)

func TestReadmeProgramPrintsWhatReadmeSays(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := fence.FindAllStringSubmatch(string(readme), -1)
	program, want := "", ""
	for i, block := range blocks {
		if block[1] == "go" && strings.HasPrefix(block[2], "package main\n") {
			if program != "" {
				t.Error("README.md has several programs, want one")
			}
			program = block[2]
			if i+1 < len(blocks) {
				want = blocks[i+1][2]
			}
		}
	}
	if program == "" || want == "" {
		t.Fatal("README.md has no program with a block after it that shows what it prints")
	}
	if lines := strings.Count(program, "\n"); lines > 25 {
		t.Errorf("the program has %d lines, want 25 at most", lines)
	}

	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program.exe")
	if err := os.WriteFile(source, []byte(program), 0o666); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var stderr bytes.Buffer
	run := exec.CommandContext(t.Context(), binary)
	run.Stderr = &stderr
	got, err := run.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("the program failed: %v\n%s", err, &stderr)
	}
	if normalize(string(got)) != normalize(want) {
		t.Errorf("the program printed\n%swant\n%s", got, want)
	}
}

func normalize(output string) string { return openTime.ReplaceAllString(output, "retry in TIME") }
