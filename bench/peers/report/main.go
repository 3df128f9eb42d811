// Report compares the costs of this library with those of its alternatives and writes
// docs/performance.md, docs/internals/measurements.md, and the tables of docs/internals/locks.md.
// It runs the benchmarks of ./bench and ./bench/peers in rounds: one round of all of them after the
// other.
//
//	go run ./bench/peers/report          # about 20 minutes
//	go run ./bench/peers/report -quick   # 2 to 3 minutes, to see what the pages look like
//	go run ./bench/peers/report -check   # at most 4 minutes: exits with 1 if a cost is over its bound
//
// It exits with 2 if it can't do what is asked.
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
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machineProcs is how many processors Go uses on this machine.
var machineProcs = runtime.GOMAXPROCS(0)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(start(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// start does what the arguments ask and returns the exit code.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "report:", err)
		return 2
	}
	do := report
	if o.check {
		do = check
	}
	switch err := do(ctx, o, stdout, stderr); {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintln(stderr, "report: interrupted, nothing was written")
		return 130
	case errors.Is(err, errOver):
		fmt.Fprintln(stderr, "report:", err)
		return 1
	case err != nil:
		fmt.Fprintln(stderr, "report:", err)
		return 2
	}
	return 0
}

// options are the values of the flags.
type options struct {
	rounds    int
	most      int
	benchtime string
	procs     []int
	out       string // "" for docs in the module
	quick     bool
	check     bool
	save      string
	load      string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&o.rounds, "rounds", 0, "the number of rounds of all benchmarks; an interval needs 6 (default 8, 1 with -quick)")
	flags.IntVar(&o.most, "max-rounds", 0, "the largest number of rounds of the benchmarks that a bound needs;"+
		" measuring ends earlier once all bounds are decided (default 320, 80 with -check, 6 with -quick)")
	flags.StringVar(&o.benchtime, "benchtime", "", "the duration of each benchmark in a round, or with a trailing x the number of calls"+
		" (default 30ms, 10ms with -check or -quick)")
	cpu := flags.String("cpu", "1,2,4,8", "the numbers of processors for parallel benchmarks, in ascending order")
	flags.StringVar(&o.out, "out", "", "the folder to write to (default docs in the module)")
	flags.BoolVar(&o.quick, "quick", false, "measure briefly, to see what the pages look like")
	flags.BoolVar(&o.check, "check", false, "write nothing, but exit with 1 if a cost is over its bound by more than the noise")
	flags.StringVar(&o.save, "save", "", "the file to write the measurements to, for benchstat or -load")
	flags.StringVar(&o.load, "load", "", "the file to read measurements from, written with -save, instead of measuring")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(stderr)
			flags.Usage()
		}
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q: there are only flags, see -help", flags.Arg(0))
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	o.defaults(given)
	return o, errors.Join(o.parseProcs(*cpu), o.validate(given))
}

func (o *options) defaults(given map[string]bool) {
	rounds, most, benchtime := 8, 320, "30ms"
	switch {
	case o.check:
		most, benchtime = 80, "10ms"
	case o.quick:
		rounds, most, benchtime = 1, 6, "10ms"
	}
	if !given["rounds"] {
		o.rounds = rounds
	}
	if !given["max-rounds"] {
		o.most = most
	}
	if !given["benchtime"] {
		o.benchtime = benchtime
	}
}

func (o *options) parseProcs(list string) error {
	for _, text := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > 1024 {
			return fmt.Errorf("-cpu %s: %q is not a number from 1 to 1024", list, text)
		}
		if len(o.procs) > 0 && n <= o.procs[len(o.procs)-1] {
			return fmt.Errorf("-cpu %s: the numbers must ascend", list)
		}
		o.procs = append(o.procs, n)
	}
	return nil
}

func (o *options) validate(given map[string]bool) error {
	var errs []error
	if o.rounds < 1 || o.rounds > 10_000 {
		errs = append(errs, fmt.Errorf("-rounds %d: must be from 1 to 10000", o.rounds))
	}
	if o.most < 1 || o.most > 10_000 {
		errs = append(errs, fmt.Errorf("-max-rounds %d: must be from 1 to 10000", o.most))
	}
	if o.check && o.most < 11 {
		errs = append(errs, fmt.Errorf("-max-rounds %d: -check needs at least 11, for an interval", o.most))
	}
	if !validBenchtime(o.benchtime) {
		errs = append(errs, fmt.Errorf("-benchtime %s: must be a duration such as 100ms, or a count such as 1000x", o.benchtime))
	}
	if o.check {
		for _, name := range []string{"rounds", "out", "quick", "cpu", "load"} {
			if given[name] {
				errs = append(errs, fmt.Errorf("-%s: can't be used with -check", name))
			}
		}
	}
	if o.load != "" && (given["rounds"] || given["max-rounds"] || given["benchtime"] || given["cpu"] || o.quick || o.save != "") {
		errs = append(errs, errors.New("-load: reads measurements from a file, so of the other flags only -out can be used"))
	}
	return errors.Join(errs...)
}

func validBenchtime(s string) bool {
	if count, ok := strings.CutSuffix(s, "x"); ok {
		n, err := strconv.Atoi(count)
		return err == nil && n > 0
	}
	d, err := time.ParseDuration(s)
	return err == nil && d > 0
}

// errOver is the error of check if a cost is over its bound.
var errOver = errors.New("over the bound")

const (
	// firstLook is the number of rounds after which bounds are decided for the first time.
	firstLook = 20
	// checkConfidence is that of the intervals that decide in CI: one false alarm in a thousand
	// runs of each bound, for one look.
	checkConfidence = 0.999
	// decideConfidence is that of the intervals that decide when to stop measuring for the pages.
	// It is higher than that of the pages' intervals, because looking several times makes it more
	// probable that chance decides.
	decideConfidence = 0.99
)

func check(ctx context.Context, o options, stdout, stderr io.Writer) error {
	root, folder, remove, err := workplace(ctx)
	if err != nil {
		return err
	}
	defer remove()
	suites, err := compileAll(ctx, root, folder)
	if err != nil {
		return err
	}
	saved := header(o, time.Now())
	over, err := twice(bounds, o.most, func(bounds []bound, most int) ([]bound, error) {
		r := newResults()
		// A bound that isn't met is measured in all rounds, so that chance gets only one look to
		// miss it.
		notMet := func(f finding) bool { return f.standing() != met }
		err := decide(r, bounds, nil, firstLook, most, notMet, func(rows []row, from, to int) (string, error) {
			text, err := measure(ctx, only(suites, rows), from, to, o.benchtime, stderr)
			saved += text
			return text, err
		}, checkConfidence)
		if err != nil {
			return nil, err
		}
		if o.save != "" { // only the first measurement, which is of all bounds
			if err := os.WriteFile(o.save, []byte(saved), 0o644); err != nil {
				return nil, err
			}
			o.save = ""
		}
		findings, err := findAll(r, bounds, checkConfidence)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(stdout, "After at most %d rounds:\n", r.rounds())
		return printFindings(stdout, findings), nil
	})
	if err == nil && len(over) > 0 {
		err = fmt.Errorf("%d of %d costs are %w", len(over), len(bounds), errOver)
	}
	return err
}

// twice measures the bounds, then measures those that seem missed again, in twice as many rounds.
// Other processes on the machine seldom disturb both measurements. It returns the bounds that are
// missed both times.
func twice(bounds []bound, most int, look func([]bound, int) ([]bound, error)) (over []bound, err error) {
	suspects, err := look(bounds, most)
	if err != nil || len(suspects) == 0 {
		return nil, err
	}
	return look(suspects, 2*most)
}

func report(ctx context.Context, o options, stdout, stderr io.Writer) error {
	root, folder, remove, err := workplace(ctx)
	if err != nil {
		return err
	}
	defer remove()
	out := o.out
	if out == "" {
		out = filepath.Join(root, "docs")
	}
	if _, err := openDocs(out); err != nil { // before measuring
		return err
	}
	suites, err := compileAll(ctx, root, folder)
	if err != nil {
		return err
	}
	peers, err := peersText(ctx, suites[1].dir)
	if err != nil {
		return err
	}
	answers, err := behaviors(ctx, suites[1])
	if err != nil {
		return err
	}
	m, err := o.measurements(ctx, suites, stderr)
	if err != nil {
		return err
	}
	docs, err := openDocs(out) // again: someone may have edited the pages during the measurement
	if err != nil {
		return err
	}
	written, err := docs.write(m, answers, peers)
	for _, name := range written {
		fmt.Fprintln(stdout, name)
	}
	return err
}

// workplace finds the module and creates a folder for binaries.
func workplace(ctx context.Context) (root, folder string, remove func(), err error) {
	root, err = moduleRoot(ctx)
	if err != nil {
		return "", "", nil, err
	}
	folder, err = os.MkdirTemp("", "report")
	return root, folder, func() { os.RemoveAll(folder) }, err
}

// compileAll compiles the benchmarks of bench and of bench/peers.
func compileAll(ctx context.Context, root, folder string) ([]suite, error) {
	var suites []suite
	for _, dir := range []string{filepath.Join(root, "bench"), filepath.Join(root, "bench", "peers")} {
		s, err := compile(ctx, dir, folder)
		if err != nil {
			return nil, err
		}
		suites = append(suites, s)
	}
	return suites, nil
}

// measurements measures, or reads the measurements from the file of -load.
func (o options) measurements(ctx context.Context, suites []suite, stderr io.Writer) (measurements, error) {
	m := newMeasurements()
	if o.load != "" {
		file, err := os.Open(o.load)
		if err != nil {
			return m, err
		}
		defer file.Close()
		if err := m.read(file, o.load); err != nil {
			return m, err
		}
		return m, m.all.check()
	}

	head := header(o, time.Now())
	fmt.Fprintln(stderr, "all benchmarks:")
	all, err := measure(ctx, everything(suites, o.procs), 0, o.rounds, o.benchtime, stderr)
	if err != nil {
		return m, err
	}
	all = head + partAll + all
	if err := m.read(strings.NewReader(all), "measurements"); err != nil {
		return m, err
	}
	if err := m.all.check(); err != nil {
		return m, err
	}

	fmt.Fprintln(stderr, "benchmarks that a bound needs, until the bounds are decided:")
	ofBounds := partBounds
	open := func(f finding) bool { return f.standing() == undecided }
	err = decide(m.bounds, bounds, rowsOfCalls(), firstLook, o.most, open, func(rows []row, from, to int) (string, error) {
		text, err := measure(ctx, only(suites, rows), from, to, o.benchtime, stderr)
		ofBounds += text
		return head + text, err
	}, decideConfidence)
	if err != nil {
		return m, err
	}
	if o.save != "" {
		return m, os.WriteFile(o.save, []byte(all+ofBounds), 0o644)
	}
	return m, nil
}
