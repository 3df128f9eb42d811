package program

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A UsageError is an error in the flags.
type UsageError struct{ message string }

func (e *UsageError) Error() string { return e.message }

// Usagef formats a UsageError.
func Usagef(format string, args ...any) error {
	return &UsageError{fmt.Sprintf(format, args...)}
}

// Flags are the flags of an example.
type Flags struct {
	*flag.FlagSet
	folder *Folder // if the example writes files
}

// NewFlags returns an empty set of flags.
func NewFlags(name string) *Flags {
	f := &Flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(io.Discard) // Parse reports errors
	return f
}

// Folder adds the flag -out and returns the folder that it names, for use after Parse.
func (f *Flags) Folder() *Folder {
	f.folder = &Folder{program: f.Name()}
	f.Func("out", "write the plots to this `folder`, created if missing (default a new one in the system's temporary folder)", func(path string) error {
		if path == "" {
			return errors.New("must name a folder")
		}
		f.folder.path = path
		return nil
	})
	return f.folder
}

// Parse parses the arguments and creates the folder that -out names, so that an error is reported
// before the example runs. For -help it writes the flags to help and returns [flag.ErrHelp]; every
// other error is a [UsageError].
func (f *Flags) Parse(args []string, help io.Writer) error {
	err := f.FlagSet.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		f.printHelp(help)
		return err
	case err != nil:
		return Usagef("%v (-help lists the flags)", err)
	case f.NArg() > 0:
		return Usagef("unexpected argument %q (-help lists the flags)", f.Arg(0))
	}
	if f.folder == nil || f.folder.path == "" {
		return nil
	}
	if err := os.MkdirAll(f.folder.path, 0o777); err != nil {
		return Usagef("-out: %v", err)
	}
	return nil
}

func (f *Flags) printHelp(w io.Writer) {
	flags := 0
	f.VisitAll(func(*flag.Flag) { flags++ })
	if flags == 0 {
		fmt.Fprintf(w, "%s has no flags\n", f.Name())
		return
	}
	fmt.Fprintf(w, "flags of %s:\n", f.Name())
	f.SetOutput(w)
	f.PrintDefaults()
}

// A Folder is where an example writes its files.
type Folder struct{ program, path string }

// Write writes each of the files with save and prints its path to w. Without -out, the folder is a
// new one in the system's temporary folder.
func (f *Folder) Write(w io.Writer, save func(path string) error, names ...string) error {
	if f.path == "" {
		path, err := os.MkdirTemp("", "resilience-"+f.program+"-")
		if err != nil {
			return err
		}
		f.path = path
	}
	for _, name := range names {
		path := filepath.Join(f.path, name)
		if err := save(path); err != nil {
			return err
		}
		fmt.Fprintln(w, "wrote", path)
	}
	return nil
}
