// Command adaptive shows how a limit finds how many calls at once a server takes, in a simulation: that of package adaptive, and beside it Netflix's
// Gradient2 and Vegas as published.
//
//	go run ./examples/adaptive
//
// The server has workers, each of which serves one call at a time, and a queue. Half of the workers go; then every call takes twice as long for good; then
// a second client comes. Each of the three limits meets the same script. The time is virtual: twenty seconds of the script take about two. The program prints a
// table and writes the plots adaptive-limit.svg and adaptive-limit.png.
//
// The simulation holds the limit that package adaptive wraps, which is told how long calls took and needs no clock. Your program has no use for it: it calls
// adaptive.New.
//
// The files, in the order to read them: laws.go, simulate.go, report.go, plot.go.
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

// config is what the flags say.
type config struct {
	workers int // at first
	seed    uint64
	out     string
}

const minWorkers, maxWorkers = 20, 400

// run is the program; it returns the exit status: 2 for a mistake in the flags, 1 for any other error.
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

// parse reads the flags and makes the directory for the plots.
func parse(args []string, stderr io.Writer) (config, error) {
	flags := flag.NewFlagSet("adaptive", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by run
	workers := flags.Int("workers", 100, fmt.Sprintf("`number` of workers that the server has at first, %d to %d", minWorkers, maxWorkers))
	seed := flags.Uint64("seed", 1, "seed of the random service times")
	out := flags.String("out", ".", "write the plots to this `directory`, made if missing")

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

// show simulates each law, prints the table and writes the plots.
func show(cfg config, stdout io.Writer) error {
	var runs []*result
	for _, l := range laws {
		runs = append(runs, simulate(cfg, l))
	}
	if err := printTable(stdout, cfg, runs); err != nil {
		return err
	}
	for _, name := range []string{"adaptive-limit.svg", "adaptive-limit.png"} {
		path := filepath.Join(cfg.out, name)
		if err := savePlot(path, cfg, runs); err != nil {
			return err
		}
		fmt.Fprintln(stdout, "wrote", path)
	}
	return nil
}
