// Command diagrams draws the diagrams of the documentation: an SVG beside each d2 source in docs/diagrams. It takes the names
// of sources to draw only these.
//
//	go run ./docs/check/diagrams
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/effector-go/resilience/docs/check/internal/draw"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
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
		return fmt.Errorf("found no docs/diagrams/*.d2: must run in the repository's root")
	}
	for _, source := range sources {
		svg, err := draw.File(ctx, source)
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
