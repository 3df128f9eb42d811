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

// A lab builds tests. Its methods are safe for concurrent use.
type lab struct {
	root    string        // where go runs
	scratch string        // a folder for what is built
	slack   time.Duration // how long tests may take, in addition to ten times what they take without a fault
}

// A program is a suite's tests, built with faults in another package or the same one.
type program struct {
	suite
	path    string
	limit   time.Duration // for the time that the tests take
	cpu     time.Duration // for the processor time that they take; 0 for none
	only    string        // a pattern of tests, "" for all
	skipped string        // a pattern of tests that fail even if no mutant is on, such as those that count allocations
}

// overlay writes what go's -overlay needs to compile the texts in place of the files, which are of one package.
func (l *lab) overlay(files map[string]string) (name string, err error) {
	dir, err := os.MkdirTemp(l.scratch, "overlay-")
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for path, text := range files {
		replace[path] = filepath.Join(dir, filepath.Base(path))
		err = errors.Join(err, os.WriteFile(replace[path], []byte(text), 0o600))
	}
	text, encodeErr := json.Marshal(map[string]any{"Replace": replace})
	name = filepath.Join(dir, "overlay.json")
	return name, errors.Join(err, encodeErr, os.WriteFile(name, text, 0o600))
}

// selectorSource is the file that a mutated package has in addition.
const selectorSource = `package %s

import (
	"os"
	"strconv"
)

var ` + selector + `, _ = strconv.Atoi(os.Getenv("MUTANT"))
`

var complaint = regexp.MustCompile(`\bmutant(\d+)\.go:\d+`)

// combine returns an overlay in which the package has all the mutants that compile. The first of mutants is nil, for none. A
// mutant that the compiler complains about becomes nil too.
func (l *lab) combine(ctx context.Context, p *goPackage, mutants []*mutant) (overlay string, err error) {
	for {
		files := map[string]string{filepath.Join(p.Dir, "mutant_selector.go"): fmt.Sprintf(selectorSource, p.Name)}
		for _, m := range mutants {
			if m != nil && files[m.file.path] == "" {
				files[m.file.path] = combined(m.file, mutants)
			}
		}
		if overlay, err = l.overlay(files); err != nil {
			return "", err
		}
		complaints, err := l.compile(ctx, p, overlay)
		if err != nil || complaints == "" {
			return overlay, err
		}
		bad := complaint.FindAllStringSubmatch(complaints, -1)
		if bad == nil {
			return "", fmt.Errorf("%s does not compile:\n%s", p.ImportPath, complaints)
		}
		for _, match := range bad {
			i, _ := strconv.Atoi(match[1]) // digits, by the pattern
			mutants[i] = nil
		}
	}
}

// compile returns what the compiler complains about, "" if nothing.
func (l *lab) compile(ctx context.Context, p *goPackage, overlay string) (complaints string, err error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-gcflags="+p.ImportPath+"=-e", "-overlay", overlay, p.ImportPath)
	cmd.Dir = l.root
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	return string(out), err
}

// build builds the suite's tests with the overlay.
func (l *lab) build(ctx context.Context, s suite, overlay string) (*program, error) {
	dir, err := os.MkdirTemp(l.scratch, "tests-")
	if err != nil {
		return nil, err
	}
	p := &program{suite: s, path: filepath.Join(dir, "tests")}
	args := []string{"test", "-c", "-vet=off", "-o", p.path, "-overlay", overlay, fmt.Sprintf("-race=%t", s.race), s.pkg.ImportPath}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = l.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the tests of %v do not compile: %w\n%s", s, err, out)
	}
	return p, nil
}

// remove deletes the program; what can't be deleted is removed with the lab's folder.
func (p *program) remove() { os.RemoveAll(filepath.Dir(p.path)) }

// calibrate measures how long the tests take without a fault and finds out which of them the program must skip.
func (l *lab) calibrate(ctx context.Context, p *program) error {
	p.limit = 10 * time.Minute
	var skipped []string
	for range 3 {
		began := time.Now()
		out, cpu, err := p.run(ctx, 0, false)
		if err == nil {
			p.limit, p.cpu = l.slack+10*time.Since(began), l.slack+10*cpu
			return nil
		}
		failed := failedTest.FindAllStringSubmatch(out, -1)
		if failed == nil || ctx.Err() != nil {
			return fmt.Errorf("the tests of %v fail without a fault: %s", p.suite, verdict(out, err))
		}
		for _, match := range failed {
			skipped = append(skipped, match[1])
		}
		p.skipped = "^(" + strings.Join(skipped, "|") + ")$"
	}
	return fmt.Errorf("the tests of %v fail without a fault, each time others: %v", p.suite, skipped)
}

// run runs the tests with the mutant of the number on, 0 for none.
func (p *program) run(ctx context.Context, number int, failFast bool) (output string, cpu time.Duration, err error) {
	// The program ends itself at the limit. If it can't, it is killed.
	ctx, cancel := context.WithTimeout(ctx, p.limit+10*time.Second)
	defer cancel()
	args := []string{
		p.path, fmt.Sprintf("-test.timeout=%v", p.limit), fmt.Sprintf("-test.failfast=%t", failFast), "-test.short",
		"-test.run=" + p.only, "-test.skip=" + p.skipped,
	}
	if p.pkg.tests("pgregory.net/rapid") {
		args = append(args, "-rapid.nofailfile", "-rapid.shrinktime=0s")
	}
	if p.race {
		args = append(args, "-test.count=3") // a collision doesn't happen every time
	} else if shell, err := exec.LookPath("sh"); err == nil {
		// Some mutants append or compute forever. The units are KiB and seconds.
		limits := "ulimit -v 4194304 2>/dev/null; "
		if p.cpu > 0 {
			limits += fmt.Sprintf("ulimit -t %v 2>/dev/null; ", math.Ceil(p.cpu.Seconds()))
		}
		args = append([]string{shell, "-c", limits + `exec "$0" "$@"`}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = p.pkg.Dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("MUTANT=%d", number))
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if cmd.ProcessState != nil {
		cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	return out.String(), cpu, errors.Join(ctx.Err(), err)
}

var (
	failedTest  = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	hungTest    = regexp.MustCompile(`(?m)^panic: test timed out after .*\n\s*running tests:\n\s*(\S+)`)
	crashedWith = regexp.MustCompile(`(?m)^(?:panic|fatal error): .*`)
)

// notCompiled is the verdict on a mutant that does not compile, or would not without the others.
const notCompiled = "doesn't compile"

// verdict returns which test failed, by a test program's output and error, or "" if none did.
func verdict(output string, err error) string {
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
	if errors.Is(err, context.DeadlineExceeded) || strings.HasSuffix(err.Error(), "signal: killed") {
		return "hangs"
	}
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return fmt.Sprintf("%v: %s", err, lines[len(lines)-1])
}
