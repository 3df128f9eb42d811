// Command outage shows how a server recovers, or doesn't, from a few seconds of trouble.
//
//	go run ./examples/outage                # 30 s
//	go run ./examples/outage -after 2m      # does the naive client ever recover?
//	go run ./examples/outage -load 0.2      # a server with more to spare
//	go run ./examples/outage -parts         # what each policy contributes
//	go run ./examples/outage -warm-up 10s   # a server that is cold after the trouble
//
// A server has four workers and a queue, and its callers use 60% of its capacity. For five seconds,
// each request takes ten times as long. Callers time out and retry, but the server goes on working
// for callers that have gone.
//
//   - The naive client retries, with backoff and jitter. Its retries are more than the server can
//     handle, so the queue stays full and every answer comes too late: the server stays down although
//     nothing is wrong with it anymore. This is called a metastable failure (Bronson et al.,
//     "Metastable Failures in Distributed Systems", HotOS 2021).
//   - The pipeline has the same timeouts and number of attempts, a budget for retries, and a circuit
//     breaker. The queue drains, and the server recovers.
//
// With -warm-up, the server restarts at the end of the trouble. It then has a tenth of its capacity,
// warms up from there, and restarts again if it is overrun meanwhile. Another client appears, the
// pipeline with a slow start: it sends what the server can take, while the plain pipeline sends
// everything as soon as its breaker closes, and overruns the server.
//
// Each client calls its own HTTP server on loopback, in real time. The program prints a table and
// writes the plots outage.svg and outage.png. Ctrl-C stops it early; the table and the plots then
// show what it has so far.
//
// The files, in reading order: client.go, server.go, load.go, report.go, plot.go.
package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/effector-go/resilience/examples/internal/program"
	"github.com/effector-go/resilience/examples/internal/progress"
)

func main() { program.Main("outage", loopback.run) }

// config holds the values of the flags.
type config struct {
	load    float64 // share of the server's capacity that the callers use
	trouble time.Duration
	after   time.Duration
	seed    uint64
	parts   bool
	warmUp  time.Duration
	folder  *program.Folder
}

const (
	minLoad, maxLoad     = 0.1, 0.9
	minLength, maxLength = time.Second, 10 * time.Minute
)

// run is the program on this network.
func (n network) run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%.0f calls/s from each of %d clients for %v; Ctrl-C stops early, after the calls in progress\n", cfg.rate(), len(cfg.clients()), cfg.total())
	display := progress.New(stderr, cfg.total())
	result, err := measure(ctx, cfg, n, func(elapsed time.Duration) { display.Set(elapsed, cfg.phaseAt(elapsed).String()) })
	display.Done()
	if err != nil {
		return err
	}
	if result.end < cfg.total() {
		fmt.Fprintf(stdout, "stopped after %v of %v\n", result.end.Round(100*time.Millisecond), cfg.total())
	}
	if err := printTable(stdout, result); err != nil {
		return err
	}
	return cfg.folder.Write(stdout, func(path string) error { return savePlot(path, result) }, "outage.svg", "outage.png")
}

func parse(args []string, stderr io.Writer) (config, error) {
	var cfg config
	flags := program.NewFlags("outage")
	flags.Float64Var(&cfg.load, "load", 0.6, fmt.Sprintf("`share` of the server's capacity that the callers use, %v to %v", minLoad, maxLoad))
	flags.DurationVar(&cfg.trouble, "trouble", 5*time.Second, fmt.Sprintf("`length` of the trouble, %v to %v", minLength, maxLength))
	flags.DurationVar(&cfg.after, "after", 20*time.Second, fmt.Sprintf("`length` of the run after the trouble, %v to %v", minLength, maxLength))
	flags.Uint64Var(&cfg.seed, "seed", 1, "seed of the server's random service times")
	flags.BoolVar(&cfg.parts, "parts", false, "add clients with one policy each: a budget for retries, a breaker, an adaptive limit")
	flags.DurationVar(&cfg.warmUp, "warm-up", 0, fmt.Sprintf("`length` of the server's warm-up after the trouble, from a tenth of its capacity, up to %v; adds a client with a slow start", maxLength))
	cfg.folder = flags.Folder()
	if err := flags.Parse(args, stderr); err != nil {
		return config{}, err
	}
	switch {
	case !(cfg.load >= minLoad && cfg.load <= maxLoad): // also true for NaN
		return config{}, program.Usagef("-load is %v, must be %v to %v", cfg.load, minLoad, maxLoad)
	case cfg.trouble < minLength || cfg.trouble > maxLength:
		return config{}, program.Usagef("-trouble is %v, must be %v to %v", cfg.trouble, minLength, maxLength)
	case cfg.after < minLength || cfg.after > maxLength:
		return config{}, program.Usagef("-after is %v, must be %v to %v", cfg.after, minLength, maxLength)
	case cfg.warmUp < 0 || cfg.warmUp > maxLength:
		return config{}, program.Usagef("-warm-up is %v, must be 0s to %v", cfg.warmUp, maxLength)
	}
	return cfg, nil
}
