// Command adaptive simulates how a limit finds how many concurrent calls a server takes. It
// compares package adaptive with Netflix's Gradient2 and Vegas as published.
//
//	go run ./examples/adaptive
//	go run ./examples/adaptive -quick    # less precise
//
// In the first part, the server has workers and a queue. Half of the workers go; then every call
// takes twice as long permanently; then a second client starts. The program prints a table and
// writes the plots adaptive-limit.svg and adaptive-limit.png.
//
// In the second part, call times vary: a few calls take much longer than the others. The program
// shows what part of the calls each limit refuses though the server could take all of them, and how
// long calls wait for 50 workers. It writes adaptive-spread.svg and adaptive-spread.png.
//
// The time is virtual: the program runs for a few seconds. Ctrl-C stops it without a result.
//
// The simulation uses the internal limit that package adaptive wraps, because that needs no clock.
// Your program calls adaptive.New.
//
// The files, in reading order: laws.go, simulate.go, report.go, plot.go, spread.go.
package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/effector-go/resilience/examples/internal/program"
	"github.com/effector-go/resilience/examples/internal/progress"
)

func main() { program.Main("adaptive", run) }

// config holds the values of the flags.
type config struct {
	workers  int // at first
	seed     uint64
	measured time.Duration // of each simulation with call times that vary; twice as long passes before
	folder   *program.Folder
}

const minWorkers, maxWorkers = 20, 400

// run simulates each law, prints the tables, and writes the plots. When ctx is done, it shows nothing:
// part of a simulation would be misleading.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	display := progress.New(stderr, time.Duration(len(laws)+len(laws)*len(distributions))*time.Second)
	done := 0 // simulations, each of which counts as a second
	step := func(label string) {
		done++
		display.Set(time.Duration(done)*time.Second, label)
	}
	var runs []*result
	for _, l := range laws {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		runs = append(runs, simulate(cfg, l))
		step("a server that changes")
	}
	spreads := simulateSpreads(ctx, cfg, func() { step("call times that vary") })
	display.Done()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := printTable(stdout, cfg, runs); err != nil {
		return err
	}
	if err := printSpreads(stdout, spreads); err != nil {
		return err
	}
	return cfg.folder.Write(stdout, func(path string) error { return save(path, cfg, runs, spreads) },
		"adaptive-limit.svg", "adaptive-limit.png", "adaptive-spread.svg", "adaptive-spread.png")
}

// save draws the plot that the path names.
func save(path string, cfg config, runs []*result, spreads []spread) error {
	if strings.HasPrefix(filepath.Base(path), "adaptive-limit") {
		return savePlot(path, cfg, runs)
	}
	return saveSpreads(path, spreads)
}

// parse reads the flags.
func parse(args []string, stderr io.Writer) (config, error) {
	var cfg config
	flags := program.NewFlags("adaptive")
	flags.IntVar(&cfg.workers, "workers", 100, fmt.Sprintf("`number` of workers that the server has at first, %d to %d", minWorkers, maxWorkers))
	flags.Uint64Var(&cfg.seed, "seed", 1, "seed of the random service times")
	quick := flags.Bool("quick", false, "simulate a tenth of the time with call times that vary: the limits have less time to settle")
	cfg.folder = flags.Folder()
	if err := flags.Parse(args, stderr); err != nil {
		return config{}, err
	}
	if cfg.workers < minWorkers || cfg.workers > maxWorkers {
		return config{}, program.Usagef("-workers is %d, must be %d to %d", cfg.workers, minWorkers, maxWorkers)
	}
	cfg.measured = measured
	if *quick {
		cfg.measured /= 10
	}
	return cfg, nil
}
