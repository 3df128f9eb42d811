//go:build !windows

package program

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"testing"
)

// On Windows, a process can't be interrupted.
func TestMainExitsWith130AfterInterrupt(t *testing.T) {
	example := exec.CommandContext(t.Context(), os.Args[0])
	example.Env = append(os.Environ(), asProgram+"=1")
	stdout, err := example.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := example.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "started" {
		t.Errorf("first line %q, want %q", lines.Text(), "started")
	}
	if err := example.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "what it has so far" {
		t.Errorf("line after the interrupt %q, want %q", lines.Text(), "what it has so far")
	}
	var exit *exec.ExitError
	if err := example.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("got %v, want exit status 130", err)
	}
}
