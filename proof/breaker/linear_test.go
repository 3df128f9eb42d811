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
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/proof/internal/cases"
)

// Each of these tests records what goroutines that race see of a breaker, and looks for one order of their commands, one after
// the other, in which the specification gives the same answers. Open times are so long that no state changes by time.

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

func TestRunningCallsAreLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{Consecutive: 3, SlowRate: 1, SlowCall: time.Hour, Window: 100 * time.Hour})
}

func TestOneTrialIsLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{Consecutive: 2}, halfOpen)
}

func TestTrialsAreLinearizable(t *testing.T) {
	linearizable(t, breaker.Config{Consecutive: 2, Probes: 2, ProbeSuccesses: 3, ProbeFailures: 2}, halfOpen)
}

const (
	workers  = 4
	commands = 6  // of a worker
	most     = 32 // permits of a history
)

// linearizable checks as many histories as rapid is to check cases. Each begins with first.
func linearizable(t *testing.T, c breaker.Config, first ...verb) {
	c.OpenFor, c.MaxOpenFor, c.ProbeTimeout = time.Hour, time.Hour, time.Hour
	c.Probes, c.ProbeFailures = max(1, c.Probes), max(1, c.ProbeFailures)
	c.ProbeSuccesses = max(c.Probes, c.ProbeSuccesses)
	model := porcupine.Model{
		Init: func() any { return spec{} },
		Step: func(state, input, output any) (bool, any) {
			next, want := state.(spec).step(&c, input.(command))
			return want == output.(answer), next
		},
	}
	traffic := []verb{acquire, acquire, done, done, done, done, done, done, look}
	anything := slices.Concat(first, traffic, []verb{acquire, acquire, cancel, reset, halfOpen, forceOpen, disable})
	for round := range cases.Racing() {
		verbs := anything
		if round%2 == 0 {
			verbs = traffic
		}
		history := race(t, c, verbs, first)
		if !porcupine.CheckOperations(model, history) {
			t.Fatalf("no order of these commands explains what they returned:\n%s", describe(history))
		}
	}
}

// race lets workers do random commands with one breaker, and records them, after one has done the first ones and
// acquired some permits.
func race(t *testing.T, c breaker.Config, verbs, first []verb) (history []porcupine.Operation) {
	told := ""
	c.OnStateChange = func(tr breaker.Transition) {
		told += transition(tr.From, tr.To) // the race detector sees it if two are told at a time
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
	r := &recorder{breaker: breaker.New(c), begin: time.Now()}
	for _, v := range slices.Concat(first, slices.Repeat([]verb{acquire}, rand.IntN(6))) {
		history = append(history, r.record(0, command{verb: v})...)
	}
	var histories [workers][]porcupine.Operation
	ready := newStart(workers)
	var g errgroup.Group
	for w := range workers {
		g.Go(func() error {
			ready.wait()
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
	end := r.record(0, command{verb: sumUp})
	sum := end[0].Output.(answer)
	sum.sum.told = told
	end[0].Output = sum
	return slices.Concat(history, slices.Concat(histories[:]...), end)
}

// A recorder does commands and notes when each began and ended.
type recorder struct {
	breaker *breaker.Breaker
	begin   time.Time
	asked   atomic.Int32
	endings atomic.Int32
	permits [most]atomic.Pointer[breaker.Permit]
}

// record chooses a permit, does the command and records it. A permit is anybody's.
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
	if of.verb == acquire {
		of.permit = int8(r.asked.Add(1)) - 1
	}
	if of.verb != done {
		of.outcome = 0
	}
	begin := time.Since(r.begin)
	got := r.do(of, permit)
	end := time.Since(r.begin)
	verbs := []verb{of.verb}
	switch of.verb {
	case done:
		verbs = []verb{claim, done, trip}
	case cancel:
		verbs = []verb{claim, cancel}
	}
	for _, of.verb = range verbs {
		o := porcupine.Operation{ClientId: worker, Input: of, Call: int64(begin), Output: got, Return: int64(end)}
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
	case done:
		permit.Done(map[breaker.Outcome]error{breaker.Failure: failure{}, breaker.Ignored: errIgnored}[of.outcome])
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
	case sumUp:
		s := r.breaker.Snapshot()
		return answer{state: s.State, sum: summary{
			calls: s.Calls, failures: s.Failures, row: s.Consecutive, leak: s.Leak, running: s.Running, openings: s.Openings,
		}}
	}
	return answer{}
}

var errIgnored = errors.New("ignored")

// A failure gives way to others when it is asked for its RetryAfter, just before the breaker opens.
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
