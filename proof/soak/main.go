// Command soak puts a pipeline of this module under load for a long time, and checks afterwards that the books balance.
//
//	go run ./proof/soak            # 60 s
//	go run ./proof/soak -for 10m
//	go run -race ./proof/soak -for 10s
//
// Hundreds of callers go through a timeout, retry with a budget, a circuit breaker and a timeout for each attempt to a real
// server on loopback that errs, dawdles, hangs, drops connections and has outages. Callers cancel, have deadlines, are dead on
// arrival, write at most once, panic and exit; some effectors ignore their ctx and are abandoned. Everything is counted by
// parties that do not know of each other: by the callers, by probes between the policies, by the effector, by the server, and
// by the policies themselves. At the end the counts must agree to the call, every value be got or dropped once, no goroutine
// left, memory flat, and the breaker closed again. No check depends on how fast anything was.
//
// The report goes to stdout, a progress bar to stderr if that is a terminal. Ctrl-C ends the load early; the checks are made all
// the same. The exit status is 0 if all hold, 1 if one fails, 2 for a mistake in the flags.
//
// The files, in the order to read them: soak.go, caller.go, client.go, server.go, ledger.go.
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
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// config is what the flags say.
type config struct {
	length  time.Duration // of the load
	workers int           // callers at a time
	seed    uint64
}

const (
	minLength, maxLength   = time.Second, 24 * time.Hour
	minWorkers, maxWorkers = 1, 10_000
)

// run is the program; it returns the exit status.
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
	length := flags.Duration("for", time.Minute, fmt.Sprintf("how long the load lasts, %v to %v", minLength, maxLength))
	workers := flags.Int("workers", 300, fmt.Sprintf("`callers` at a time, %d to %d", minWorkers, maxWorkers))
	seed := flags.Uint64("seed", 1, "seed of the faults and the callers' behaviour")

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

// progress gives a function that shows on a terminal how far the load is, and at its end clears what it showed.
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
	return func(elapsed time.Duration, doing string) { // an error of the bar is one of stderr: nothing to do about it
		if doing == "" {
			bar.Clear()
			return
		}
		bar.Describe(fmt.Sprintf("%-32s", doing))
		bar.Set64(min(elapsed, cfg.length).Milliseconds())
	}
}
