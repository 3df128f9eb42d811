// Package share compares groups, which consist of what Calls, Stale, and New return, with a plain
// account of what happens at each instant: which callers come and leave, and which runs end.
package share

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
	"github.com/effector-go/resilience/proof/internal/cases"
	"github.com/effector-go/resilience/share"
)

func TestMain(m *testing.M) { cases.Main(m, 1500, 0) }

// An outcome is how a run ends.
type outcome struct {
	kind    string // good, error, panic, Goexit
	takes   time.Duration
	ignores bool // ignores its context
}

// An event is a call for a key, or Forget of the key.
type event struct {
	at      time.Duration
	key     int
	forgets bool
	stays   time.Duration // the longest time that the caller waits
}

// A scenario is a group and what happens to it. No two things happen in the same instant, because
// their order is unspecified then, except that all callers of a run receive its result at the same
// time: calls come at whole milliseconds, runs end halfway between them, and callers leave at times
// of their own.
type scenario struct {
	fresh, revalidate, stale time.Duration
	maxKeys                  int
	events                   []event
	runs                     []outcome // the last one is repeated
}

func draw(t *rapid.T) scenario {
	ms := func(most int, label string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Millisecond
	}
	s := scenario{fresh: ms(20, "Fresh"), revalidate: ms(30, "Revalidate"), stale: ms(40, "Stale"), maxKeys: rapid.IntRange(1, 4).Draw(t, "MaxKeys")}
	if rapid.IntRange(0, 3).Draw(t, "keeps") == 0 {
		s.fresh, s.revalidate, s.stale = 0, 0, 0
	}
	if rapid.Bool().Draw(t, "waits") {
		s.revalidate = 0
	}
	lastKey := rapid.IntRange(0, 3).Draw(t, "last key")
	at := time.Duration(0)
	for i := range rapid.IntRange(1, 25).Draw(t, "events") {
		at += time.Millisecond + ms(10, "gap")
		e := event{at: at, key: rapid.IntRange(0, lastKey).Draw(t, "key"), forgets: rapid.IntRange(0, 9).Draw(t, "forgets") == 0, stays: time.Hour}
		if rapid.IntRange(0, 2).Draw(t, "leaves") == 0 {
			e.stays = ms(30, "stays") + 250*time.Microsecond + time.Duration(i)*time.Microsecond
		}
		s.events = append(s.events, e)
	}
	for range rapid.IntRange(1, 10).Draw(t, "runs") {
		s.runs = append(s.runs, outcome{
			kind:  rapid.SampledFrom([]string{"good", "good", "good", "error", "error", "panic", "Goexit"}).Draw(t, "kind"),
			takes: ms(25, "takes"), ignores: rapid.Bool().Draw(t, "ignores"),
		})
	}
	return s
}

func (s scenario) run(n int) outcome { return s.runs[min(n, len(s.runs)-1)] }

// keep is how long a value is kept.
func (s scenario) keep() time.Duration { return s.fresh + max(s.revalidate, s.stale) }

// ends returns when a run for a key ends.
func (s scenario) ends(n, key int, began time.Duration) time.Duration {
	return began + s.run(n).takes + 500*time.Microsecond + time.Duration(key)*50*time.Microsecond
}

// The account.

type value struct {
	run, caller int
	since       time.Duration
}

type running struct {
	n, first   int // the run's number, and the caller that began it
	ends       time.Duration
	waiting    []int
	background bool
}

type entry struct {
	key       int
	gone      bool // forgotten or evicted
	broken    bool // the latest run panicked or called Goexit
	users     int
	idleSince time.Duration
	run       *running
	last      *value
}

type account struct {
	scenario
	entries  []*entry // the present ones
	all      []*entry // and those that are gone
	runs     int
	verdicts []string // of the callers, by number
	lens     []int    // after each event
}

func (a *account) record(caller int, at time.Duration, what string) {
	a.verdicts[caller] = fmt.Sprint(what, " at ", at)
}

func (a *account) kept(e *entry, now, limit time.Duration) bool {
	return e.last != nil && now-e.last.since < limit
}

// expire evicts keys that were idle for too long; shrink evicts the least recently used ones while
// there are too many.
func (a *account) expire(now time.Duration) {
	a.entries = slices.DeleteFunc(a.entries, func(e *entry) bool { return e.users == 0 && now-e.idleSince >= a.keep() })
}

func (a *account) shrink() {
	for len(a.entries) > a.maxKeys {
		var oldest *entry
		for _, e := range a.entries {
			if e.users == 0 && (oldest == nil || e.idleSince < oldest.idleSince) {
				oldest = e
			}
		}
		if oldest == nil {
			return
		}
		a.drop(oldest)
	}
}

func (a *account) drop(e *entry) {
	a.entries = slices.DeleteFunc(a.entries, func(x *entry) bool { return x == e })
	e.gone = true
}

func (a *account) release(e *entry, now time.Duration) {
	e.users--
	if e.users > 0 || e.gone {
		return
	}
	if e.run == nil && !a.kept(e, now, a.keep()) {
		a.drop(e)
		return
	}
	e.idleSince = now
	a.shrink()
}

// come is a call.
func (a *account) come(caller int, c event) *entry {
	a.expire(c.at)
	i := slices.IndexFunc(a.entries, func(e *entry) bool { return e.key == c.key })
	if i < 0 {
		a.entries = append(a.entries, &entry{key: c.key, users: 1})
		i = len(a.entries) - 1
		e := a.entries[i]
		a.all = append(a.all, e)
		a.shrink()
		a.join(caller, c, e)
		return e
	}
	e := a.entries[i]
	e.users++
	a.join(caller, c, e)
	return e
}

func (a *account) join(caller int, c event, e *entry) {
	if a.kept(e, c.at, a.fresh) {
		a.record(caller, c.at, fmt.Sprintf("run %d of call %d", e.last.run, e.last.caller))
		a.release(e, c.at)
		return
	}
	if !e.broken && a.kept(e, c.at, a.fresh+a.revalidate) {
		a.record(caller, c.at, fmt.Sprintf("run %d of call %d", e.last.run, e.last.caller))
		if e.run == nil {
			a.begin(caller, c, e).background = true
			return // the run holds the key
		}
		a.release(e, c.at)
		return
	}
	if e.run == nil {
		a.begin(caller, c, e)
	}
	e.run.waiting = append(e.run.waiting, caller)
}

func (a *account) begin(caller int, c event, e *entry) *running {
	e.run = &running{n: a.runs, first: caller, ends: a.ends(a.runs, c.key, c.at)}
	a.runs++
	return e.run
}

// leave is the end of a caller's context, if the caller still waits.
func (a *account) leave(caller int, e *entry, now time.Duration) {
	if e.run == nil || !slices.Contains(e.run.waiting, caller) {
		return
	}
	e.run.waiting = slices.DeleteFunc(e.run.waiting, func(w int) bool { return w == caller })
	if len(e.run.waiting) == 0 && !e.run.background {
		e.run = nil // given up
	}
	a.record(caller, now, "context")
	a.release(e, now)
}

// end is the end of an entry's run.
func (a *account) end(e *entry) {
	r, now := e.run, e.run.ends
	e.run = nil
	e.broken = a.run(r.n).kind == "panic" || a.run(r.n).kind == "Goexit"
	what := fmt.Sprintf("%s %d", a.run(r.n).kind, r.n)
	switch a.run(r.n).kind {
	case "Goexit":
		what = "Goexit"
	case "good":
		what = fmt.Sprintf("run %d of call %d", r.n, r.first)
		if a.keep() > 0 {
			e.last = &value{r.n, r.first, now}
		}
	case "error":
		if a.kept(e, now, a.keep()) {
			what = fmt.Sprintf("run %d of call %d", e.last.run, e.last.caller)
		}
	}
	for _, caller := range r.waiting {
		a.record(caller, now, what)
	}
	for range r.waiting {
		a.release(e, now)
	}
	if r.background {
		a.release(e, now)
	}
}

func (s scenario) expected() (verdicts []string, lens []int, runs int) {
	a := &account{scenario: s, verdicts: make([]string, len(s.events))}
	of := make([]*entry, len(s.events)) // each caller's
	next := 0
	for {
		// The next thing to happen: a call, a caller that leaves, or the end of a run.
		at, act := time.Duration(1<<62), func() {}
		consider := func(when time.Duration, what func()) {
			if when < at {
				at, act = when, what
			}
		}
		if next < len(s.events) {
			consider(s.events[next].at, func() {
				c := s.events[next]
				if c.forgets {
					if i := slices.IndexFunc(a.entries, func(e *entry) bool { return e.key == c.key }); i >= 0 {
						a.drop(a.entries[i])
					}
				} else {
					of[next] = a.come(next, c)
				}
				next++
				a.expire(c.at)
				a.lens = append(a.lens, len(a.entries))
			})
		}
		for caller, e := range of {
			if e == nil || a.verdicts[caller] != "" {
				continue
			}
			consider(s.events[caller].at+s.events[caller].stays, func() { a.leave(caller, e, at) })
		}
		for _, e := range a.all {
			if e.run != nil {
				consider(e.run.ends, func() { a.end(e) })
			}
		}
		if at == 1<<62 {
			return a.verdicts, a.lens, a.runs
		}
		act()
	}
}

// The real thing.

type callerKey struct{}

var errOwn = errors.New("own")

func (s scenario) actual() (verdicts []string, lens []int, runs int) {
	var mu sync.Mutex // guards runs and verdicts
	began := time.Now()
	g := share.NewGroup(share.Config{Fresh: s.fresh, Revalidate: s.revalidate, Stale: s.stale, MaxKeys: s.maxKeys}, func(ctx context.Context, key int) (string, error) {
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
		case <-time.After(s.ends(n, key, time.Since(began)) - time.Since(began)):
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
	})
	verdicts = make([]string, len(s.events))
	var callers sync.WaitGroup
	for i, e := range s.events {
		time.Sleep(e.at - time.Since(began))
		if e.forgets {
			g.Forget(e.key)
		} else {
			callers.Add(1)
			go func() {
				defer callers.Done()
				what := ask(g, i, e)
				mu.Lock()
				defer mu.Unlock()
				verdicts[i] = fmt.Sprint(what, " at ", time.Since(began))
			}()
		}
		synctest.Wait()
		lens = append(lens, g.Len())
	}
	callers.Wait()
	time.Sleep(time.Second) // until runs that ignore their context have ended
	return verdicts, lens, runs
}

// ask makes a call on its own goroutine, because a Goexit ends that, and returns how the call
// ended.
func ask(g *share.Group[int, string], caller int, e event) (what string) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), callerKey{}, caller), e.stays)
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
		value, err := g.Do(ctx, e.key)
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

func TestGroupMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		wantVerdicts, wantLens, wantRuns := s.expected()
		var verdicts []string
		var lens []int
		var runs int
		synctest.Test(t, func(*testing.T) { verdicts, lens, runs = s.actual() })
		for i := range verdicts {
			if verdicts[i] != wantVerdicts[i] {
				rt.Fatalf("event %d of %+v: got %s, want %s", i, s, verdicts[i], wantVerdicts[i])
			}
		}
		if runs != wantRuns || !slices.Equal(lens, wantLens) {
			rt.Fatalf("%+v: got %d runs, want %d, and %v keys, want %v", s, runs, wantRuns, lens, wantLens)
		}
	})
}
