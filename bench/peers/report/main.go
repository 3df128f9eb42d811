// Report measures this library beside its peers and writes docs/performance.md: tables, plots and what each library does where
// calls go wrong. It runs the benchmarks of ./bench and ./bench/peers in rounds, one round of everything after the other.
//
//	go run ./bench/peers/report          # some 15 minutes
//	go run ./bench/peers/report -quick   # two or three, to look at
//	go run ./bench/peers/report -check   # about two: exits 1 where a cost is over its bound
//
// It exits with 2 where it cannot do what is asked.
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

// machineProcs is how many processors Go uses here.
var machineProcs = runtime.GOMAXPROCS(0)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(start(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// start does what args ask for and returns the exit code.
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

// options are what the flags say.
type options struct {
	rounds    int
	benchtime string
	procs     []int
	out       string // "" for docs of the module
	quick     bool
	check     bool
	save      string
	load      string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&o.rounds, "rounds", 0, "how often everything is run; an interval needs 6"+
		" (default 8, 90 with -check, 1 with -quick)")
	flags.StringVar(&o.benchtime, "benchtime", "", "how long, or with a trailing x how often, each benchmark is run in a round"+
		" (default 30ms, 10ms with -check or -quick)")
	cpu := flags.String("cpu", "1,2,4,8", "the numbers of processors on which the parallel benchmarks are run, in ascending order")
	flags.StringVar(&o.out, "out", "", "the folder that is written to (default docs of the module)")
	flags.BoolVar(&o.quick, "quick", false, "measure shortly: to see what the report looks like")
	flags.BoolVar(&o.check, "check", false, "write nothing, but exit with 1 where a cost is over its bound by more than the noise")
	flags.StringVar(&o.save, "save", "", "a file to which the measurements are written, for benchstat or -load")
	flags.StringVar(&o.load, "load", "", "a file of -save to make the report of, instead of measuring")
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
	rounds, benchtime := 8, "30ms"
	switch {
	case o.check:
		rounds, benchtime = 90, "10ms"
	case o.quick:
		rounds, benchtime = 1, "10ms"
	}
	if !given["rounds"] {
		o.rounds = rounds
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
	if o.check && o.rounds < 11 {
		errs = append(errs, fmt.Errorf("-rounds %d: -check needs at least 11, for an interval", o.rounds))
	}
	if !validBenchtime(o.benchtime) {
		errs = append(errs, fmt.Errorf("-benchtime %s: must be a time such as 100ms, or a count such as 1000x", o.benchtime))
	}
	if o.check {
		for _, name := range []string{"out", "quick", "cpu", "load"} {
			if given[name] {
				errs = append(errs, fmt.Errorf("-%s: has no meaning with -check", name))
			}
		}
	}
	if o.load != "" && (given["rounds"] || given["benchtime"] || given["cpu"] || o.quick || o.save != "") {
		errs = append(errs, errors.New("-load: takes the measurements of a file, so that only -out has a meaning beside it"))
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

// errOver is that a cost is over its bound.
var errOver = errors.New("over the bound")

// checkConfidence is that of the intervals that decide in CI: a false alarm in a thousand runs of each bound is enough.
const checkConfidence = 0.999

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
	broken, err := twice(bounds, o.rounds, func(bounds []bound, rounds int) ([]bound, error) {
		o.rounds = rounds
		r, err := o.measured(ctx, only(suites, rowsOf(bounds)), stderr)
		if err != nil {
			return nil, err
		}
		o.save = "" // the first look is of everything
		findings, err := findAll(r, bounds, checkConfidence)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(stdout, "By %d rounds:\n", rounds)
		return tell(stdout, findings), nil
	})
	if err == nil && len(broken) > 0 {
		err = fmt.Errorf("%d of %d costs are %w", len(broken), len(bounds), errOver)
	}
	return err
}

// twice looks at the bounds, and once more, longer, at those that seem broken: what a neighbour on the machine did to one
// measurement it seldom does to two. It returns those that are broken both times.
func twice(bounds []bound, rounds int, look func([]bound, int) ([]bound, error)) (broken []bound, err error) {
	suspects, err := look(bounds, rounds)
	if err != nil || len(suspects) == 0 {
		return nil, err
	}
	return look(suspects, 2*rounds)
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
	if _, err := openDocs(out); err != nil { // before anything is measured
		return err
	}
	suites, err := compileAll(ctx, root, folder)
	if err != nil {
		return err
	}
	answers, err := behaviours(ctx, suites[1])
	if err != nil {
		return err
	}
	r, err := o.measured(ctx, everything(suites, o.procs), stderr)
	if err != nil {
		return err
	}
	docs, err := openDocs(out) // again: measuring takes long, and somebody may have written meanwhile
	if err != nil {
		return err
	}
	written, err := docs.write(r, answers)
	for _, name := range written {
		fmt.Fprintln(stdout, name)
	}
	return err
}

// workplace finds the module and makes a folder for what is compiled.
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

// measured makes the measurements, or takes those of a file.
func (o options) measured(ctx context.Context, passes []pass, progress io.Writer) (*results, error) {
	var text string
	name := "measurements"
	if o.load != "" {
		data, err := os.ReadFile(o.load)
		if err != nil {
			return nil, err
		}
		text, name = string(data), o.load
	} else {
		measurements, err := measure(ctx, passes, o.rounds, o.benchtime, progress)
		if err != nil {
			return nil, err
		}
		text = header(o, time.Now()) + measurements
	}
	if o.save != "" {
		if err := os.WriteFile(o.save, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	r := newResults()
	if err := r.read(strings.NewReader(text), name); err != nil {
		return nil, err
	}
	return r, r.check()
}
