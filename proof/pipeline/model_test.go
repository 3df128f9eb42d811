// Package pipeline compares nested pipelines with a plain interpreter: the result of each call, how
// often the effector is started, whether the call may be repeated, and what happens to each value.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/proof/internal/cases"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A node is a policy of a random pipeline.
type node struct {
	kind  string // pass, retry, refuse, again, fork, give up, once, limit, pipeline
	n     int
	inner []node // of a pipeline
}

func (n node) String() string {
	if n.kind == "pipeline" {
		return fmt.Sprint(n.inner)
	}
	return fmt.Sprint(n.kind, n.n)
}

// A scenario is a pipeline and the effector's outcomes by start: ok, failed, not made (no effect),
// not found (NotFailure), fault (CallerFault), contended (Contention), or hangs until its context
// ends.
type scenario struct {
	policies []node
	discard  bool
	outcomes []string
}

func drawNodes(t *rapid.T, depth int) []node {
	kinds := []string{"pass", "pass", "retry", "refuse", "again", "fork", "give up", "once", "limit"}
	if depth > 0 {
		kinds = append(kinds, "pipeline", "pipeline")
	}
	var nodes []node
	for range rapid.IntRange(0, 4).Draw(t, "policies") {
		n := node{kind: rapid.SampledFrom(kinds).Draw(t, "kind"), n: rapid.IntRange(1, 3).Draw(t, "n")}
		if n.kind == "pipeline" {
			n.inner = drawNodes(t, depth-1)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func draw(t *rapid.T) scenario {
	return scenario{
		policies: drawNodes(t, 3),
		discard:  rapid.Bool().Draw(t, "discard"),
		outcomes: rapid.SliceOfN(rapid.SampledFrom([]string{"ok", "failed", "failed", "not made", "not found", "fault", "contended", "hangs"}), 1, 6).Draw(t, "outcomes"),
	}
}

func (s scenario) outcome(start int) string { return s.outcomes[min(start, len(s.outcomes)-1)] }

// A result is everything that can be observed of a call.
type result struct {
	value   int
	err     string
	starts  int
	dropped []int
	seen    []string // what pass policies observed after their run
	took    time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("value %d, error %q, %d starts, dropped %v, %v, saw %v", r.value, r.err, r.starts, r.dropped, r.took, r.seen)
}

var errRefused = fmt.Errorf("refused: %w", resilience.ErrRefused)

// policy creates the real policy of a node.
func policy(n node, r *result) resilience.Policy {
	switch n.kind {
	case "pass":
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			before := next.Starts()
			err := next.Run(ctx)
			r.seen = append(r.seen, fmt.Sprint(next.Starts()-before, next.Repeatable(), errors.Is(err, resilience.ErrRefused)))
			return err
		})
	case "retry":
		return retry.New(retry.Config{MaxAttempts: n.n, Backoff: retry.Constant(time.Minute)})
	case "refuse": // every n-th run
		runs := 0
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if runs++; runs%n.n == 0 {
				return errRefused
			}
			return next.Run(ctx)
		})
	case "again": // n runs, whatever their results
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) (err error) {
			for range n.n {
				if err == nil || next.Repeatable() {
					err = next.Run(ctx)
				}
			}
			return err
		})
	case "fork": // n forks, one after another, each adopted when it ends
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) (err error) {
			for range n.n {
				fork := next.Fork()
				err = fork.Run(ctx)
				next.Adopt(fork)
			}
			return err
		})
	case "give up":
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			err := next.Run(ctx)
			if err != nil {
				next.Discard()
			}
			return err
		})
	case "once":
		return resilience.AtMostOnce
	case "limit":
		return timeout.After(time.Duration(n.n) * time.Second)
	}
	var p resilience.Pipeline
	for _, inner := range n.inner {
		p = append(p, policy(inner, r))
	}
	return p
}

func (s scenario) actual(way string) (r result) {
	var p resilience.Pipeline
	if s.discard {
		p = append(p, resilience.Discard(func(value int) {
			if value != 0 {
				r.dropped = append(r.dropped, value)
			}
		}))
	}
	nodes := s.policies
	if way == "flat" {
		nodes = flat(nodes)
	}
	for _, n := range nodes {
		p = append(p, policy(n, &r))
	}
	effector := func(ctx context.Context) (int, error) {
		r.starts++
		switch s.outcome(r.starts - 1) {
		case "ok":
			return r.starts, nil
		case "not made":
			return 0, resilience.NotMade(errors.New("not made"))
		case "not found":
			return r.starts, resilience.NotFailure(errors.New("not found"))
		case "fault":
			return r.starts, resilience.CallerFault(errors.New("fault"))
		case "contended":
			return r.starts, resilience.Contention(errors.New("contended"))
		case "hangs":
			select {
			case <-ctx.Done():
				return r.starts, ctx.Err()
			case <-time.After(10 * time.Second):
				return r.starts, errors.New("hung")
			}
		}
		return r.starts, errors.New("failed")
	}
	began := time.Now()
	var err error
	if way == "Do" {
		r.value, err = resilience.Do(context.Background(), p, effector)
	} else {
		r.value, err = resilience.Compose(effector, p)(context.Background())
	}
	r.took, r.err = time.Since(began), text(err)
	return r
}

// text reduces an error to the effector's words: the policies' own texts have their own tests.
func text(err error) string {
	if err == nil {
		return ""
	}
	var words []string
	for _, word := range []string{"refused", "not made", "not found", "fault", "contended", "failed", "hung"} {
		if strings.Contains(err.Error(), word) {
			words = append(words, word)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "deadline exceeded") {
		words = append(words, "deadline exceeded")
	}
	return strings.Join(words, " ")
}

func flat(nodes []node) (all []node) {
	for _, n := range nodes {
		if n.kind == "pipeline" {
			all = append(all, flat(n.inner)...)
		} else {
			all = append(all, n)
		}
	}
	return all
}

// TestPipelineNestedEqualsFlat compares Compose and Do of a nested pipeline with a flat one.
func TestPipelineNestedEqualsFlat(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		results := map[string]string{}
		for _, way := range []string{"Compose", "Do", "flat"} {
			synctest.Test(t, func(*testing.T) { results[way] = s.actual(way).String() })
		}
		if results["Compose"] != results["flat"] || results["Do"] != results["flat"] {
			rt.Fatalf("%+v:\nCompose: %s\nDo: %s\nflat: %s", s, results["Compose"], results["Do"], results["flat"])
		}
	})
}

// TestPipelineReturnsOrDropsEachValueOnce checks this for random pipelines.
func TestPipelineReturnsOrDropsEachValueOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		s.discard = true
		var r result
		synctest.Test(t, func(*testing.T) { r = s.actual("Compose") })
		count := map[int]int{}
		for _, value := range r.dropped {
			count[value]++
		}
		if r.value != 0 {
			count[r.value]++
		}
		for start := 1; start <= r.starts; start++ {
			want := 1
			if s.outcome(start-1) == "not made" {
				want = 0 // no value
			}
			if count[start] != want {
				rt.Fatalf("%+v: %v: got the value of start %d returned or dropped %d times, want %d", s, r, start, count[start], want)
			}
		}
		if r.err != "" && r.value != 0 {
			rt.Fatalf("%+v: %v: got a value with an error", s, r)
		}
	})
}

// An interpreter runs a flat pipeline without the library. Policies are cases of one function. An
// error is a string, which begins with "!" while its outer marks say that retrying is useless.
type interpreter struct {
	s        scenario
	now      time.Duration
	deadline []time.Duration
	runs     map[int]int // of refuse nodes
	value    int
	starts   int // as Next.Starts reports them
	effects  int
	once     bool
	r        result
}

func (i *interpreter) repeatable() bool { return !i.once || i.effects == 0 }

func (i *interpreter) run(at int, nodes []node) (err string) {
	if at == len(nodes) {
		return i.start()
	}
	rest := func() string { return i.run(at+1, nodes) }
	n := nodes[at]
	switch n.kind {
	case "pass":
		before := i.starts
		err = rest()
		i.r.seen = append(i.r.seen, fmt.Sprint(i.starts-before, i.repeatable(), strings.Contains(err, "refused")))
		return err
	case "retry":
		return i.retry(n.n, rest)
	case "refuse":
		if i.runs[at]++; i.runs[at]%n.n == 0 {
			return "refused"
		}
		return rest()
	case "again":
		for range n.n {
			if err == "" || i.repeatable() {
				err = rest()
			}
		}
		return err
	case "fork":
		for range n.n {
			err = rest()
		}
		return err
	case "give up":
		return rest()
	case "once":
		i.once = true
		return rest()
	case "limit":
		at := i.now + time.Duration(n.n)*time.Second
		if len(i.deadline) > 0 && i.deadline[len(i.deadline)-1] <= at {
			return rest()
		}
		i.deadline = append(i.deadline, at)
		err = rest()
		i.deadline = i.deadline[:len(i.deadline)-1]
		if err != "" && i.now >= at && !strings.Contains(err, "deadline exceeded") {
			err = strings.TrimPrefix(err, "!") + " deadline exceeded"
		}
		return err
	}
	panic(n.kind)
}

// retry is a retry with a wait of a minute, which exceeds every limit here.
func (i *interpreter) retry(most int, rest func() string) string {
	attempts, last := 0, ""
	for {
		before := i.starts
		err := rest()
		if err == "" {
			return ""
		}
		if strings.HasPrefix(err, "!") {
			return err
		}
		made := i.starts != before
		over := len(i.deadline) > 0 && i.now >= i.deadline[len(i.deadline)-1]
		if !made {
			if attempts == 0 {
				return err
			}
			if over {
				return last + " deadline exceeded"
			}
			return last + " " + err
		}
		attempts++
		last = err
		switch {
		case over || !i.repeatable():
			return err
		case attempts >= most:
			return err
		case len(i.deadline) > 0: // the wait would outlast it
			return err + " deadline exceeded"
		}
		i.now += time.Minute
	}
}

func (i *interpreter) start() string {
	outcome := i.s.outcome(i.r.starts)
	i.r.starts++
	i.starts++
	i.effects++
	i.value = i.r.starts
	switch outcome {
	case "ok":
		return ""
	case "not made":
		i.effects--
		i.value = 0
		return "not made"
	case "not found", "fault":
		return "!" + outcome
	case "contended":
		return outcome
	case "hangs":
		if len(i.deadline) > 0 && i.deadline[len(i.deadline)-1] <= i.now+10*time.Second {
			i.now = max(i.now, i.deadline[len(i.deadline)-1])
			return "deadline exceeded"
		}
		i.now += 10 * time.Second
		return "hung"
	}
	return "failed"
}

// words puts the words of the interpreter's error into the order of text.
func words(err string) string {
	if err == "" {
		return ""
	}
	return text(errors.New(err))
}

// TestPipelineMatchesInterpreter runs pipelines without Discard. The test above covers those with
// it.
func TestPipelineMatchesInterpreter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		s.discard = false
		var got result
		synctest.Test(t, func(*testing.T) { got = s.actual("Do") })
		i := &interpreter{s: s, runs: map[int]int{}}
		err := i.run(0, flat(s.policies))
		i.r.value, i.r.err, i.r.took = i.value, words(err), i.now
		if got.String() != i.r.String() {
			rt.Fatalf("%+v: got\n\t%v, want\n\t%v", s, got, i.r)
		}
	})
}

func TestMain(m *testing.M) { cases.Main(m, 2000, 0) }
