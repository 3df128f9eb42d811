// Resilience checks files with pipelines, simulates what they do in an outage, and looks for better
// numbers. "resilience help" shows how to use it, and docs/simulation.md describes it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/effector-go/resilience/resilienceconfig"
)

const usage = `Usage:

  resilience check [-effective] FILE...
        reports errors as file:line:column: text; with -effective, prints the
        files with all defaults
  resilience schema
        prints the JSON Schema of the files, for editors
  resilience simulate [FILE] -rate 200 [-incident slow,surge] [-goal "after>=0.99"] [-out report.html]
        shows what the pipelines do in an outage; without FILE, those of an example
  resilience tune FILE -pipeline users -rate 200 -incident slow,surge -vary retry.maxAttempts=1..5
        looks for better numbers
  resilience completion bash|zsh|fish
        prints a script for the shell

"resilience simulate -h" and "resilience tune -h" list the flags.
`

// The exit statuses.
const (
	fine        = 0
	bad         = 1   // an error in a file, or a missed goal
	misused     = 2   // an error in the arguments
	interrupted = 130 // Ctrl-C, as shells report it
)

// An exit is an error that ends the program with a status.
type exit struct {
	status int
	err    error
}

func (e *exit) Error() string { return e.err.Error() }
func (e *exit) Unwrap() error { return e.err }

func misuse(format string, args ...any) error { return &exit{misused, fmt.Errorf(format, args...)} }
func broken(format string, args ...any) error { return &exit{bad, fmt.Errorf(format, args...)} }

var errInterrupted = errors.New("interrupted")

// errPrinted ends the program with status 1. What is wrong has been printed.
var errPrinted = &exit{bad, errors.New("printed")}

// A program is one execution.
type program struct {
	ctx         context.Context // ends with Ctrl-C
	out, errOut io.Writer
	terminal    bool // errOut is one
}

var commands = map[string]func(p *program, args []string) error{
	"check":      (*program).check,
	"schema":     (*program).schema,
	"simulate":   (*program).simulate,
	"tune":       (*program).tune,
	"completion": (*program).completion,
	"help":       (*program).help,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	info, err := os.Stderr.Stat()
	p := &program{ctx, os.Stdout, os.Stderr, err == nil && info.Mode()&os.ModeCharDevice != 0}
	os.Exit(p.run(os.Args[1:]))
}

// run returns the exit status.
func (p *program) run(args []string) int {
	if len(args) == 0 {
		fmt.Fprint(p.errOut, usage)
		return misused
	}
	command := commands[args[0]]
	if slices.Contains([]string{"-h", "-help", "--help"}, args[0]) {
		command = (*program).help
	}
	if command == nil {
		fmt.Fprintf(p.errOut, "resilience: unknown command %q\n\n%s", args[0], usage)
		return misused
	}
	return p.status(command(p, args[1:]))
}

// status prints an error, unless that was done, and returns the exit status.
func (p *program) status(err error) int {
	var e *exit
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return fine
	case !errors.As(err, &e):
		e = &exit{bad, err}
	}
	if e != errPrinted {
		fmt.Fprintln(p.errOut, "resilience: "+e.Error())
	}
	return e.status
}

func (p *program) help([]string) error {
	_, err := io.WriteString(p.out, usage)
	return err
}

// flags returns a set of flags that prints its help to standard output.
func (p *program) flags(command, arguments string) *flag.FlagSet {
	set := flag.NewFlagSet(command, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {
		set.SetOutput(p.out)
		fmt.Fprintf(p.out, "Usage: resilience %s\n\n", strings.TrimSpace(command+" "+arguments))
		set.PrintDefaults()
		set.SetOutput(io.Discard)
	}
	return set
}

// parse reads the flags, which may follow other arguments, and returns the latter.
func parse(set *flag.FlagSet, args []string) (files []string, err error) {
	for {
		if err := set.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, misuse("%s: %w", set.Name(), err)
		}
		rest := set.Args()
		if len(rest) == 0 {
			return files, nil
		}
		if end := len(args) - len(rest); end > 0 && args[end-1] == "--" {
			return append(files, rest...), nil
		}
		files = append(files, rest[0])
		args = rest[1:]
	}
}

// A list is a flag with values that are separated by commas, and that can be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(text string) error {
	for _, value := range strings.Split(text, ",") {
		if value = strings.TrimSpace(value); value != "" {
			*l = append(*l, value)
		}
	}
	return nil
}

// read reads a text file of at most a size. It removes a byte order mark, and ends all lines with \n
// alone: the YAML parser counts some lines that end with \r\n twice.
func read(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, most)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(data, []byte("\r"), []byte("\n")), nil
}

const maxConfig = 1 << 20 // bytes, as in resilienceconfig

// load parses a file with pipelines. It prints its errors as file:line:column: text.
func (p *program) load(path string) (data []byte, file *resilienceconfig.File, err error) {
	data, err = read(path, maxConfig)
	if err != nil {
		return nil, nil, broken("%w", err)
	}
	file, err = parsePipelines(data)
	if err != nil {
		p.printErrors(path, err)
		return nil, nil, errPrinted
	}
	return data, file, nil
}

// printErrors prints the errors in a file, a line for each.
func (p *program) printErrors(path string, err error) {
	var errs resilienceconfig.Errors
	if !errors.As(err, &errs) {
		fmt.Fprintf(p.errOut, "%s: %v\n", path, err)
		return
	}
	for _, e := range errs {
		fmt.Fprintf(p.errOut, "%s:%v\n", path, e)
	}
}

// check is the command check.
func (p *program) check(args []string) error {
	set := p.flags("check", "[-effective] FILE...")
	effective := set.Bool("effective", false, "print each file as it applies, with every default")
	files, err := parse(set, args)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return misuse("check: no file, must be at least one")
	}
	failed := false
	for _, path := range files {
		_, file, err := p.load(path)
		if err != nil {
			failed = true
			p.status(err)
			continue
		}
		for _, note := range file.Notes() {
			fmt.Fprintf(p.errOut, "%s:%s\n", path, note)
		}
		if *effective {
			if _, err := p.out.Write(resilienceconfig.New(file).Effective()); err != nil {
				return err
			}
		}
	}
	if failed {
		return errPrinted
	}
	return nil
}

// schema is the command schema.
func (p *program) schema(args []string) error {
	files, err := parse(p.flags("schema", ""), args)
	if err != nil {
		return err
	}
	if len(files) > 0 {
		return misuse("schema: got argument %q, must be none", files[0])
	}
	_, err = p.out.Write(resilienceconfig.Schema())
	return err
}
