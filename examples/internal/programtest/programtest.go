// Package programtest runs examples in tests.
package programtest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/effector-go/resilience/examples/internal/program"
)

// A Result is how a run of an example ended, and what it printed.
type Result struct {
	Status         int // the exit status
	Stdout, Stderr string
}

// Run runs the example with the arguments until it ends or ctx does.
func Run(ctx context.Context, name string, run program.Func, args ...string) Result {
	var stdout, stderr bytes.Buffer
	status := program.Run(ctx, name, run, args, &stdout, &stderr)
	return Result{status, stdout.String(), stderr.String()}
}

// RunUntil is Run, but interrupts the example when it prints the text with one Write, on stdout or
// stderr.
func RunUntil(ctx context.Context, text, name string, run program.Func, args ...string) Result {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stdout, stderr := &watcher{text: text, found: cancel}, &watcher{text: text, found: cancel}
	status := program.Run(ctx, name, run, args, stdout, stderr)
	return Result{status, stdout.String(), stderr.String()}
}

// A watcher is a buffer that calls found when the text is written.
type watcher struct {
	bytes.Buffer
	text  string
	found func()
}

func (w *watcher) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.found()
	}
	return w.Buffer.Write(p)
}

// CheckFiles checks that the example has written the files into the folder, and that its output names
// them.
func CheckFiles(t *testing.T, folder, stdout string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(folder, name)
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("%s: got %v, %v, want a file", name, info, err)
		}
		if !strings.Contains(stdout, "wrote "+path+"\n") {
			t.Errorf("the output doesn't name %s:\n%s", path, stdout)
		}
	}
}
