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

	"github.com/effector-go/resilience/bench/peers/internal/behavior"
)

const module = "github.com/effector-go/resilience"

// A suite is a compiled package of benchmarks.
type suite struct {
	pkg    string // its last element
	dir    string
	binary string
}

// moduleRoot returns the folder of the module.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	root := strings.TrimSpace(string(out))
	if err != nil || root == "" {
		return "", fmt.Errorf("module %s not found: run this in the module: %w", module, explain(err))
	}
	return root, nil
}

// compile compiles the tests of the package in dir. The binary is in folder.
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

// A pass is one run of some of a suite's benchmarks.
type pass struct {
	suite     suite
	benchmark string // pattern
	skip      string // pattern, or ""
	procs     []int
}

// run runs the pass once and returns what it prints. It calls line with each line.
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

// lines calls each with every complete line that is written to it.
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

// explain adds what a failed command wrote to standard error.
func explain(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}

// everything returns all benchmarks of both suites: parallel ones on each number of processors,
// others on the machine's.
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

// only returns passes for these rows. Rows of a suite on the same number of processors are one
// pass.
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

// exactly returns the pattern of go test that matches one row.
func exactly(row string) string {
	parts := strings.Split("Benchmark"+row, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

// measure runs all passes in each round and returns what they print. The rounds are numbered from
// from to before to. What disturbs the machine for a while affects all rows of a round that are
// compared.
func measure(ctx context.Context, passes []pass, from, to int, benchtime string, stderr io.Writer) (string, error) {
	progress := newProgress(stderr, to-from, len(passes))
	var all strings.Builder
	for round := from; round < to; round++ {
		progress.round(round - from)
		fmt.Fprintf(&all, "round: %d\n", round)
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

// progress shows how far the measuring is: with a bar on a terminal, otherwise with a line from
// time to time.
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

// left returns how much time the remaining rounds take at the pace so far, or "" before the first
// is done.
func left(done, rounds int, elapsed time.Duration) string {
	if done == 0 {
		return ""
	}
	return fmt.Sprintf(", about %v left", (elapsed / time.Duration(done) * time.Duration(rounds-done)).Round(time.Second))
}

// stop leaves the bar as it is and moves the cursor below it.
func (p *progress) stop() {
	if p.lines == nil {
		p.bar.Exit()
	}
}

// line handles a line that a benchmark printed.
func (p *progress) line(line string) {
	name, _, _ := strings.Cut(line, " ")
	if name, ok := strings.CutPrefix(name, "Benchmark"); ok {
		p.bar.Describe(fmt.Sprintf("round %d of %d: %-50.50s", p.now+1, p.rounds, strings.TrimSpace(name)))
	}
}

// behaviors runs the test that finds out what the libraries do.
func behaviors(ctx context.Context, peers suite) ([]behavior.Answer, error) {
	var answers []behavior.Answer
	var bad error
	_, err := peers.exec(ctx, []string{"-test.run=^TestBehavior$", "-test.v"}, func(line string) {
		if answer, ok, err := answerOf(line); err != nil {
			bad = err
		} else if ok {
			answers = append(answers, answer)
		}
	})
	if err == nil && bad == nil && len(answers) == 0 {
		bad = errors.New("TestBehavior returned no answers")
	}
	return answers, errors.Join(err, bad)
}

// answerOf parses a line of go test -v that contains an answer: "=== ATTR  TestBehavior/...
// behavior {...}".
func answerOf(line string) (answer behavior.Answer, ok bool, err error) {
	if !strings.HasPrefix(line, "=== ATTR") {
		return answer, false, nil
	}
	_, text, found := strings.Cut(line, " behavior ")
	if !found {
		return answer, false, nil
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return answer, false, fmt.Errorf("%q: %w", line, err)
	}
	return answer, true, nil
}
