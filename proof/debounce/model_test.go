// Package debounce compares First and Last with a plain account of what happens at each instant:
// which callers come and leave, and when runs begin and end.
package debounce

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/debounce"
	"github.com/effector-go/resilience/proof/internal/cases"
)

func TestMain(m *testing.M) { cases.Main(m, 1500, 0) }

// An outcome is how a run ends.
type outcome struct {
	kind    string // good, error, panic, Goexit
	takes   time.Duration
	ignores bool // ignores its context
}

// A call is when a caller comes, and the longest time that it waits.
type call struct{ at, stays time.Duration }

// A scenario is an effector and its calls. No two things happen in the same instant, because their
// order is unspecified then, except that all callers of a run receive its result at the same time:
// calls come at whole milliseconds; callers leave, and runs begin and end, at times of their own
// between them.
type scenario struct {
	quiet, most time.Duration
	calls       []call
	runs        []outcome // the last one is repeated
}

func draw(t *rapid.T) scenario {
	ms := func(most int, label string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Millisecond
	}
	s := scenario{quiet: ms(20, "quiet") + 300*time.Microsecond}
	if rapid.Bool().Draw(t, "bound") {
		s.most = ms(40, "most") + 300*time.Microsecond
	}
	at := time.Duration(0)
	for i := range rapid.IntRange(1, 25).Draw(t, "calls") {
		at += time.Millisecond + ms(12, "gap")
		c := call{at: at, stays: time.Hour}
		if rapid.IntRange(0, 2).Draw(t, "leaves") == 0 {
			c.stays = ms(30, "stays") + 100*time.Microsecond + time.Duration(i)*time.Microsecond
		}
		s.calls = append(s.calls, c)
	}
	for range rapid.IntRange(1, 8).Draw(t, "runs") {
		s.runs = append(s.runs, outcome{
			kind:  rapid.SampledFrom([]string{"good", "good", "error", "panic", "Goexit"}).Draw(t, "kind"),
			takes: ms(25, "takes") + 400*time.Microsecond, ignores: rapid.Bool().Draw(t, "ignores"),
		})
	}
	return s
}

func (s scenario) run(n int) outcome { return s.runs[min(n, len(s.runs)-1)] }

// A burst is what calls share.
type burst struct {
	n       int           // the run's number; -1 until it begins
	of      int           // the call whose values it has
	begins  time.Duration // for Last
	ends    time.Duration // 0: not known
	over    bool          // the run has ended
	first   time.Duration // call
	came    time.Duration // the last call
	waiting []int
}

type account struct {
	scenario
	bursts   []*burst // not over, or the latest
	runs     int
	verdicts []string
}

func (a *account) begin(b *burst, now time.Duration) {
	b.n = a.runs
	a.runs++
	b.ends = now + a.run(b.n).takes
}

func (a *account) record(caller int, at time.Duration, what string) {
	a.verdicts[caller] = fmt.Sprint(what, " at ", at)
}

func (a *account) outcome(b *burst) string {
	switch kind := a.run(b.n).kind; kind {
	case "good":
		return fmt.Sprintf("run %d of call %d", b.n, b.of)
	case "Goexit":
		return kind
	default:
		return fmt.Sprintf("%s %d", kind, b.n)
	}
}

// first is a call of First.
func (a *account) first(caller int) {
	now := a.calls[caller].at
	var b *burst
	if len(a.bursts) > 0 {
		b = a.bursts[len(a.bursts)-1]
	}
	quiet := b != nil && b.over && now-max(b.came, b.ends) >= a.quiet
	tooOld := b != nil && b.over && a.most > 0 && now-b.ends >= a.most
	if b == nil || quiet || tooOld {
		b = &burst{of: caller}
		a.begin(b, now)
		a.bursts = append(a.bursts, b)
	}
	b.came = now
	if b.over {
		a.record(caller, now, a.outcome(b))
		return
	}
	b.waiting = append(b.waiting, caller)
}

// last is a call of Last.
func (a *account) last(caller int) {
	now := a.calls[caller].at
	i := slices.IndexFunc(a.bursts, func(b *burst) bool { return b.n < 0 })
	if i < 0 {
		a.bursts = append(a.bursts, &burst{n: -1, first: now})
		i = len(a.bursts) - 1
	}
	b := a.bursts[i]
	b.of, b.waiting = caller, append(b.waiting, caller)
	b.begins = now + a.quiet
	if a.most > 0 {
		b.begins = min(b.begins, b.first+a.most)
	}
}

// leave is the end of a caller's context. A burst is given up when all its callers have left.
func (a *account) leave(caller int, now time.Duration) {
	for _, b := range a.bursts {
		if !slices.Contains(b.waiting, caller) {
			continue
		}
		b.waiting = slices.DeleteFunc(b.waiting, func(w int) bool { return w == caller })
		a.record(caller, now, "context")
		if len(b.waiting) == 0 {
			a.bursts = slices.DeleteFunc(a.bursts, func(x *burst) bool { return x == b })
		}
		return
	}
}

func (a *account) end(b *burst) {
	b.over = true
	for _, caller := range b.waiting {
		a.record(caller, b.ends, a.outcome(b))
	}
	b.waiting = nil
}

func (s scenario) expected(come func(*account, int)) (verdicts []string, runs int) {
	a := &account{scenario: s, verdicts: make([]string, len(s.calls))}
	next := 0
	for {
		at, act := time.Duration(1<<62), func() {}
		consider := func(when time.Duration, what func()) {
			if when < at {
				at, act = when, what
			}
		}
		if next < len(s.calls) {
			consider(s.calls[next].at, func() { come(a, next); next++ })
		}
		for caller := range next {
			if a.verdicts[caller] == "" {
				consider(s.calls[caller].at+s.calls[caller].stays, func() { a.leave(caller, at) })
			}
		}
		for _, b := range a.bursts {
			switch {
			case b.n < 0:
				consider(b.begins, func() { a.begin(b, b.begins) })
			case !b.over:
				consider(b.ends, func() { a.end(b) })
			}
		}
		if at == 1<<62 {
			return a.verdicts, a.runs
		}
		act()
	}
}

// The real thing.

type callerKey struct{}

var errOwn = errors.New("own")

type maker func(e resilience.Effector[string], quiet, most time.Duration) resilience.Effector[string]

func (s scenario) actual(debounced maker) (verdicts []string, runs int) {
	var mu sync.Mutex // guards runs and verdicts
	began := time.Now()
	effector := debounced(func(ctx context.Context) (string, error) {
		mu.Lock()
		n := runs
		runs++
		mu.Unlock()
		o, of := s.run(n), ctx.Value(callerKey{})
		over := ctx.Done()
		if o.ignores {
			over = nil
		}
		select {
		case <-time.After(o.takes):
		case <-over:
		}
		switch {
		case ctx.Err() != nil: // no caller receives the result
			return "given up", nil
		case o.kind == "error":
			return "", fmt.Errorf("error %d: %w", n, errOwn)
		case o.kind == "panic":
			panic(fmt.Sprint("panic ", n))
		case o.kind == "Goexit":
			runtime.Goexit()
		}
		return fmt.Sprintf("run %d of call %v", n, of), nil
	}, s.quiet, s.most)
	verdicts = make([]string, len(s.calls))
	var callers sync.WaitGroup
	for i, c := range s.calls {
		time.Sleep(c.at - time.Since(began))
		callers.Add(1)
		go func() {
			defer callers.Done()
			what := ask(effector, i, c)
			mu.Lock()
			defer mu.Unlock()
			verdicts[i] = fmt.Sprint(what, " at ", time.Since(began))
		}()
	}
	callers.Wait()
	time.Sleep(time.Second) // until runs that ignore their context have ended
	return verdicts, runs
}

// ask makes a call on its own goroutine, because a Goexit ends that, and returns how the call
// ended.
func ask(effector resilience.Effector[string], caller int, c call) (what string) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), callerKey{}, caller), c.stays)
	defer cancel()
	result := make(chan string, 1)
	go func() {
		returned := false
		defer func() {
			value := recover()
			switch p, ok := value.(*resilience.PanicError); {
			case ok:
				result <- fmt.Sprint(p.Value)
			case value != nil:
				result <- fmt.Sprint("a bare panic: ", value)
			case !returned:
				result <- "Goexit"
			}
		}()
		value, err := effector(ctx)
		returned = true
		switch {
		case err == nil:
			result <- value
		case errors.Is(err, errOwn):
			result <- strings.TrimSuffix(err.Error(), ": own")
		case errors.Is(err, context.DeadlineExceeded):
			result <- "context"
		default:
			result <- "odd: " + err.Error()
		}
	}()
	return <-result
}

func agree(t *testing.T, come func(*account, int), debounced maker) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		wantVerdicts, wantRuns := s.expected(come)
		var verdicts []string
		var runs int
		synctest.Test(t, func(*testing.T) { verdicts, runs = s.actual(debounced) })
		for i := range verdicts {
			if verdicts[i] != wantVerdicts[i] {
				rt.Fatalf("call %d of %+v: got %s, want %s", i, s, verdicts[i], wantVerdicts[i])
			}
		}
		if runs != wantRuns {
			rt.Fatalf("%+v: got %d runs, want %d", s, runs, wantRuns)
		}
	})
}

func TestFirstMatchesModel(t *testing.T) { agree(t, (*account).first, debounce.First[string]) }

func TestLastMatchesModel(t *testing.T) { agree(t, (*account).last, debounce.Last[string]) }
