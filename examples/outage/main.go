// Command outage shows what an outage does to two clients of the same service: one that retries naively, and one that calls
// through a pipeline of this module (a timeout around all, retry, a circuit breaker, a timeout for each attempt).
//
//	go run ./examples/outage              # 20 s
//	go run ./examples/outage -quick       # 5 s
//	go run ./examples/outage -companions  # a third client, whose pipeline has a hedge and an adaptive limit too
//
// Each client has a real HTTP server of its own on loopback. The servers become slow, then hang and fail, then are healthy
// again, by the same script, and all clients make the same calls at the same instants. The program prints a table and writes
// the plots outage.svg and outage.png. Ctrl-C stops it early; the table and the plots then hold what was measured so far.
//
// The files, in the order to read them: client.go, server.go, load.go, report.go, plot.go.
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
	unit time.Duration // the length of what takes one second in the full run: every duration scales with it
	rate int           // calls per second and client
	seed uint64
	out  string

	companions bool // a third client, with a hedge and an adaptive limit
}

const minRate, maxRate = 10, 200

// number is how many clients there are, in words.
func (c config) number() string {
	if c.companions {
		return "three"
	}
	return "two"
}

// run is the program; it returns the exit status: 2 for a mistake in the flags, 1 for any other error.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "outage:", err)
		return 2
	}
	if err := show(ctx, cfg, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "outage:", err)
		return 1
	}
	return 0
}

// parse reads the flags and makes the directory for the plots, so that a mistake shows before the run and not after it.
func parse(args []string, stderr io.Writer) (config, error) {
	flags := flag.NewFlagSet("outage", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by run
	quick := flags.Bool("quick", false, "run for 5 s instead of 20 s")
	out := flags.String("out", ".", "write the plots to this `directory`, made if missing")
	seed := flags.Uint64("seed", 1, "seed of the servers' random service times and failures")
	companions := flags.Bool("companions", false, "add a client whose pipeline has a hedge and an adaptive limit too")
	rate := flags.Int("rate", 40, fmt.Sprintf("`calls` per second and client, %d to %d", minRate, maxRate))

	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stderr, "usage: outage [-quick] [-companions] [-out directory] [-seed n] [-rate calls]")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return config{}, err
	case err != nil:
		return config{}, fmt.Errorf("%w (-help lists the flags)", err)
	case flags.NArg() > 0:
		return config{}, fmt.Errorf("unexpected argument %q: there are only flags (-help lists them)", flags.Arg(0))
	case *rate < minRate || *rate > maxRate:
		return config{}, fmt.Errorf("-rate is %d, must be %d to %d", *rate, minRate, maxRate)
	case *out == "":
		return config{}, errors.New("-out is empty, must name a directory")
	}
	if err := os.MkdirAll(*out, 0o777); err != nil {
		return config{}, fmt.Errorf("-out: %w", err)
	}
	unit := time.Second
	if *quick {
		unit = time.Second / 4
	}
	return config{unit, *rate, *seed, *out, *companions}, nil
}

// show measures the clients, prints the table and writes the plots.
func show(ctx context.Context, cfg config, stdout, stderr io.Writer) error {
	fmt.Fprintf(stderr, "%d calls/s from each of %s clients for %v; Ctrl-C stops early\n", cfg.rate, cfg.number(), total(cfg.unit))
	tell, done := progress(cfg, stderr)
	result, err := measure(ctx, cfg, tell)
	done()
	if err != nil {
		return err
	}
	if result.end < total(cfg.unit) {
		fmt.Fprintf(stdout, "stopped after %v of %v; calls that were still running are left out\n", result.end.Round(cfg.unit/10), total(cfg.unit))
	}
	if err := printTable(stdout, result); err != nil {
		return err
	}
	for _, name := range []string{"outage.svg", "outage.png"} {
		path := filepath.Join(cfg.out, name)
		if err := savePlot(path, result); err != nil {
			return err
		}
		fmt.Fprintln(stdout, "wrote", path)
	}
	return nil
}

// progress gives a function that shows how far the run is, by a bar on a terminal, else by a line for each phase, and one that
// clears the bar.
func progress(cfg config, stderr io.Writer) (tell func(elapsed time.Duration), done func()) {
	if file, ok := stderr.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		bar := progressbar.NewOptions64(int64(total(cfg.unit)/time.Millisecond),
			progressbar.OptionSetWriter(stderr),
			progressbar.OptionSetWidth(40),
			progressbar.OptionThrottle(50*time.Millisecond),
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionSetPredictTime(false),
		)
		tell = func(elapsed time.Duration) { // an error of the bar is one of stderr: nothing to do about it
			bar.Describe(fmt.Sprintf("%-20s", script[phaseAt(elapsed, cfg.unit)].name))
			bar.Set64(elapsed.Milliseconds())
		}
		return tell, func() { bar.Clear() }
	}
	last := -1
	tell = func(elapsed time.Duration) {
		if i := phaseAt(elapsed, cfg.unit); i != last {
			last = i
			fmt.Fprintf(stderr, "%7v  %s\n", elapsed.Round(100*time.Millisecond), script[i].name)
		}
	}
	return tell, func() {}
}
