// Command soak puts a pipeline of this module under load for a long time, and afterwards checks
// that all counts agree.
//
//	go run ./proof/soak            # 60 s
//	go run ./proof/soak -for 10m
//	go run -race ./proof/soak -for 10s
//
// Hundreds of callers go through a timeout, a retry with a budget, a circuit breaker, and a timeout
// for each attempt. They call a real server on loopback that fails, answers slowly, hangs, drops
// connections, and has outages. Callers cancel, have deadlines, call with a context that has ended,
// write at most once, panic, and exit. Some effectors ignore their context and are abandoned.
//
// Six parties count everything independently: the callers, policies between the others, the
// effector, the server, the policies under test, and an observer with all kinds of listeners. At the
// end:
//
//   - all counts agree exactly
//   - every value has been returned or dropped once
//   - no goroutine is left
//   - memory is flat
//   - the breaker is closed again
//
// No check depends on how fast anything was.
//
// The report goes to stdout, and a progress bar to stderr if that is a terminal. Ctrl-C ends the
// load early; the checks still run. The exit status is 0 if all checks hold, 1 if one fails, and 2
// if the flags are invalid.
//
// Read the files in this order: soak.go, caller.go, client.go, server.go, observer.go,
// ledger.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program immediately
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// config holds the values of the flags.
type config struct {
	length  time.Duration // duration of the load
	workers int           // concurrent callers
	seed    uint64
}

const (
	minLength, maxLength   = time.Second, 24 * time.Hour
	minWorkers, maxWorkers = 1, 10_000
)

// run runs the program and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "soak:", err)
		return 2
	}
	l, err := soak(ctx, cfg, progress(cfg, stderr))
	if err != nil {
		fmt.Fprintln(stderr, "soak:", err)
		return 1
	}
	if !report(stdout, cfg, l) {
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (config, error) {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by run
	length := flags.Duration("for", time.Minute, fmt.Sprintf("`duration` of the load, %v to %v", minLength, maxLength))
	workers := flags.Int("workers", 300, fmt.Sprintf("number of concurrent `callers`, %d to %d", minWorkers, maxWorkers))
	seed := flags.Uint64("seed", 1, "seed of the faults and of the callers' behavior")

	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stderr, "usage: soak [-for duration] [-workers callers] [-seed n]")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return config{}, err
	case err != nil:
		return config{}, fmt.Errorf("%w (-help lists the flags)", err)
	case flags.NArg() > 0:
		return config{}, fmt.Errorf("unexpected argument %q: there are only flags (-help lists them)", flags.Arg(0))
	case *length < minLength || *length > maxLength:
		return config{}, fmt.Errorf("-for is %v, must be %v to %v", *length, minLength, maxLength)
	case *workers < minWorkers || *workers > maxWorkers:
		return config{}, fmt.Errorf("-workers is %d, must be %d to %d", *workers, minWorkers, maxWorkers)
	}
	return config{*length, *workers, *seed}, nil
}

// progress returns a function that shows the progress of the load on a terminal, and clears it at
// the end.
func progress(cfg config, stderr io.Writer) func(elapsed time.Duration, doing string) {
	file, ok := stderr.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func(time.Duration, string) {}
	}
	bar := progressbar.NewOptions64(cfg.length.Milliseconds(),
		progressbar.OptionSetWriter(stderr),
		progressbar.OptionSetWidth(40),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetPredictTime(false),
	)
	return func(elapsed time.Duration, doing string) { // errors of the bar are errors of stderr: ignore them
		if doing == "" {
			bar.Clear()
			return
		}
		bar.Describe(fmt.Sprintf("%-32s", doing))
		bar.Set64(min(elapsed, cfg.length).Milliseconds())
	}
}
