// Package resilienceconfig loads pipelines from a YAML file, and changes them while the program runs
// when the file changes. What a policy has counted stays: a breaker that is open when a file is saved
// is still open afterward.
//
//	# pipelines.yaml
//	budgets:
//	  extra: {ratio: 0.1, minPerSecond: 1}
//	policies:                         # shared by name
//	  users-breaker: {breaker: {failureRate: 0.5, window: 2s, openFor: 1s}}
//	pipelines:
//	  users:                          # outermost first
//	    - timeout: {limit: 400ms}
//	    - retry: {maxAttempts: 2, budget: extra}
//	    - use: users-breaker
//	    - timeout: {limit: 120ms}
//	  invoices:
//	    - atMostOnce
//	    - use: users                  # a pipeline may use another pipeline
//
// [Load] reads a file, and [Set.Pipeline] returns a pipeline of it as a [resilience.Policy]:
//
//	set, err := resilienceconfig.Load("pipelines.yaml", resilienceconfig.Options{})
//	users := set.Pipeline("users") // always the same policy
//	order, err := resilience.Do(ctx, users, fetchOrder)
//	go set.Watch(ctx, "pipelines.yaml", func(d resilienceconfig.Diff, err error) { ... })
//
// A file has three sections. The keys of a policy's or budget's fields are the names of the fields of
// its Config with a lowercase first letter; docs/config.md lists them all.
//
//   - budgets: [budget.Budget] by name
//   - policies: policies by name, each of one kind: timeout, retry, hedge, breaker, shed, bulkhead,
//     ratelimit, adaptive, or throttle
//   - pipelines: lists of policies by name. An item is a policy, use with the name of a policy or of
//     another pipeline, or atMostOnce.
//
// A budget, breaker, or bulkhead under policies or budgets is shared by everything that uses it. What
// is written inline in a pipeline belongs to this pipeline, and to those that use it. For separate
// policies, for example for each host, use [Set.Make] and inline policies.
//
// A file is checked completely, by [Parse], before anything changes: a file with an error changes
// nothing. [Errors] has all errors, with their places.
//
// A call through a pipeline costs one atomic load and no allocation more than without this package
// (BenchmarkHandle).
package resilienceconfig

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/effector-go/resilience"
)

// Options are what a file can't contain. The zero Options are valid.
type Options struct {
	// Funcs are the functions that the file may name, for fields such as classify and onStateChange.
	// Each must have the type of its field, and must not be nil. The schedule of a retry may be the
	// name of a func() backoff.BackOff. Default none.
	Funcs map[string]any

	// Env returns the value of a variable and whether it is set, as [os.LookupEnv] does. It is called
	// for ${NAME} and ${NAME:-default} in values; a default also replaces an empty value. $$ is a $.
	// What it returns is never read as YAML. Default nil: nothing is replaced.
	Env func(name string) (string, bool)

	// Wrap creates what represents a pipeline, for example an observed one: obs.Pipeline(name, p...).
	// It is called once for each pipeline in the file, with the policies of the pipelines that it
	// uses in their place, once for each pipeline that Make returns, and again if the list of
	// policies changes. It must not return nil, and must not call Make, Update, or Watch. Default: p
	// itself.
	Wrap func(name string, p resilience.Pipeline) resilience.Policy

	// Interval is the time between two readings of a file by Watch. It must not be negative. Default
	// 2 s.
	Interval time.Duration
}

const defaultInterval = 2 * time.Second

// A File is a file that was checked and is valid. It doesn't change and is safe for concurrent use.
type File struct {
	options   Options
	sum       [sha256.Size]byte // of the content
	budgets   []named           // in file order, as the others
	policies  []named
	pipelines []*pipeline

	specs  map[string]*spec     // under policies
	byName map[string]*pipeline // under pipelines

	notes     []string
	effective []byte
}

// Parse checks the content of a file and returns it. It creates no policies and makes no calls,
// except of Options.Env. The error is an [Errors], with every error in the file.
//
// It takes a second or two for the largest files. Larger ones are refused: those with more than
// 1 MiB, with more than 20,000 lines or 20,000 characters that YAML gives a meaning, with more than
// 50 levels, or with pipelines of more than 100 items.
func Parse(data []byte, o Options) (*File, error) {
	if o.Interval < 0 {
		return nil, Errors{{Path: "Options.Interval", Message: fmt.Sprintf("is %v, must be positive, or 0 for %v", o.Interval, defaultInterval)}}
	}
	t := &tree{env: o.Env}
	root := t.read(data)
	r := &reader{
		options: o, file: &File{options: o, sum: sha256.Sum256(data)}, errs: t.errs,
		knownFuncs: keysOf(o.Funcs), suggestions: map[*Error]suggestion{},
	}
	if root != nil {
		r.read(root)
		r.checkUses()
	}
	if len(r.errs) == 0 {
		r.complete()
	}
	if len(r.errs) > 0 {
		return nil, r.finish()
	}
	return r.file, nil
}

// Load reads the file at path, checks it, and creates its pipelines. The error names the path. It
// wraps an [Errors] if the file is invalid.
func Load(path string, o Options) (*Set, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, &fileError{path, err}
	}
	f, err := Parse(data, o)
	if err != nil {
		return nil, &fileError{path, err}
	}
	return New(f), nil
}

// readFile reads a regular file. It reads at most one byte more than a file may have. It opens
// nothing else: opening a pipe would block.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("is a %s, must be a regular file", fileKind(info.Mode()))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	return data, withoutPath(err)
}

// withoutPath removes the path from an error of package os, because [fileError] names it.
func withoutPath(err error) error {
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		return fmt.Errorf("%s: %w", pathErr.Op, pathErr.Err)
	}
	return err
}

func fileKind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeNamedPipe != 0:
		return "pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}

// Notes returns what is valid but looks wrong, each with its place, in file order: policies in an
// order that docs/composition.md calls wrong. After the first 100, one more states how many follow.
func (f *File) Notes() []string { return slices.Clone(f.notes) }
