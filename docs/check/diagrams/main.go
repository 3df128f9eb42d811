// Command diagrams draws the diagrams of the documentation: for each docs/diagrams/*.d2 an SVG next
// to it. Arguments name the sources to draw; without arguments it draws all.
//
//	go run ./docs/check/diagrams
//
// It runs a fixed version of d2 with go run, which downloads and compiles it the first time.
// So neither this module nor any other requires d2, which brings a JavaScript interpreter.
//
// Each SVG ends in a comment that names the hash of its source.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/effector-go/resilience/docs/check/internal/diagram"
)

const d2 = "oss.terrastruct.com/d2@v0.7.2"

// options draw for light and dark pages, with text of the same size as the page's.
var options = []string{"--layout=dagre", "--theme=0", "--dark-theme=200", "--pad=16", "--scale=0.75"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "diagrams:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, sources []string) error {
	if len(sources) == 0 {
		var err error
		if sources, err = filepath.Glob("docs/diagrams/*.d2"); err != nil {
			return err
		}
	}
	if len(sources) == 0 {
		return errors.New("no docs/diagrams/*.d2: run this in the root of the repository")
	}
	for _, source := range sources {
		svg, err := draw(ctx, source)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(source, ".d2") + ".svg"
		if err := os.WriteFile(name, svg, 0o666); err != nil {
			return err
		}
		fmt.Printf("wrote %s, %d KiB\n", name, (len(svg)+1023)/1024)
	}
	return nil
}

// draw returns the SVG of a source, signed with the source's hash.
func draw(ctx context.Context, source string) ([]byte, error) {
	text, err := os.ReadFile(source)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "diagrams")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	svg := filepath.Join(dir, "diagram.svg")
	args := append([]string{"run", d2}, options...)
	if out, err := exec.CommandContext(ctx, "go", append(args, source, svg)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", source, err, bytes.TrimSpace(out))
	}
	drawn, err := os.ReadFile(svg)
	if err != nil {
		return nil, err
	}
	return diagram.Sign(drawn, text), nil
}
