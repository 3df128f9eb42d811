package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/effector-go/resilience/bench/peers/internal/behaviour"
)

const module = "github.com/effector-go/resilience"

// A suite is a package's benchmarks, compiled.
type suite struct {
	pkg    string // its last element
	dir    string
	binary string
}

// moduleRoot is where the module is checked out.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	root := strings.TrimSpace(string(out))
	if err != nil || root == "" {
		return "", fmt.Errorf("cannot find the module %s: run this within it: %w", module, explain(err))
	}
	return root, nil
}

// compile compiles the tests of the package in dir into folder.
func compile(ctx context.Context, dir, folder string) (suite, error) {
	s := suite{pkg: filepath.Base(dir), dir: dir, binary: filepath.Join(folder, filepath.Base(dir)+".test")}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", s.binary, ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return s, fmt.Errorf("%s does not compile: %w\n%s", dir, err, out)
	}
	if _, err := os.Stat(s.binary); err != nil {
		return s, fmt.Errorf("%s has no tests", dir)
	}
	return s, nil
}

// A pass is one run of a part of a suite's benchmarks.
type pass struct {
	suite     suite
	benchmark string // pattern
	skip      string // pattern, or ""
	procs     []int
}

// run runs the pass once. Each line that it prints goes to line as well.
func (p pass) run(ctx context.Context, benchtime string, line func(string)) (string, error) {
	procs := make([]string, len(p.procs))
	for i, n := range p.procs {
		procs[i] = strconv.Itoa(n)
	}
	args := []string{
		"-test.run=^$", "-test.bench=" + p.benchmark, "-test.benchtime=" + benchtime,
		"-test.cpu=" + strings.Join(procs, ","), "-test.benchmem", "-test.timeout=0",
	}
	if p.skip != "" {
		args = append(args, "-test.skip="+p.skip)
	}
	return p.suite.exec(ctx, args, line)
}

// exec runs the suite's binary and returns what it prints.
func (s suite) exec(ctx context.Context, args []string, line func(string)) (string, error) {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Dir = s.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, &lines{each: line}), &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("%s: %w\n%s%s", filepath.Base(s.binary), err, errs.String(), tail(out.String()))
	}
	return out.String(), nil
}

// lines hands on each whole line written to it.
type lines struct {
	each func(string)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		l.each(string(l.rest[:i]))
		l.rest = l.rest[i+1:]
	}
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// explain adds what a command wrote to standard error to the error of running it.
func explain(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}

// everything is all benchmarks of both suites: the parallel ones on each number of processors, the others on those of the machine.
func everything(suites []suite, procs []int) []pass {
	const parallel = "./(callers=)?parallel|././(callers=)?parallel|./././(callers=)?parallel|././././(callers=)?parallel"
	var passes []pass
	for _, s := range suites {
		passes = append(passes,
			pass{s, ".", parallel, []int{machineProcs}},
			pass{s, parallel, "", procs})
	}
	return passes
}

// only is the given rows, those of a suite on the same processors in one pass.
func only(suites []suite, rows []row) []pass {
	var passes []pass
	for _, s := range suites {
		patterns := map[int][]string{}
		for _, r := range rows {
			if r.pkg != s.pkg {
				continue
			}
			procs := cmp.Or(r.procs, machineProcs)
			if p := exactly(r.name); !slices.Contains(patterns[procs], p) {
				patterns[procs] = append(patterns[procs], p)
			}
		}
		for _, procs := range slices.Sorted(maps.Keys(patterns)) {
			passes = append(passes, pass{s, strings.Join(patterns[procs], "|"), "", []int{procs}})
		}
	}
	return passes
}

// exactly is the pattern of go test that fits one row.
func exactly(row string) string {
	parts := strings.Split("Benchmark"+row, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

// measure runs all passes in so many rounds, one after the other, and returns what they printed. What disturbs the machine for a
// while is then in one round, in all that is compared.
func measure(ctx context.Context, passes []pass, rounds int, benchtime string, stderr io.Writer) (string, error) {
	progress := newProgress(stderr, rounds, len(passes))
	var all strings.Builder
	for round := range rounds {
		progress.round(round)
		for _, p := range passes {
			out, err := p.run(ctx, benchtime, progress.line)
			if err != nil {
				progress.stop()
				return "", err
			}
			all.WriteString(out)
			progress.bar.Add(1)
		}
	}
	return all.String(), nil
}

// progress tells how far the measuring is: by a bar on a terminal, elsewhere by a line now and then.
type progress struct {
	bar    *progressbar.ProgressBar
	lines  io.Writer // nil on a terminal
	rounds int
	now    int
	began  time.Time
}

func newProgress(w io.Writer, rounds, passes int) *progress {
	p := &progress{rounds: rounds, began: time.Now()}
	terminal := isTerminal(w)
	if !terminal {
		p.lines = w
	}
	p.bar = progressbar.NewOptions(rounds*passes,
		progressbar.OptionSetWriter(w), progressbar.OptionSetVisibility(terminal), progressbar.OptionSetWidth(20),
		progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(200*time.Millisecond),
		progressbar.OptionOnCompletion(func() {
			if terminal {
				fmt.Fprintln(w)
			}
		}))
	return p
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

func (p *progress) round(n int) {
	p.now = n
	if p.lines != nil && (n*10/p.rounds != (n-1)*10/p.rounds || n == 0) {
		fmt.Fprintf(p.lines, "round %d of %d%s\n", n+1, p.rounds, left(n, p.rounds, time.Since(p.began)))
	}
}

// left tells how much time the rest takes, at the pace so far.
func left(done, rounds int, elapsed time.Duration) string {
	if done == 0 {
		return ""
	}
	return fmt.Sprintf(", some %v left", (elapsed / time.Duration(done) * time.Duration(rounds-done)).Round(time.Second))
}

// stop leaves the bar where it is and the cursor below it.
func (p *progress) stop() {
	if p.lines == nil {
		p.bar.Exit()
	}
}

// line takes a line that a benchmark printed.
func (p *progress) line(line string) {
	name, _, _ := strings.Cut(line, " ")
	if name, ok := strings.CutPrefix(name, "Benchmark"); ok {
		p.bar.Describe(fmt.Sprintf("round %d of %d: %-50.50s", p.now+1, p.rounds, strings.TrimSpace(name)))
	}
}

// behaviours runs the test that finds out what the peers do.
func behaviours(ctx context.Context, peers suite) ([]behaviour.Answer, error) {
	var answers []behaviour.Answer
	var bad error
	_, err := peers.exec(ctx, []string{"-test.run=^TestBehaviour$", "-test.v"}, func(line string) {
		if answer, ok, err := answerOf(line); err != nil {
			bad = err
		} else if ok {
			answers = append(answers, answer)
		}
	})
	if err == nil && bad == nil && len(answers) == 0 {
		bad = errors.New("TestBehaviour gave no answers")
	}
	return answers, errors.Join(err, bad)
}

// answerOf reads a line of go test -v that tells an answer: "=== ATTR  TestBehaviour/... behaviour {...}".
func answerOf(line string) (answer behaviour.Answer, ok bool, err error) {
	if !strings.HasPrefix(line, "=== ATTR") {
		return answer, false, nil
	}
	_, text, found := strings.Cut(line, " behaviour ")
	if !found {
		return answer, false, nil
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return answer, false, fmt.Errorf("%q: %w", line, err)
	}
	return answer, true, nil
}
