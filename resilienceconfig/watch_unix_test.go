//go:build unix

package resilienceconfig

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestLoadDoesNotOpenPipe would block if it did.
func TestLoadDoesNotOpenPipe(t *testing.T) { // rule 15
	path := filepath.Join(t.TempDir(), "p.yaml")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, Options{}); err == nil || !strings.HasSuffix(err.Error(), "p.yaml: is a pipe, must be a regular file") {
		t.Errorf("got %v, want an error of a pipe", err)
	}
	if _, err := Load(os.DevNull, Options{}); err == nil || !strings.HasSuffix(err.Error(), ": is a device, must be a regular file") {
		t.Errorf("got %v, want an error of a device", err)
	}
}
