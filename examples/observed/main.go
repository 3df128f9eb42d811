// Command observed is a small service with a flaky dependency, observed in every way: a live page,
// logs, metrics for Prometheus, and traces of OpenTelemetry.
//
//	go run ./examples/observed              # until Ctrl-C
//	go run ./examples/observed -for 1m      # for a minute
//	go run ./examples/observed -config examples/observed/pipelines.yaml
//
// With -config, the pipeline comes from a file. Change the file while the service runs, and look at
// the log and the dashboard.
//
// The service asks its dependency, the inventory, 50 times a second. Every 30 seconds, the inventory
// fails for 10 seconds: it answers slowly and with errors. The log goes to standard error, and traces
// of calls in which a policy did something to standard output. The service answers on loopback:
//
//	/debug/resilience/  the dashboard
//	/metrics            for Prometheus
//	/debug/pipelines    everything that was counted, as JSON
//	/order              a call of the service, for you to try
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "observed:", err)
		os.Exit(1)
	}
}

// A usageError is a mistake in the command line that was printed.
type usageError struct{ error }

// options are what the flags say.
type options struct {
	addr, file string
	length     time.Duration
	rate       int
	schedule   schedule
}

// parse returns the options of the command line. It prints what is wrong with them.
func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("observed", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.addr, "addr", "localhost:8080", "`address` of the service; port 0 for any free port")
	flags.StringVar(&o.file, "config", "", "`file` with a pipeline named inventory, which is watched; none means one in code")
	flags.DurationVar(&o.length, "for", 0, "how long to run; 0 means until Ctrl-C")
	flags.IntVar(&o.rate, "rate", 50, "calls of the service per `second`, 1 to 1000")
	flags.DurationVar(&o.schedule.calm, "calm", 20*time.Second, "how long the inventory works")
	flags.DurationVar(&o.schedule.outage, "outage", 10*time.Second, "how long it then fails")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, usageError{err}
	}
	mistake := ""
	switch {
	case flags.NArg() > 0:
		mistake = fmt.Sprintf("unexpected argument %q", flags.Arg(0))
	case o.rate < 1 || o.rate > 1000:
		mistake = fmt.Sprintf("-rate is %d, must be from 1 to 1000", o.rate)
	case o.length < 0:
		mistake = fmt.Sprintf("-for is %v, must not be negative", o.length)
	case o.schedule.calm <= 0 || o.schedule.outage <= 0:
		mistake = fmt.Sprintf("-calm is %v and -outage is %v, both must be positive", o.schedule.calm, o.schedule.outage)
	}
	if mistake != "" {
		fmt.Fprintf(stderr, "observed: %s\n", mistake)
		return o, usageError{errors.New(mistake)}
	}
	return o, nil
}

// run runs the service until the time is over or the context ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	inventory, err := startInventory(o.schedule)
	if err != nil {
		return err
	}
	defer inventory.Close()
	s, err := startService(o.addr, o.file, inventory.URL, slog.New(slog.NewTextHandler(stderr, nil)), stdout)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, `The service runs. Look at
  %[1]s/debug/resilience/  the dashboard
  %[1]s/metrics            what Prometheus reads: grep resilience_
  %[1]s/debug/pipelines    the same as JSON
  %[1]s/order              a call; try it during an outage
The log (standard error) shows when the breaker opens and closes, and which policy refuses calls.
Below are traces of calls in which a policy did something. The inventory fails for %[2]v after every %[3]v.

`, s.url, o.schedule.outage, o.schedule.calm)
	load(ctx, s, o.rate)
	return s.Close()
}
