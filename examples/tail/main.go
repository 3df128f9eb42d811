// Command tail shows what hedging is for: a dependency of which one call in a hundred takes a hundred times as long, seen by a client that waits for
// it, and by one that starts slow calls again (package hedge).
//
//	go run ./examples/tail                  # 20 s
//	go run ./examples/tail -quick           # 4 s
//	go run ./examples/tail -quantile 0.9    # starts more calls again
//
// Both clients make the same number of calls at the same instants. The program prints a table and writes the plots tail.svg and tail.png.
// Ctrl-C stops it early; the table and the plots then hold what was measured so far.
//
// The files, in the order to read them: load.go, report.go, plot.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
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
	length   time.Duration // of the run
	rate     int           // calls per second and client
	quantile float64
	seed     uint64
	out      string
}

const minRate, maxRate = 50, 2000

// run is the program; it returns the exit status: 2 for a mistake in the flags, 1 for any other error.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "tail:", err)
		return 2
	}
	if err := show(ctx, cfg, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "tail:", err)
		return 1
	}
	return 0
}

// parse reads the flags and makes the directory for the plots, so that a mistake shows before the run and not after it.
func parse(args []string, stderr io.Writer) (config, error) {
	flags := flag.NewFlagSet("tail", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by run
	quick := flags.Bool("quick", false, "run for 4 s instead of 20 s")
	out := flags.String("out", ".", "write the plots to this `directory`, made if missing")
	seed := flags.Uint64("seed", 1, "seed of the dependency's random times")
	rate := flags.Int("rate", 500, fmt.Sprintf("`calls` per second and client, %d to %d", minRate, maxRate))
	quantile := flags.Float64("quantile", 0.98, "start a call again once it is slower than this `share` of them, 0.5 to 0.999")

	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stderr, "usage: tail [-quick] [-out directory] [-seed n] [-rate calls] [-quantile share]")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return config{}, err
	case err != nil:
		return config{}, fmt.Errorf("%w (-help lists the flags)", err)
	case flags.NArg() > 0:
		return config{}, fmt.Errorf("unexpected argument %q: there are only flags (-help lists them)", flags.Arg(0))
	case *rate < minRate || *rate > maxRate:
		return config{}, fmt.Errorf("-rate is %d, must be %d to %d", *rate, minRate, maxRate)
	case !(*quantile >= 0.5 && *quantile <= 0.999): // so written, NaN is a mistake
		return config{}, fmt.Errorf("-quantile is %v, must be 0.5 to 0.999", *quantile)
	case *out == "":
		return config{}, errors.New("-out is empty, must name a directory")
	}
	if err := os.MkdirAll(*out, 0o777); err != nil {
		return config{}, fmt.Errorf("-out: %w", err)
	}
	length := 20 * time.Second
	if *quick {
		length = 4 * time.Second
	}
	return config{length, *rate, *quantile, *seed, *out}, nil
}

// show measures both clients, prints the table and writes the plots.
func show(ctx context.Context, cfg config, stdout, stderr io.Writer) error {
	fmt.Fprintf(stderr, "%d calls/s from each of two clients for %v; Ctrl-C stops early\n", cfg.rate, cfg.length)
	tell, done := progress(cfg, stderr)
	result := measure(ctx, cfg, tell)
	done()
	if result.end < cfg.length {
		fmt.Fprintf(stdout, "stopped after %v of %v; calls that were still running are left out\n", result.end.Round(100*time.Millisecond), cfg.length)
	}
	if err := printTable(stdout, result); err != nil {
		return err
	}
	for _, name := range []string{"tail.svg", "tail.png"} {
		path := filepath.Join(cfg.out, name)
		if err := savePlot(path, result); err != nil {
			return err
		}
		fmt.Fprintln(stdout, "wrote", path)
	}
	return nil
}

// progress gives a function that shows how far the run is, by a bar on a terminal, else by a line for each quarter, and one that
// clears the bar.
func progress(cfg config, stderr io.Writer) (tell func(elapsed time.Duration), done func()) {
	if file, ok := stderr.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		bar := progressbar.NewOptions64(int64(cfg.length/time.Millisecond),
			progressbar.OptionSetWriter(stderr),
			progressbar.OptionSetWidth(40),
			progressbar.OptionThrottle(50*time.Millisecond),
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionSetPredictTime(false),
		)
		// An error of the bar is one of stderr: nothing to do about it.
		return func(elapsed time.Duration) { bar.Set64(elapsed.Milliseconds()) }, func() { bar.Clear() }
	}
	told := 0
	tell = func(elapsed time.Duration) {
		if quarter := int(4 * elapsed / cfg.length); quarter > told {
			told = quarter
			fmt.Fprintf(stderr, "%d %%\n", 25*quarter)
		}
	}
	return tell, func() {}
}
