// Command adaptive simulates how a limit finds how many concurrent calls a server takes. It
// compares package adaptive with Netflix's Gradient2 and Vegas as published.
//
//	go run ./examples/adaptive
//
// In the first part, the server has workers and a queue. Half of the workers go; then every call
// takes twice as long permanently; then a second client starts. The program prints a table and
// writes the plots adaptive-limit.svg and adaptive-limit.png.
//
// In the second part, call times vary: a few calls take much longer than the others. The program
// shows what part of the calls each limit refuses though the server could take all of them, and how
// long calls wait for 50 workers. It writes adaptive-spread.svg and adaptive-spread.png.
//
// The time is virtual: the program runs for a few seconds.
//
// The simulation uses the internal limit that package adaptive wraps, because that needs no clock.
// Your program calls adaptive.New.
//
// The files, in the order to read them: laws.go, simulate.go, report.go, plot.go, spread.go.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// config holds the values of the flags.
type config struct {
	workers int // at first
	seed    uint64
	out     string
}

const minWorkers, maxWorkers = 20, 400

// run runs the program and returns the exit status: 2 for invalid flags, 1 for any other error.
func run(args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "adaptive:", err)
		return 2
	}
	if err := show(cfg, stdout); err != nil {
		fmt.Fprintln(stderr, "adaptive:", err)
		return 1
	}
	return 0
}

// parse reads the flags and creates the directory for the plots.
func parse(args []string, stderr io.Writer) (config, error) {
	flags := flag.NewFlagSet("adaptive", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by run
	workers := flags.Int("workers", 100, fmt.Sprintf("`number` of workers that the server has at first, %d to %d", minWorkers, maxWorkers))
	seed := flags.Uint64("seed", 1, "seed of the random service times")
	out := flags.String("out", ".", "write the plots to this `directory`, which is created if missing")

	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stderr, "usage: adaptive [-workers number] [-seed n] [-out directory]")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return config{}, err
	case err != nil:
		return config{}, fmt.Errorf("%w (-help lists the flags)", err)
	case flags.NArg() > 0:
		return config{}, fmt.Errorf("unexpected argument %q: there are only flags (-help lists them)", flags.Arg(0))
	case *workers < minWorkers || *workers > maxWorkers:
		return config{}, fmt.Errorf("-workers is %d, must be %d to %d", *workers, minWorkers, maxWorkers)
	case *out == "":
		return config{}, errors.New("-out is empty, must name a directory")
	}
	if err := os.MkdirAll(*out, 0o777); err != nil {
		return config{}, fmt.Errorf("-out: %w", err)
	}
	return config{*workers, *seed, *out}, nil
}

// show simulates each law, prints the tables and writes the plots.
func show(cfg config, stdout io.Writer) error {
	var runs []*result
	for _, l := range laws {
		runs = append(runs, simulate(cfg, l))
	}
	if err := printTable(stdout, cfg, runs); err != nil {
		return err
	}
	spreads := simulateSpreads(cfg)
	if err := printSpreads(stdout, spreads); err != nil {
		return err
	}
	for _, extension := range []string{".svg", ".png"} {
		path := filepath.Join(cfg.out, "adaptive-limit"+extension)
		if err := savePlot(path, cfg, runs); err != nil {
			return err
		}
		fmt.Fprintln(stdout, "wrote", path)
		path = filepath.Join(cfg.out, "adaptive-spread"+extension)
		if err := saveSpreads(path, spreads); err != nil {
			return err
		}
		fmt.Fprintln(stdout, "wrote", path)
	}
	return nil
}
