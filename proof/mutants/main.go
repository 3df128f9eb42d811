// Command mutants measures how well the tests notice faults. It makes mutants of the root module's
// packages: copies with one small fault each, such as a negated condition, a removed call, or a
// lock that isn't taken. The tests must fail for each of them.
//
//	go run ./proof/mutants                            # all, for hours; -cache FILE to resume an interrupted run
//	go run ./proof/mutants -sample 40 -seed 7         # some, as CI does
//	go run ./proof/mutants -run 'breaker/'            # those whose ID matches
//	go run ./proof/mutants -run 'breaker/' -list      # what would be tried
//	go run ./proof/mutants -cache /tmp/m -update      # also writes the scores to the page on reliability
//
// A mutant's ID is its package, function, kind, and ordinal among those of its kind in the
// function: breaker/Breaker.Do/negate/2. It doesn't change when code moves within a package or when
// other functions change. Manually written faults, which no generator makes, have a description in
// place of the ordinal (faults.tsv).
//
// The tests of the mutant's package run first. If they pass, the tests of proof/ run that import
// the package; for an internal package, also those of the packages that import it. If all pass and
// the fault is about atomics or locks, the package's tests run under the race detector. A mutant is
// killed if a test fails, panics, or exceeds ten times its usual time. A mutant that doesn't
// compile isn't counted.
//
// A survivor is either equivalent, so that no test can notice it, or shows that a test is missing.
// The file survivors.tsv explains each. The exit status is 1 if a mutant survives without an
// explanation, if one is killed although it is explained, or if an explanation or a manual fault
// doesn't fit the code any more or doesn't compile. It is 2 for wrong flags.
//
// All mutants take hours. With -cache, an interrupted run continues where it ended, and -run may try
// one package after the other, or a sample of it; -update then writes the scores of the packages
// that have results for all mutants in the file, or for 100 at least, and marks the others as not
// measured. Survivors without an explanation are tried again. Otherwise the file doesn't notice
// changes of other code or of tests: delete it then.
//
// To save builds, the mutants of a package are compiled into one program. Each mutated function
// begins with a switch over a variable, which the environment sets, with a copy of the body for
// each mutant. Go's -overlay replaces the files, so the tree doesn't change. Tests that fail in
// this program because of the switches, such as those that count allocations, run again for each
// survivor, with only its fault compiled.
//
// Why no existing tool: gremlins v0.6.0 (github.com/go-gremlins/gremlins), the best maintained,
// builds one program for each mutant, runs either the package's tests or all of one module's, and
// can't sample or list equivalent mutants.
package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program immediately
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// config is what the flags set.
type config struct {
	which                 *regexp.Regexp
	sample, workers       int
	seed                  uint64
	slack                 time.Duration
	cache                 string
	list, update, verbose bool
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
	ok, err := hunted(ctx, cfg, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
	}
	if !ok || err != nil {
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (cfg config, err error) {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(stderr)
	which := flags.String("run", "", "try only mutants whose ID matches the `regexp`")
	flags.IntVar(&cfg.sample, "sample", 0, "try only this `many` of the generated mutants, without those that need the race detector; 0 for all")
	flags.Uint64Var(&cfg.seed, "seed", 1, "`number` that selects the sample")
	flags.IntVar(&cfg.workers, "j", runtime.GOMAXPROCS(0), "`mutants` to try concurrently")
	flags.DurationVar(&cfg.slack, "timeout", 5*time.Second, "`time` that tests may take in addition to ten times their usual time")
	flags.StringVar(&cfg.cache, "cache", "", "`file` that keeps results, to resume an interrupted run")
	flags.BoolVar(&cfg.list, "list", false, "list the mutants and run nothing")
	flags.BoolVar(&cfg.update, "update", false, "write the scores to "+page)
	flags.BoolVar(&cfg.verbose, "v", false, "print each result as soon as it is known")
	if err := flags.Parse(args); err != nil {
		return cfg, err
	}
	switch {
	case flags.NArg() > 0:
		return cfg, fmt.Errorf("unexpected argument %q: only flags are accepted, see -help", flags.Arg(0))
	case cfg.sample < 0 || cfg.workers < 1 || cfg.slack <= 0:
		return cfg, errors.New("-j and -timeout must be positive, and -sample must not be negative")
	}
	cfg.which, err = regexp.Compile(*which)
	return cfg, err
}

// hunted tries the mutants and prints the report. It reports whether nothing needs attention.
func hunted(ctx context.Context, cfg config, stdout, stderr io.Writer) (ok bool, err error) {
	w, err := load(ctx)
	if err != nil {
		return false, err
	}
	explained, err := explanations(survivorsTable)
	if err != nil {
		return false, err
	}
	fits := w.check(stderr, explained)
	chosen := choose(w.mutants, cfg)
	if cfg.list {
		for _, m := range chosen {
			fmt.Fprintf(stdout, "%s  %s  (%s)\n", m.id, m.change(), m.position())
		}
		fmt.Fprintf(stdout, "%d mutants\n", len(chosen))
		return fits, nil
	}
	known, file, err := openCache(cfg.cache)
	if err != nil {
		return false, err
	}
	for _, m := range chosen {
		if _, ok := explained[m.id]; !ok && known[m.key()] == "" {
			delete(known, m.key()) // a test may have been added since it survived
		}
	}
	results, err := tryAll(ctx, cfg, w, chosen, known, file, func(r result) {
		if cfg.verbose {
			fmt.Fprintln(stderr, r.line(r.state(explained)))
		}
	}, stderr)
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	ok = report(stdout, results, explained) && fits
	if err != nil || !cfg.update {
		return ok, err
	}
	for _, m := range w.mutants {
		if by, tried := known[m.key()]; tried && !slices.Contains(chosen, m) {
			results = append(results, result{m, by})
		}
	}
	name := filepath.Join(w.root, filepath.FromSlash(page))
	text, err := os.ReadFile(name)
	if err == nil {
		text, err = withScores(text, w.mutants, results, explained)
	}
	if err == nil {
		err = os.WriteFile(name, text, 0o644)
	}
	return ok, err
}

// A world is the code under test: the root module's packages with their mutants.
type world struct {
	root             string
	mutated, provers []*goPackage
	functions        []*function
	mutants          []*mutant
	misfits          []string // manual faults that don't fit the code
}

// load finds the root module, from anywhere in the workspace, and generates its mutants.
func load(ctx context.Context) (*world, error) {
	const module = "github.com/effector-go/resilience"
	mutated, err := list(ctx, ".", module+"/...")
	if err != nil {
		return nil, err
	}
	w := new(world)
	for _, p := range mutated {
		switch {
		case p.ImportPath == module+"/internal/pipelines": // for tests
		case p.Module.Path == module:
			w.root, w.mutated = p.Module.Dir, append(w.mutated, p)
		case p.Module.Path == module+"/proof":
			w.provers = append(w.provers, p)
		}
	}
	for _, p := range w.mutated {
		fns, err := functions(p, os.ReadFile)
		if err != nil {
			return nil, err
		}
		for _, f := range fns {
			w.mutants = append(w.mutants, generate(f)...)
		}
		w.functions = append(w.functions, fns...)
	}
	faults, err := rows("faults.tsv", faultsTable, 4)
	if err != nil {
		return nil, err
	}
	for _, f := range faults {
		m, err := findFault(f, w.functions)
		if err != nil {
			w.misfits = append(w.misfits, err.Error())
		} else {
			w.mutants = append(w.mutants, m)
		}
	}
	return w, nil
}

// check prints which lines of the tables don't fit the code, and reports whether all do.
func (w *world) check(stderr io.Writer, explained map[string]explanation) (ok bool) {
	misfits := append(stale(explained, w.mutants), w.misfits...)
	for _, misfit := range misfits {
		fmt.Fprintln(stderr, misfit)
	}
	return len(misfits) == 0
}

// choose returns the mutants that match the flags. A sample depends only on the seed and the IDs: a
// mutant that is added or removed changes one of it.
func choose(mutants []*mutant, cfg config) (chosen []*mutant) {
	for _, m := range mutants {
		if cfg.which.MatchString(m.id) && (cfg.sample == 0 || !slices.Contains(racy, m.kind)) {
			chosen = append(chosen, m)
		}
	}
	if cfg.sample == 0 || cfg.sample >= len(chosen) {
		return chosen
	}
	rank := map[*mutant]string{}
	for _, m := range chosen {
		hash := sha256.Sum256(fmt.Appendf(nil, "%d %s", cfg.seed, m.id))
		rank[m] = string(hash[:])
	}
	slices.SortFunc(chosen, func(a, b *mutant) int { return cmp.Compare(rank[a], rank[b]) })
	return chosen[:cfg.sample]
}

// tryAll tries the mutants without a known result, one package after the other, and appends their
// results to the file, if it isn't nil. It returns the results that it has even if there is an error.
func tryAll(ctx context.Context, cfg config, w *world, mutants []*mutant, known map[string]string, file *os.File, settled func(result), stderr io.Writer) (results []result, err error) {
	step := progress(len(mutants), stderr)
	var mu sync.Mutex
	var writeErr error
	settle := func(r result, fresh bool) {
		mu.Lock()
		defer mu.Unlock()
		results = append(results, r)
		step(r.file.pkg.label())
		settled(r)
		if fresh && file != nil && writeErr == nil {
			_, writeErr = fmt.Fprintf(file, "%s\t%s\n", r.key(), r.killedBy)
		}
	}
	h := &hunt{
		root: w.root, slack: cfg.slack, workers: cfg.workers, mutated: w.mutated, provers: w.provers,
		settled: func(r result) { settle(r, true) },
	}
	for _, p := range w.mutated {
		var todo []*mutant
		for _, m := range mutants {
			if by, ok := known[m.key()]; m.file.pkg == p && ok {
				settle(result{m, by}, false)
			} else if m.file.pkg == p {
				todo = append(todo, m)
			}
		}
		if len(todo) == 0 {
			continue
		}
		if pkgErr := h.pkg(ctx, p, todo); pkgErr != nil { // the other packages may do
			err = errors.Join(err, fmt.Errorf("%s: %w", p.label(), pkgErr))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return results, errors.Join(err, writeErr)
}

// openCache reads a file of results and opens it to append others. It has a line for each: the
// mutant's key and what killed it, separated by a tab. No name means no file.
func openCache(name string) (known map[string]string, file *os.File, err error) {
	known = map[string]string{}
	if name == "" {
		return known, nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	for line := range strings.Lines(string(text)) {
		if i := strings.LastIndex(line, "\t"); i >= 0 && strings.HasSuffix(line, "\n") { // an interruption may leave half a line
			known[line[:i]] = line[i+1 : len(line)-1]
		}
	}
	file, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	return known, file, err
}

// key identifies the mutant and its change in the file of results.
func (m *mutant) key() string { return m.id + "\t" + m.change() }

// progress returns a function that shows on a terminal that one more of the steps is done.
func progress(steps int, stderr io.Writer) func(doing string) {
	file, ok := stderr.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func(string) {}
	}
	bar := progressbar.NewOptions(steps,
		progressbar.OptionSetWriter(stderr),
		progressbar.OptionSetWidth(40),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
	)
	return func(doing string) { // an error of the bar is one of stderr: there is nothing to do about it
		bar.Describe(fmt.Sprintf("%-24s", doing))
		bar.Add(1)
	}
}
