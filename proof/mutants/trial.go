package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A suite is the tests of one package, run in one way.
type suite struct {
	pkg   string // its folder, from the module's root
	race  bool
	count int
}

func (s suite) String() string {
	if s.race {
		return s.pkg + " -race"
	}
	return s.pkg
}

// others are the folders whose tests are about a package too, but for proof/faults: that takes as long as all the rest.
var others = map[string][]string{
	".":                    {"proof/pipeline"},
	"breaker":              {"proof/breaker", "proof/others"},
	"retry":                {"proof/retry", "proof/others"},
	"timeout":              {"proof/timeout", "proof/contexts"},
	"budget":               {"proof/budget"},
	"bulkhead":             {"proof/bulkhead"},
	"ratelimit":            {"proof/ratelimit"},
	"hedge":                {"proof/hedge"},
	"internal/detached":       {"timeout", "hedge"},
	"internal/fifo":        {"bulkhead", "ratelimit"},
	"internal/keyed":       {"ratelimit"},
	"internal/concurrency": {"adaptive", "proof/adaptive"},
	"internal/clock":       {"budget", "breaker", "timeout"},
	"internal/ctxkey":      {"timeout"},
	"internal/outcome":     {"shed", "breaker"},
	"internal/shared":      {"share", "debounce", "proof/share", "proof/debounce"},
	"shed":                 {"proof/shed"},
	"throttle":             {"proof/throttle"},
	"share":                {"proof/share"},
	"debounce":             {"proof/debounce"},
	"adaptive":             {"proof/adaptive"},
}

// suites are the tests that may kill a mutant of the package in dir, the quickest first.
func suites(dir string) []suite {
	all := []suite{{dir, false, 1}}
	for _, pkg := range others[dir] {
		all = append(all, suite{pkg, false, 1})
	}
	return append(all, suite{dir, true, 3}) // several times: a race is not met every time
}

// A lab builds tests and runs them. Its methods may be called by several goroutines at once, measure before try.
type lab struct {
	root     string
	scratch  string                   // a folder for what is built
	limit    time.Duration            // after which tests hang, beside three times their own
	suitesOf func(dir string) []suite // that may kill a mutant of a package, in their order

	mu    sync.Mutex
	times map[suite]time.Duration // that tests take without a fault
}

func newLab(root string, limit time.Duration) (*lab, error) {
	scratch, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return nil, err
	}
	return &lab{root: root, scratch: scratch, limit: limit, suitesOf: suites, times: map[suite]time.Duration{}}, nil
}

func (l *lab) close() { os.RemoveAll(l.scratch) } // what cannot be removed is in the system's temporary folder

// suites are those of all the mutants, each once.
func (l *lab) suites(mutants []mutant) (all []suite) {
	for _, m := range mutants {
		for _, s := range l.suitesOf(m.dir()) {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

// measure runs the suite without a fault. It must pass.
func (l *lab) measure(ctx context.Context, s suite) error {
	dir, err := os.MkdirTemp(l.scratch, "healthy-")
	if err != nil {
		return err
	}
	if err := l.build(ctx, s, dir, ""); err != nil {
		return fmt.Errorf("the tests of %v do not compile, without any fault: %w", s, err)
	}
	began := time.Now()
	if by := l.test(ctx, s, dir, 10*time.Minute); by != "" {
		return fmt.Errorf("the tests of %v fail without any fault: %s", s, by)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[s] = time.Since(began)
	return nil
}

// A result is what became of a mutant.
type result struct {
	mutant
	killedBy string // the test, "" if the mutant lives
	broken   error  // the mutant could not be tried
}

// try runs the suites on the mutant until one kills it.
func (l *lab) try(ctx context.Context, m mutant) result {
	dir, err := os.MkdirTemp(l.scratch, "mutant-")
	if err != nil {
		return result{mutant: m, broken: err}
	}
	defer os.RemoveAll(dir)
	overlay, err := l.overlay(dir, m)
	if err != nil {
		return result{mutant: m, broken: err}
	}
	for _, s := range l.suitesOf(m.dir()) {
		if err := l.build(ctx, s, dir, overlay); err != nil {
			return result{mutant: m, broken: err}
		}
		l.mu.Lock()
		limit := l.limit + 3*l.times[s]
		l.mu.Unlock()
		if by := l.test(ctx, s, dir, limit); by != "" {
			return result{mutant: m, killedBy: fmt.Sprintf("%v %s", s, by)}
		}
	}
	return result{mutant: m}
}

// overlay writes the mutant's file and what tells go to take it for the real one.
func (l *lab) overlay(dir string, m mutant) (string, error) {
	source, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	text, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(l.root, filepath.FromSlash(m.file)): source},
	})
	if err == nil {
		err = os.WriteFile(source, []byte(m.source), 0o600)
	}
	if err == nil {
		err = os.WriteFile(overlay, text, 0o600)
	}
	return overlay, err
}

// build makes the suite's test program in dir. overlay is "" for none. Building and running are two steps, so that a mutant
// which does not compile is not taken for one that a test has killed.
func (l *lab) build(ctx context.Context, s suite, dir, overlay string) error {
	args := []string{"test", "-c", "-vet=off", "-o", filepath.Join(dir, "tests")}
	if s.race {
		args = append(args, "-race")
	}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./"+s.pkg)...)
	cmd.Dir = l.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// test runs the test program that build made and returns what failed, "" if nothing did. Tests that take longer than limit fail.
func (l *lab) test(ctx context.Context, s suite, dir string, limit time.Duration) (failed string) {
	// The program ends itself at the limit. Where it cannot, it is killed.
	ctx, cancel := context.WithTimeout(ctx, limit+10*time.Second)
	defer cancel()
	args := []string{"-test.failfast", fmt.Sprintf("-test.timeout=%v", limit), fmt.Sprintf("-test.count=%d", s.count)}
	if s.pkg == "proof/breaker" {
		args = append(args, "-test.short") // the model then tries fewer cases, which would take longer than all else
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "tests"), args...)
	cmd.Dir = filepath.Join(l.root, filepath.FromSlash(s.pkg))
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return verdict(err, out.String())
}

var (
	failedTest  = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	hungTest    = regexp.MustCompile(`(?m)^panic: test timed out after .*\n\s*running tests:\n\s*(\S+)`)
	crashedWith = regexp.MustCompile(`(?m)^(?:panic|fatal error): .*`)
)

// verdict says which test failed, by a test program's error and output; "" if none did.
func verdict(err error, output string) string {
	if err == nil {
		return ""
	}
	if m := hungTest.FindStringSubmatch(output); m != nil {
		return m[1] + " hangs"
	}
	if m := failedTest.FindStringSubmatch(output); m != nil {
		return m[1]
	}
	if m := crashedWith.FindString(output); m != "" {
		return m
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "hangs"
	}
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return fmt.Sprintf("%v: %s", err, lines[len(lines)-1])
}
