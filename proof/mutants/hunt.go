package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// A result is what became of a mutant.
type result struct {
	*mutant
	killedBy string // the suite and its test, [notCompiled], or "" if the mutant survived
}

const notCompiled = "doesn't compile"

// A hunt tries the mutants of one package after the other.
type hunt struct {
	root    string // where go runs
	scratch string // a folder for what is built
	slack   time.Duration
	workers int
	mutated []*goPackage // that may have mutants
	provers []*goPackage // of other modules, whose tests are about the mutated ones
	settled func(result) // is called when a result is known, concurrently
}

// A suite is the tests of one package, run in one way.
type suite struct {
	*goPackage
	race bool
}

func (s suite) String() string {
	if s.race {
		return s.label() + " -race"
	}
	return s.label()
}

// slow lists the packages whose tests take as long as those of all others, or run in real time.
var slow = []string{"proof/faults", "proof/soak", "proof/composition"}

// everywhere has the packages that almost all tests import. Apart from their own tests, only those
// of these folders are about them.
var everywhere = map[string][]string{
	".":                {"proof/pipeline", "proof/contexts", "proof/others"},
	"internal/clock":   {"breaker", "budget", "timeout"},
	"internal/ctxkey":  {"timeout", "proof/contexts"},
	"internal/errtext": {"breaker"},
}

// suites returns the tests that may notice a fault in the package, its own first. For an internal
// package they include those of the packages that import it.
func (h *hunt) suites(p *goPackage) (all []suite) {
	few, limited := everywhere[p.folder()]
	add := func(q *goPackage) {
		name := strings.TrimPrefix(q.ImportPath, p.Module.Path+"/")
		if q.tested() && (q == p || !slices.Contains(slow, name) && (!limited || slices.Contains(few, name))) {
			all = append(all, suite{goPackage: q})
		}
	}
	add(p)
	about := []string{p.ImportPath}
	for _, q := range h.mutated {
		if strings.HasPrefix(p.folder(), "internal/") && slices.Contains(q.Imports, p.ImportPath) {
			about = append(about, q.ImportPath)
			add(q)
		}
	}
	for _, q := range h.provers {
		if slices.ContainsFunc(about, q.tests) {
			add(q)
		}
	}
	return all
}

// pkg tries the mutants, all of one package.
func (h *hunt) pkg(ctx context.Context, p *goPackage, mutants []*mutant) (err error) {
	if h.scratch, err = os.MkdirTemp("", "mutants-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(h.scratch)) }()

	numbered := append([]*mutant{nil}, mutants...) // 0 stands for no fault
	alive := mutants
	suites := h.suites(p)
	if p.tested() {
		suites = append(suites, suite{p, true})
	}
	for _, s := range suites {
		hunted := alive
		if s.race {
			hunted = slices.DeleteFunc(slices.Clone(alive), func(m *mutant) bool { return !slices.Contains(racy, m.kind) })
		}
		if len(hunted) == 0 {
			continue
		}
		program, err := h.combine(ctx, s, p, numbered)
		if err != nil {
			return err
		}
		uncompiled := func(m *mutant) bool { return !slices.Contains(numbered, m) }
		hunted = slices.DeleteFunc(slices.Clone(hunted), uncompiled)
		killed, err := h.each(ctx, hunted, func(m *mutant) (string, error) { return program.try(ctx, slices.Index(numbered, m)), nil })
		if err == nil && program.skipped != "" {
			left := slices.DeleteFunc(slices.Clone(hunted), func(m *mutant) bool { return killed[m] })
			var more map[*mutant]bool
			more, err = h.exactly(ctx, s, left, program.skipped)
			maps.Copy(killed, more)
		}
		if err != nil {
			return err
		}
		alive = slices.DeleteFunc(slices.Clone(alive), func(m *mutant) bool { return killed[m] || uncompiled(m) })
	}
	for _, m := range alive {
		h.settled(result{m, ""})
	}
	return nil
}

// each tries the mutants concurrently, settles those that are killed and returns them.
func (h *hunt) each(ctx context.Context, mutants []*mutant, try func(*mutant) (killedBy string, err error)) (map[*mutant]bool, error) {
	by := make([]string, len(mutants))
	var g errgroup.Group
	g.SetLimit(h.workers)
	for i, m := range mutants {
		g.Go(func() (err error) {
			if ctx.Err() == nil {
				by[i], err = try(m)
			}
			if err == nil && ctx.Err() == nil && by[i] != "" { // an interruption kills programs, not mutants
				h.settled(result{m, by[i]})
			}
			return err
		})
	}
	err := errors.Join(g.Wait(), ctx.Err())
	killed := map[*mutant]bool{}
	for i, m := range mutants {
		killed[m] = by[i] != ""
	}
	return killed, err
}

// exactly builds the suite for each mutant without any other and runs the tests whose names match
// the pattern. They must pass without a fault.
func (h *hunt) exactly(ctx context.Context, s suite, mutants []*mutant, only string) (map[*mutant]bool, error) {
	return h.each(ctx, append([]*mutant{nil}, mutants...), func(m *mutant) (string, error) {
		var files map[string]string
		if m != nil {
			files = map[string]string{m.file.path: m.apply(0, len(m.file.source))}
		}
		p, complaints, err := h.build(ctx, s, files)
		if err != nil || complaints != "" {
			return notCompiled, err
		}
		defer os.RemoveAll(filepath.Dir(p.path)) // what can't be deleted is removed with all of scratch
		p.only, p.limit = only, 4*h.slack
		by := p.try(ctx, 0)
		if m == nil && by != "" {
			return "", fmt.Errorf("without a fault: %s", by)
		}
		return by, nil
	})
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

// combine builds the suite with the mutants of the package. A mutant that the compiler complains
// about is settled and becomes nil.
func (h *hunt) combine(ctx context.Context, s suite, p *goPackage, mutants []*mutant) (*program, error) {
	for {
		files := map[string]string{filepath.Join(p.Dir, "mutant_selector.go"): fmt.Sprintf(selectorSource, p.Name)}
		for _, m := range mutants {
			if m != nil && files[m.file.path] == "" {
				files[m.file.path] = combined(m.file, mutants)
			}
		}
		program, complaints, err := h.build(ctx, s, files)
		if err != nil {
			return nil, err
		}
		if complaints == "" {
			return program, program.calibrate(ctx)
		}
		bad := complaint.FindAllStringSubmatch(complaints, -1)
		if bad == nil {
			return nil, fmt.Errorf("the tests of %v don't compile:\n%s", s, complaints)
		}
		for _, match := range bad {
			i, _ := strconv.Atoi(match[1]) // digits, by the pattern
			if mutants[i] != nil {
				h.settled(result{mutants[i], notCompiled})
			}
			mutants[i] = nil
		}
	}
}

// A program is a suite's tests, built with faults in another package or the same one.
type program struct {
	suite
	path    string
	slack   time.Duration
	limit   time.Duration // for the time that the tests take
	cpu     time.Duration // for the processor time that they take; 0 for none
	only    string        // a pattern of tests, "" for all
	skipped string        // a pattern of tests that fail even if no mutant is on, such as those that count allocations
}

// build builds the suite's tests with these texts in place of the files, which are of one package.
// It returns what the compiler complains about, "" if nothing.
func (h *hunt) build(ctx context.Context, s suite, files map[string]string) (p *program, complaints string, err error) {
	dir, err := os.MkdirTemp(h.scratch, "tests-")
	if err != nil {
		return nil, "", err
	}
	replace := map[string]string{}
	for path, text := range files {
		replace[path] = filepath.Join(dir, filepath.Base(path))
		err = errors.Join(err, os.WriteFile(replace[path], []byte(text), 0o600))
	}
	overlay := filepath.Join(dir, "overlay.json")
	text, jsonErr := json.Marshal(map[string]any{"Replace": replace})
	if err := errors.Join(err, jsonErr, os.WriteFile(overlay, text, 0o600)); err != nil {
		return nil, "", err
	}
	p = &program{suite: s, path: filepath.Join(dir, "tests"), slack: h.slack, limit: 10 * time.Minute}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-o", p.path, "-overlay", overlay,
		"-gcflags="+h.mutated[0].Module.Path+"/...=-e", fmt.Sprintf("-race=%t", s.race), s.ImportPath)
	cmd.Dir = h.root
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		return nil, string(out) + exit.String(), nil
	}
	return p, "", err
}

// calibrate measures how long the tests take without a fault and finds out which of them the
// program must skip.
func (p *program) calibrate(ctx context.Context) error {
	for {
		began := time.Now()
		out, cpu, err := p.run(ctx, 0, false)
		if err == nil {
			p.limit, p.cpu = p.slack+10*time.Since(began), p.slack+10*cpu
			return nil
		}
		failed := failedTest.FindAllStringSubmatch(out, -1)
		if failed == nil || ctx.Err() != nil || p.skipped != "" {
			return fmt.Errorf("the tests of %v fail without a fault: %s", p.suite, verdict(out, err))
		}
		for _, match := range failed {
			p.skipped += "|^" + match[1] + "$"
		}
		p.skipped = p.skipped[1:]
	}
}

// try returns the suite and the test that notices the mutant with the number, or "" if none does.
func (p *program) try(ctx context.Context, number int) (killedBy string) {
	if out, _, err := p.run(ctx, number, true); err != nil {
		return p.String() + " " + verdict(out, err)
	}
	return ""
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
	if p.tests("pgregory.net/rapid") {
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
	cmd.Dir = p.Dir
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
	hungTest    = regexp.MustCompile(`(?m)^panic: test timed out after .*\n\s*running tests:\n\s*(\S+)`)
	failedTest  = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	crashedWith = regexp.MustCompile(`(?m)^((?:panic|fatal error): .*)`)
)

// verdict returns which test failed, by a test program's output and error.
func verdict(output string, err error) string {
	for _, pattern := range []*regexp.Regexp{hungTest, failedTest, crashedWith} {
		if m := pattern.FindStringSubmatch(output); m != nil {
			return m[1]
		}
	}
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return strings.Join(strings.Fields(err.Error()+" "+lines[len(lines)-1]), " ")
}
