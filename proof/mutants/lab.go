package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A suite is the tests of one package, run in one way.
type suite struct {
	pkg  *goPackage
	race bool
}

func (s suite) String() string {
	if s.race {
		return s.pkg.label() + " -race"
	}
	return s.pkg.label()
}

// A lab builds tests and runs them. Its methods are safe for concurrent use.
type lab struct {
	root    string        // where go runs
	scratch string        // a folder for what is built
	slack   time.Duration // how long tests may take, in addition to ten times what they take without a fault
}

// A program is a suite's tests, built with faults in another package or the same one.
type program struct {
	suite   suite
	path    string
	limit   time.Duration // for the time that the tests take
	cpu     time.Duration // for the processor time that they take, which is up sooner on a busy machine; 0 for none
	only    string   // a pattern of tests, "" for all
	skipped []string // tests that fail in this program even if no mutant is on, such as those that count allocations
}

// overlay writes what go's -overlay needs to compile the texts in place of the files, which are of one package.
func (l *lab) overlay(files map[string]string) (name string, err error) {
	dir, err := os.MkdirTemp(l.scratch, "overlay-")
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for path, text := range files {
		replace[path] = filepath.Join(dir, filepath.Base(path)) // the compiler complains about either name
		err = errors.Join(err, os.WriteFile(replace[path], []byte(text), 0o600))
	}
	text, encodeErr := json.Marshal(map[string]any{"Replace": replace})
	name = filepath.Join(dir, "overlay.json")
	return name, errors.Join(err, encodeErr, os.WriteFile(name, text, 0o600))
}

// combine returns an overlay in which the package has all the mutants, and those that compile. A mutant that the compiler
// complains about is left out, until it has no complaint.
func (l *lab) combine(ctx context.Context, p *goPackage, mutants []*mutant) (overlay string, compiled []*mutant, err error) {
	for {
		files := map[string]string{filepath.Join(p.Dir, "mutant_selector.go"): selectorSource(p)}
		where := map[string][]lines{}
		for _, m := range mutants {
			if f := m.function.file; files[f.path] == "" {
				files[f.path], where[filepath.Base(f.path)] = switched(f, mutants)
			}
		}
		overlay, err = l.overlay(files)
		if err != nil {
			return "", nil, err
		}
		complaints, err := l.compile(ctx, p, overlay)
		if err != nil || complaints == "" {
			return overlay, mutants, err
		}
		bad := blamed(complaints, where)
		if len(bad) == 0 {
			return "", nil, fmt.Errorf("%s does not compile:\n%s", p.ImportPath, complaints)
		}
		mutants = slices.DeleteFunc(slices.Clone(mutants), func(m *mutant) bool { return bad[m] })
	}
}

func selectorSource(p *goPackage) string {
	return fmt.Sprintf(`package %s

import (
	"os"
	"strconv"
)

var %s = func() int {
	n, err := strconv.Atoi(os.Getenv("MUTANT"))
	if err != nil {
		return -1
	}
	return n
}()
`, p.Name, selector)
}

// compile returns what the compiler complains about, "" if nothing.
func (l *lab) compile(ctx context.Context, p *goPackage, overlay string) (complaints string, err error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-gcflags="+p.ImportPath+"=-e", "-overlay", overlay, p.ImportPath)
	cmd.Dir = l.root
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", nil
	}
	if ctx.Err() != nil || len(out) == 0 {
		return "", errors.Join(ctx.Err(), err)
	}
	return string(out), nil
}

var complaint = regexp.MustCompile(`(?m)^(?:.*/)?([^/:\s]+\.go):(\d+):`)

// blamed returns the mutants that the compiler's complaints are about.
func blamed(complaints string, where map[string][]lines) map[*mutant]bool {
	bad := map[*mutant]bool{}
	for _, match := range complaint.FindAllStringSubmatch(complaints, -1) {
		line, _ := strconv.Atoi(match[2]) // digits, by the pattern
		for _, w := range where[match[1]] {
			if w.from <= line && line <= w.to {
				bad[w.mutant] = true
			}
		}
	}
	return bad
}

// build builds the suite's tests with the overlay. The tests must pass without a fault, but for those that the program skips.
func (l *lab) build(ctx context.Context, s suite, overlay string) (*program, error) {
	dir, err := os.MkdirTemp(l.scratch, "tests-")
	if err != nil {
		return nil, err
	}
	p := &program{suite: s, path: filepath.Join(dir, "tests")}
	args := []string{"test", "-c", "-vet=off", "-o", p.path, "-overlay", overlay}
	if s.race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, s.pkg.ImportPath)...)
	cmd.Dir = l.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the tests of %v do not compile: %w\n%s", s, err, out)
	}
	return p, nil
}

// calibrate measures how long the tests take without a fault and finds out which of them the program must skip.
func (l *lab) calibrate(ctx context.Context, p *program) error {
	p.limit = 10 * time.Minute
	for range 3 {
		began := time.Now()
		err, out, cpu := p.run(ctx, -1, false)
		if err == nil {
			p.limit, p.cpu = l.slack+10*time.Since(began), l.slack+10*cpu
			return nil
		}
		failed := failedTest.FindAllStringSubmatch(out, -1)
		if failed == nil || ctx.Err() != nil {
			return fmt.Errorf("the tests of %v fail without a fault: %s", p.suite, verdict(err, out))
		}
		for _, match := range failed {
			p.skipped = append(p.skipped, match[1])
		}
	}
	return fmt.Errorf("the tests of %v fail without a fault, each time others: %s", p.suite, strings.Join(p.skipped, ", "))
}

// try returns what the tests notice of the mutant with the number: the test that fails, or "" if none does.
func (p *program) try(ctx context.Context, number int) (killedBy string) {
	err, out, _ := p.run(ctx, number, true)
	return verdict(err, out)
}

// anyOf returns a pattern that matches the tests.
func anyOf(tests []string) string { return "^(" + strings.Join(tests, "|") + ")$" }

func (p *program) run(ctx context.Context, number int, failFast bool) (err error, output string, cpu time.Duration) {
	// The program ends itself at the limit. If it can't, it is killed.
	ctx, cancel := context.WithTimeout(ctx, p.limit+10*time.Second)
	defer cancel()
	args := []string{fmt.Sprintf("-test.timeout=%v", p.limit), fmt.Sprintf("-test.failfast=%t", failFast), "-test.short"}
	if p.only != "" {
		args = append(args, "-test.run="+p.only)
	}
	if p.skipped != nil {
		args = append(args, "-test.skip="+anyOf(p.skipped))
	}
	if slices.Contains(slices.Concat(p.suite.pkg.TestImports, p.suite.pkg.XTestImports), "pgregory.net/rapid") {
		args = append(args, "-rapid.nofailfile", "-rapid.shrinktime=0s")
	}
	command := []string{p.path}
	if p.suite.race {
		args = append(args, "-test.count=3") // a collision doesn't happen every time
	} else if _, err := exec.LookPath("sh"); err == nil {
		command = []string{"sh", "-c", p.limits() + `exec "$0" "$@"`, p.path}
	}
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], args...)...)
	cmd.Dir = p.suite.pkg.Dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("MUTANT=%d", number))
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	if cmd.ProcessState != nil {
		cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	return err, out.String(), cpu
}

// limits returns shell commands that limit the memory, as some mutants append forever, and the processor time.
func (p *program) limits() string {
	commands := "ulimit -v 4194304 2>/dev/null; " // KiB
	if p.cpu > 0 {
		commands += fmt.Sprintf("ulimit -t %d 2>/dev/null; ", int(math.Ceil(p.cpu.Seconds())))
	}
	return commands
}

var (
	failedTest  = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	hungTest    = regexp.MustCompile(`(?m)^panic: test timed out after .*\n\s*running tests:\n\s*(\S+)`)
	crashedWith = regexp.MustCompile(`(?m)^(?:panic|fatal error): .*`)
)

// notCompiled is the verdict on a mutant that wouldn't compile without the others.
const notCompiled = "doesn't compile"

// verdict returns which test failed, by a test program's error and output, or "" if none did.
func verdict(err error, output string) string {
	if err == nil {
		return ""
	}
	if strings.Contains(output, missingReturn) {
		return notCompiled
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
	if errors.Is(err, context.DeadlineExceeded) || err.Error() == "signal: killed" {
		return "hangs"
	}
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return fmt.Sprintf("%v: %s", err, lines[len(lines)-1])
}

// remove deletes the program; what can't be deleted is removed with the lab's folder.
func (p *program) remove() { os.RemoveAll(filepath.Dir(p.path)) }
