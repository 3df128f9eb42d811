package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/proof/internal/cases"
)

// Each of these tests records what racing goroutines see of a breaker. It looks for a sequential
// order of their commands in which the specification returns the same answers. Open times are so
// long that time changes no state, except in the last test.

func TestConsecutiveIsLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{Consecutive: 3})
}

func TestLeakyIsLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{Leaky: 2})
}

func TestLastCallsIsLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{Failures: 2, LastCalls: 2})
}

func TestFailureRateIsLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{FailureRate: 0.5, MinCalls: 4, Window: 100 * time.Hour})
}

func TestBreakerRunningCallsAreLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{Consecutive: 3, SlowRate: 1, SlowCall: time.Hour, Window: 100 * time.Hour})
}

func TestBreakerOneProbeIsLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{Consecutive: 2}, halfOpen)
}

func TestBreakerProbesAreLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{Consecutive: 2, Probes: 2, ProbeSuccesses: 3, ProbeFailures: 2}, halfOpen)
}

func TestDryRunIsLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{Consecutive: 2, DryRun: true})
}

// All workers arrive in the instant in which the open time ends, as does the breaker's own timer.
func TestBreakerOpenTimeEndIsLinearizable(t *testing.T) {
	c, model := settled(breaker.Config{Consecutive: 2, Probes: 2})
	verbs := []verb{acquire, acquire, do, done, done, done, look, cancel, set, reset, halfOpen, forceOpen}
	for range cases.Racing() {
		var history []porcupine.Operation
		synctest.Test(t, func(t *testing.T) { history = race(t, c, verbs, nil, c.OpenFor) })
		check(t, model, history)
	}
}

const (
	workers  = 4
	commands = 6  // per worker
	most     = 32 // permits in a history
)

// settled returns the configuration with the remaining fields set, and the model of its histories.
func settled(c breaker.Config) (breaker.Config, porcupine.Model) {
	c.OpenFor, c.MaxOpenFor, c.ProbeTimeout = time.Hour, time.Hour, time.Hour
	c.Probes, c.ProbeFailures = max(1, c.Probes), max(1, c.ProbeFailures)
	c.ProbeSuccesses = max(c.Probes, c.ProbeSuccesses)
	return c, porcupine.Model{
		Init: func() any { return spec{} },
		Step: func(state, input, output any) (bool, any) {
			next, want := state.(spec).step(&c, input.(command))
			return want == output.(answer), next
		},
	}
}

// linearizable checks as many histories as rapid checks cases. Each history begins with first.
func linearizable(t *testing.T, c breaker.Config, first ...verb) {
	c, model := settled(c)
	traffic := []verb{acquire, acquire, done, done, done, done, done, done, do, look, set}
	anything := slices.Concat(first, traffic, []verb{acquire, acquire, cancel, reset, halfOpen, forceOpen, disable})
	for round := range cases.Racing() {
		verbs := anything
		if round%2 == 0 {
			verbs = traffic
		}
		check(t, model, race(t, c, verbs, first, 0))
	}
}

func check(t *testing.T, model porcupine.Model, history []porcupine.Operation) {
	t.Helper()
	if !porcupine.CheckOperations(model, history) {
		t.Fatalf("no order of these commands explains what they returned:\n%s", describe(history))
	}
}

// race runs workers that do random commands on one breaker, and records the commands. Before that,
// one worker does the first commands and acquires some permits. If openFor is set, the breaker has
// also opened, in a bubble, and the workers start when the open time ends.
func race(t *testing.T, c breaker.Config, verbs, first []verb, openFor time.Duration) (history []porcupine.Operation) {
	changes := ""
	c.OnStateChange = func(tr breaker.Transition) {
		changes += transition(tr.From, tr.To) // the race detector reports concurrent calls
		runtime.Gosched()
	}
	outcomes := []breaker.Outcome{breaker.Success, breaker.Failure, breaker.Failure}
	if rand.IntN(2) == 0 {
		outcomes = append(outcomes, breaker.Ignored)
		c.Classify = func(ctx context.Context, err error) breaker.Outcome {
			runtime.Gosched()
			if err == errIgnored {
				return breaker.Ignored
			}
			return breaker.DefaultClassify(ctx, err)
		}
	}
	r := &recorder{breaker: breaker.New(c), begin: time.Now(), timed: openFor > 0, ending: []verb{claim, done, trip}}
	if c.FailureRate > 0 {
		r.ending = []verb{claim, done, peek, judge, trip}
	}
	for _, v := range slices.Concat(first, slices.Repeat([]verb{acquire}, rand.IntN(6))) {
		history = append(history, r.record(0, command{verb: v})...)
	}
	for range c.Consecutive {
		if r.timed {
			history = append(history, r.record(0, command{verb: do, outcome: breaker.Failure})...)
		}
	}
	due := r.now()
	var histories [workers][]porcupine.Operation
	ready := newStart(workers)
	var g errgroup.Group
	for w := range workers {
		g.Go(func() error {
			ready.wait()
			time.Sleep(openFor)
			for range commands {
				of := command{verb: verbs[rand.IntN(len(verbs))], outcome: outcomes[rand.IntN(len(outcomes))]}
				histories[w] = append(histories[w], r.record(w, of)...)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if r.timed {
		synctest.Wait() // until the breaker's timer has run
		history = append(history,
			porcupine.Operation{ClientId: workers, Input: command{verb: fallDue}, Output: answer{}, Call: due, Return: due},
			porcupine.Operation{ClientId: workers, Input: command{verb: tick}, Output: answer{}, Call: due + 1, Return: r.now()})
	}
	end := r.record(0, command{verb: sumUp})
	sum := end[0].Output.(answer)
	sum.sum.changes = changes
	end[0].Output = sum
	return slices.Concat(history, slices.Concat(histories[:]...), end)
}

// A recorder does commands and records when each began and ended.
type recorder struct {
	breaker *breaker.Breaker
	begin   time.Time
	timed   bool         // in a bubble, where the clock doesn't advance while commands race
	ending  []verb       // the steps of a call's end
	clock   atomic.Int64 // the recorder's own clock if timed
	asked   atomic.Int32
	endings atomic.Int32
	permits [most]atomic.Pointer[breaker.Permit]
}

// now returns a time between that of all earlier and that of all later commands.
func (r *recorder) now() int64 {
	if r.timed {
		return r.clock.Add(2) // leaves one time in between
	}
	return int64(time.Since(r.begin))
}

// record chooses a permit, does the command, and records it. Any worker may end any permit.
func (r *recorder) record(worker int, of command) (recorded []porcupine.Operation) {
	var permit *breaker.Permit
	if of.verb == done || of.verb == cancel {
		if of.permit = int8(r.asked.Load()) - 1 - int8(rand.IntN(5)); of.permit >= 0 {
			permit = r.permits[of.permit].Load()
		}
		if permit == nil {
			of.verb = acquire
		} else {
			of.ending = int8(r.endings.Add(1))
		}
	}
	if of.verb == acquire || of.verb == do {
		of.permit = int8(r.asked.Add(1)) - 1
	}
	if of.verb == do {
		of.ending, of.byDo = int8(r.endings.Add(1)), true
	}
	if of.verb != done && of.verb != do {
		of.outcome = 0
	}
	begin := r.now()
	got := r.do(of, permit)
	end := r.now()
	verbs := []verb{of.verb}
	switch of.verb {
	case do:
		if verbs = slices.Concat([]verb{acquire}, r.ending); got.refused {
			verbs = verbs[:1]
		}
	case done:
		verbs = r.ending
	case cancel:
		verbs = []verb{claim, cancel}
	}
	for _, of.verb = range verbs {
		o := porcupine.Operation{ClientId: worker, Input: of, Call: begin, Output: got, Return: end}
		recorded = append(recorded, o)
	}
	return recorded
}

func (r *recorder) do(of command, permit *breaker.Permit) (got answer) {
	switch of.verb {
	case acquire:
		p, err := r.breaker.Acquire(context.Background())
		r.permits[of.permit].Store(&p)
		if refusal := (*breaker.OpenError)(nil); errors.As(err, &refusal) {
			return answer{refused: true, state: refusal.State}
		}
	case do:
		_, err := breaker.Do(context.Background(), r.breaker, func(context.Context) (int, error) {
			runtime.Gosched()
			return 0, errorOf[of.outcome]
		})
		if refusal := (*breaker.OpenError)(nil); errors.As(err, &refusal) {
			return answer{refused: true, state: refusal.State}
		}
	case done:
		permit.Done(errorOf[of.outcome])
	case cancel:
		permit.Cancel()
	case reset:
		r.breaker.Reset()
	case halfOpen:
		r.breaker.HalfOpen()
	case forceOpen:
		r.breaker.ForceOpen()
	case disable:
		r.breaker.Disable()
	case look:
		return answer{state: r.breaker.State()}
	case set:
		c := r.breaker.Config()
		c.MaxOpenFor += time.Second
		if err := r.breaker.SetConfig(c); err != nil {
			panic(err)
		}
	case sumUp:
		s := r.breaker.Snapshot()
		return answer{state: s.State, sum: summary{
			calls: s.Calls, failures: s.Failures, row: s.Consecutive, leak: s.Leak, running: s.Running, openings: s.Openings,
		}}
	}
	return answer{}
}

var errIgnored = errors.New("ignored")

var errorOf = map[breaker.Outcome]error{breaker.Failure: failure{}, breaker.Ignored: errIgnored}

// A failure yields to other goroutines when it is asked for its RetryAfter, just before the breaker
// opens.
type failure struct{}

func (failure) Error() string { return "failure" }

func (failure) RetryAfter() time.Duration {
	runtime.Gosched()
	return 0
}

func describe(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var text strings.Builder
	for _, o := range history {
		fmt.Fprintf(&text, "%8d to %8d, worker %d: %-20v %v\n", o.Call, o.Return, o.ClientId, o.Input, o.Output)
	}
	return text.String()
}
