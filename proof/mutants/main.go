// Command mutants asks whether the tests would notice. It puts small faults into the core, one at a time: a comparison turned,
// a compare-and-swap made a store, a lock left out, a deadline off by one. For each the tests must fail.
//
//	go run ./proof/mutants                     # all, an hour
//	go run ./proof/mutants -short              # some of every package, for CI: two minutes
//	go run ./proof/mutants -short -seed 7      # some others
//	go run ./proof/mutants -run 'budget|spent' # those whose line in the report matches
//	go run ./proof/mutants -list -v            # the faults themselves; nothing runs
//	go run ./proof/mutants -update             # puts the counts, and why some must survive, into docs/internals/reliability.md; nothing runs
//
// First the tests run as they are, and must pass; with -short they are taken to. Then each fault, a mutant, is laid over its file by go's -overlay, so that
// the tree is neither changed nor copied, and the tests of its package run; if they pass, those of proof/ that are about it; if
// these pass too, those of its package under the race detector. A mutant is killed by a test that fails, panics or hangs. One
// that does not compile is a mistake in the table.
//
// Some faults change nothing that anybody could see. The table gives the reason for each of these, and they must survive: one that
// is killed has a wrong reason. The exit status is 0 if all is as the table says, 1 if not, 2 for a mistake in the flags.
//
// The faults are a table of patches (the files table_*.go) and not made by a tool, because those that matter in lock-free code are
// of meaning: a store where there must be a swap, two reads in the other order. Each patch names text that must
// occur just once in its file, so the table cannot grow stale unnoticed. Tools were tried with Go 1.26: gremlins v0.6.0
// (github.com/go-gremlins/gremlins) builds and works. It turns operators only, copies the tree for every worker, takes the
// conditions of a switch for code that no test reaches, and cannot be told of mutants that are equivalent. It is good for finding
// weak spots, and a part of this table came from its survivors. go-mutesting, avito-tech's fork of it, and ooze could
// not be had through the module proxy that this was written behind.
//
// The files, in the order to read them: mutant.go, trial.go, report.go, then the tables.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// config is what the flags say.
type config struct {
	which   *regexp.Regexp
	workers int
	short   bool
	seed    int
	list    bool
	update  bool
	verbose bool
	limit   time.Duration
}

// run is the program; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "mutants:", err)
		return 2
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return 1
	}
	mutants, err := load(root, tables)
	if err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return 1
	}
	if cfg.update {
		if err := updatePage(root, mutants); err != nil {
			fmt.Fprintln(stderr, "mutants:", err)
			return 1
		}
		return 0
	}
	mutants = choose(mutants, cfg)
	if cfg.list {
		printList(stdout, mutants, cfg.verbose)
		return 0
	}
	results, err := tryAll(ctx, cfg, root, mutants, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return 1
	}
	printReport(stdout, results, cfg.verbose)
	if !asExpected(results) {
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (cfg config, err error) {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by run
	which := flags.String("run", "", "only mutants whose line in the report matches the `regexp`")
	flags.IntVar(&cfg.workers, "j", runtime.GOMAXPROCS(0), "`mutants` at a time")
	flags.BoolVar(&cfg.short, "short", false, fmt.Sprintf("only about %d of the mutants that tests must notice, and no look at the tests without a fault", sample))
	flags.IntVar(&cfg.seed, "seed", 0, "with -short: which `ones`, 0 or more")
	flags.BoolVar(&cfg.list, "list", false, "list the mutants and run nothing")
	flags.BoolVar(&cfg.verbose, "v", false, "print the patches too, and each result when it is known")
	flags.BoolVar(&cfg.update, "update", false, "put the counts into "+page+" and run nothing")
	flags.DurationVar(&cfg.limit, "timeout", 30*time.Second, "`time` after which tests hang, and three times their own")

	err = flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stderr)
		flags.Usage()
		return cfg, err
	case err != nil:
		return cfg, err
	case flags.NArg() > 0:
		return cfg, fmt.Errorf("unexpected argument %q: there are only flags (-help lists them)", flags.Arg(0))
	case cfg.workers < 1:
		return cfg, fmt.Errorf("-j is %d, must be at least 1", cfg.workers)
	case cfg.seed < 0:
		return cfg, fmt.Errorf("-seed is %d, must be 0 or more", cfg.seed)
	case cfg.limit <= 0:
		return cfg, fmt.Errorf("-timeout is %v, must be positive", cfg.limit)
	}
	cfg.which, err = regexp.Compile(*which)
	return cfg, err
}

// moduleRoot is the folder of the module under test, from anywhere in the workspace.
func moduleRoot(ctx context.Context) (string, error) {
	const module = "github.com/effector-go/resilience"
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("cannot find module %s, run this in its tree: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// sample is how many mutants a short run tries.
const sample = 40

// choose gives the mutants that match. If the run is short, it gives some of those that tests must notice, evenly over the table, so that
// there are some of every package; and with the next seed the next ones.
func choose(mutants []mutant, cfg config) (chosen []mutant) {
	for _, m := range mutants {
		if cfg.which.MatchString(m.String()) && (m.equivalent == "" || !cfg.short) {
			chosen = append(chosen, m)
		}
	}
	if !cfg.short {
		return chosen
	}
	step := max(1, len(chosen)/sample)
	var some []mutant
	for i := cfg.seed % step; i < len(chosen); i += step {
		some = append(some, chosen[i])
	}
	return some
}

// tryAll tries the mutants, having seen that the tests pass without a fault. The results are in the order of the mutants.
func tryAll(ctx context.Context, cfg config, root string, mutants []mutant, stderr io.Writer) ([]result, error) {
	l, err := newLab(root, cfg.limit)
	if err != nil {
		return nil, err
	}
	defer l.close()
	healthy := l.suites(mutants)
	if cfg.short {
		healthy, l.limit = nil, 4*l.limit // how long they take is not known then
	}
	step := progress(len(healthy)+len(mutants), stderr)

	g, healthyCtx := errgroup.WithContext(ctx)
	g.SetLimit(cfg.workers)
	for _, s := range healthy {
		g.Go(func() error {
			defer step("tests without a fault: " + s.pkg)
			return l.measure(healthyCtx, s)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}

	results := make([]result, len(mutants))
	g = new(errgroup.Group)
	g.SetLimit(cfg.workers)
	for i, m := range mutants {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			results[i] = l.try(ctx, m)
			if ctx.Err() != nil {
				return nil // whatever the result is, it is of the interruption
			}
			step(m.file)
			if cfg.verbose {
				fmt.Fprintln(stderr, results[i])
			}
			return nil
		})
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return nil, err
	}
	return results, nil
}

// progress gives a function that shows on a terminal that one more of the steps is done.
func progress(steps int, stderr io.Writer) func(doing string) {
	file, ok := stderr.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func(string) {}
	}
	bar := progressbar.NewOptions(steps,
		progressbar.OptionSetWriter(stderr),
		progressbar.OptionSetWidth(40),
		progressbar.OptionShowCount(),
		progressbar.OptionClearOnFinish(),
	)
	return func(doing string) { // an error of the bar is one of stderr: nothing to do about it
		bar.Describe(fmt.Sprintf("%-40s", doing))
		bar.Add(1)
	}
}
