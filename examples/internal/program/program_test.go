package program

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// asProgram is the environment variable that makes the test binary an example.
const asProgram = "RESILIENCE_EXAMPLE"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		Main("waiter", func(ctx context.Context, _ []string, stdout, _ io.Writer) error {
			fmt.Fprintln(stdout, "started")
			<-ctx.Done()
			fmt.Fprintln(stdout, "what it has so far")
			return nil
		})
	}
	os.Exit(m.Run())
}

func TestRunReturnsExitStatus(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name   string
		ctx    context.Context
		err    error
		status int
		stderr string
	}{
		{"success", t.Context(), nil, 0, ""},
		{"help", t.Context(), flag.ErrHelp, 0, ""},
		{"error", t.Context(), errors.New("disk full"), 1, "demo: disk full\n"},
		{"usage", t.Context(), Usagef("-n is %d", 7), 2, "demo: -n is 7\n"},
		{"wrapped usage", t.Context(), fmt.Errorf("flags: %w", Usagef("bad")), 2, "demo: flags: bad\n"},
		{"interrupted", canceled, nil, 130, "demo: interrupted\n"},
		{"interrupted with the context's error", canceled, fmt.Errorf("call: %w", context.Canceled), 130, "demo: interrupted\n"},
		{"error after an interrupt", canceled, errors.New("disk full"), 1, "demo: disk full\n"},
		{"a canceled call without an interrupt", t.Context(), context.Canceled, 1, "demo: context canceled\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stderr bytes.Buffer
			run := func(context.Context, []string, io.Writer, io.Writer) error { return test.err }
			if status := Run(test.ctx, "demo", run, nil, io.Discard, &stderr); status != test.status || stderr.String() != test.stderr {
				t.Errorf("status %d and %q, want %d and %q", status, &stderr, test.status, test.stderr)
			}
		})
	}
}

func TestFlagsParseReportsErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want string }{
		{"-unknown", "flag provided but not defined: -unknown (-help lists the flags)"},
		{"-n many", `invalid value "many" for flag -n`},
		{"argument", `unexpected argument "argument" (-help lists the flags)`},
		{"-out=", "must name a folder"},
		{"-out " + file, "-out: "},
	} {
		flags := NewFlags("demo")
		flags.Int("n", 1, "a `number`")
		flags.Folder()
		var help bytes.Buffer
		err := flags.Parse(strings.Fields(test.args), &help)
		var usage *UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), test.want) || help.Len() > 0 {
			t.Errorf("%s: got %v and the help %q, want a UsageError with %q", test.args, err, &help, test.want)
		}
	}
}

func TestFlagsParsePrintsHelp(t *testing.T) {
	flags := NewFlags("demo")
	flags.Int("n", 1, "a `number`")
	flags.Folder()
	var help bytes.Buffer
	if err := flags.Parse([]string{"-help"}, &help); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v, want flag.ErrHelp", err)
	}
	for _, want := range []string{"flags of demo", "-n number", "-out folder"} {
		if !strings.Contains(help.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, &help)
		}
	}
}

func TestFlagsParsePrintsHelpWithoutFlags(t *testing.T) {
	var help bytes.Buffer
	if err := NewFlags("demo").Parse([]string{"-h"}, &help); !errors.Is(err, flag.ErrHelp) || help.String() != "demo has no flags\n" {
		t.Errorf("got %v and the help %q, want flag.ErrHelp and that there are no flags", err, &help)
	}
}

func TestFolderWriteUsesOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	flags := NewFlags("demo")
	folder := flags.Folder()
	if err := flags.Parse([]string{"-out", dir}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("after Parse: %v, want the folder", err)
	}
	checkWrite(t, folder, dir)
}

func TestFolderWriteDefaultsToTemporaryFolder(t *testing.T) {
	tmp := t.TempDir()
	for _, name := range []string{"TMPDIR", "TMP", "TEMP"} {
		t.Setenv(name, tmp)
	}
	flags := NewFlags("demo")
	folder := flags.Folder()
	if err := flags.Parse(nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(tmp); err != nil || len(entries) > 0 {
		t.Errorf("before Write: %v, %v; want an empty folder", entries, err)
	}
	var stdout bytes.Buffer
	if err := folder.Write(&stdout, save, "a.txt"); err != nil {
		t.Fatal(err)
	}
	written, err := filepath.Glob(filepath.Join(tmp, "resilience-demo-*", "a.txt"))
	if err != nil || len(written) != 1 {
		t.Fatalf("found %q, %v; want one file", written, err)
	}
	checkWrite(t, folder, filepath.Dir(written[0]))
}

func checkWrite(t *testing.T, folder *Folder, dir string) {
	t.Helper()
	var stdout bytes.Buffer
	if err := folder.Write(&stdout, save, "a.txt", "b.txt"); err != nil {
		t.Fatal(err)
	}
	a, b := filepath.Join(dir, "a.txt"), filepath.Join(dir, "b.txt")
	if got, want := stdout.String(), "wrote "+a+"\nwrote "+b+"\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	for _, path := range []string{a, b} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func save(path string) error { return os.WriteFile(path, []byte("text"), 0o666) }

func TestFolderWriteReturnsError(t *testing.T) {
	folder := &Folder{path: t.TempDir()}
	failed := errors.New("failed")
	var stdout bytes.Buffer
	if err := folder.Write(&stdout, func(string) error { return failed }, "a.txt"); err != failed || stdout.Len() > 0 {
		t.Errorf("got %v and %q, want %v and nothing", err, &stdout, failed)
	}
}
