// Command tail shows what hedging is for. One call in a hundred takes a hundred times as long. One
// client waits for its slow calls; the other starts them again (package hedge).
//
//	go run ./examples/tail                  # 20 s
//	go run ./examples/tail -quick           # 4 s
//	go run ./examples/tail -quantile 0.9    # starts more calls again
//
// Both clients make the same number of calls at the same instants. The program prints a table and
// writes the plots tail.svg and tail.png. Ctrl-C stops it early; the table and the plots then show
// what it has so far.
//
// The files, in reading order: load.go, report.go, plot.go.
package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/effector-go/resilience/examples/internal/program"
	"github.com/effector-go/resilience/examples/internal/progress"
)

func main() { program.Main("tail", run) }

// config holds the values of the flags.
type config struct {
	length   time.Duration // of the run
	rate     int           // calls per second and client
	quantile float64
	seed     uint64
	folder   *program.Folder
}

const minRate, maxRate = 50, 2000

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%d calls/s from each of two clients for %v; Ctrl-C stops early, after the calls in progress\n", cfg.rate, cfg.length)
	display := progress.New(stderr, cfg.length)
	result := measure(ctx, cfg, func(elapsed time.Duration) { display.Set(elapsed, "calling") })
	display.Done()
	if result.end < cfg.length {
		fmt.Fprintf(stdout, "stopped after %v of %v\n", result.end.Round(100*time.Millisecond), cfg.length)
	}
	if err := printTable(stdout, result); err != nil {
		return err
	}
	return cfg.folder.Write(stdout, func(path string) error { return savePlot(path, result) }, "tail.svg", "tail.png")
}

func parse(args []string, stderr io.Writer) (config, error) {
	var cfg config
	flags := program.NewFlags("tail")
	quick := flags.Bool("quick", false, "run for 4 s instead of 20 s")
	flags.Float64Var(&cfg.quantile, "quantile", 0.98, "start a call again when it is slower than this `share` of the calls, 0.5 to 0.999")
	flags.IntVar(&cfg.rate, "rate", 500, fmt.Sprintf("`calls` per second and client, %d to %d", minRate, maxRate))
	flags.Uint64Var(&cfg.seed, "seed", 1, "seed of the dependency's random times")
	cfg.folder = flags.Folder()
	if err := flags.Parse(args, stderr); err != nil {
		return config{}, err
	}
	switch {
	case cfg.rate < minRate || cfg.rate > maxRate:
		return config{}, program.Usagef("-rate is %d, must be %d to %d", cfg.rate, minRate, maxRate)
	case !(cfg.quantile >= 0.5 && cfg.quantile <= 0.999): // also true for NaN
		return config{}, program.Usagef("-quantile is %v, must be 0.5 to 0.999", cfg.quantile)
	}
	cfg.length = 20 * time.Second
	if *quick {
		cfg.length = 4 * time.Second
	}
	return cfg, nil
}
