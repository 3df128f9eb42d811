// Package share holds the real groups, which are made of what Calls and Stale are, against a plain account of what happens at each instant: who comes, who goes,
// which runs end.
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

// An outcome is what a run comes to.
type outcome struct {
	kind  string // good, error, panic, Goexit
	takes time.Duration
	deaf  bool // takes no notice of its ctx
}

// An event is a call for a key, or its being forgotten.
type event struct {
	at      time.Duration
	key     int
	forgets bool
	stays   time.Duration // how long the caller waits at most
}

// A scenario is a group and what happens to it. No two things happen in one instant, but for callers of one run who are told of its end: calls come at
// whole milliseconds, runs end in the middle between them, and callers go at a time of their own. Which of two is first in one instant is not said.
type scenario struct {
	fresh, stale time.Duration
	maxKeys      int
	events       []event
	runs         []outcome // the last one again and again
}

func draw(t *rapid.T) scenario {
	ms := func(most int, label string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Millisecond
	}
	s := scenario{fresh: ms(20, "Fresh"), stale: ms(40, "Stale"), maxKeys: rapid.IntRange(1, 4).Draw(t, "MaxKeys")}
	if rapid.IntRange(0, 3).Draw(t, "keeps") == 0 {
		s.fresh, s.stale = 0, 0
	}
	at := time.Duration(0)
	for i := range rapid.IntRange(1, 25).Draw(t, "events") {
		at += time.Millisecond + ms(10, "gap")
		e := event{at: at, key: rapid.IntRange(0, 3).Draw(t, "key"), forgets: rapid.IntRange(0, 9).Draw(t, "forgets") == 0, stays: time.Hour}
		if rapid.IntRange(0, 2).Draw(t, "leaves") == 0 {
			e.stays = ms(30, "stays") + 250*time.Microsecond + time.Duration(i)*time.Microsecond
		}
		s.events = append(s.events, e)
	}
	for range rapid.IntRange(1, 10).Draw(t, "runs") {
		s.runs = append(s.runs, outcome{
			kind:  rapid.SampledFrom([]string{"good", "good", "good", "error", "error", "panic", "Goexit"}).Draw(t, "kind"),
			takes: ms(25, "takes"), deaf: rapid.Bool().Draw(t, "deaf"),
		})
	}
	return s
}

func (s scenario) run(n int) outcome { return s.runs[min(n, len(s.runs)-1)] }

// ends is when a run for a key ends that began at a time.
func (s scenario) ends(n, key int, began time.Duration) time.Duration {
	return began + s.run(n).takes + 500*time.Microsecond + time.Duration(key)*50*time.Microsecond
}

// The account.

type value struct {
	run, caller int
	since       time.Duration
}

type running struct {
	n, first int // the run's number, and who began it
	ends     time.Duration
	waiting  []int
}

type entry struct {
	key       int
	gone      bool // forgotten, or fallen away
	users     int
	idleSince time.Duration
	run       *running
	last      *value
}

type account struct {
	scenario
	entries  []*entry // that are there
	runs     int
	verdicts []string // of the callers, by number
	lens     []int    // after each event
}

func (a *account) tell(caller int, at time.Duration, what string) {
	a.verdicts[caller] = fmt.Sprint(what, " at ", at)
}

func (a *account) kept(e *entry, now, limit time.Duration) bool {
	return e.last != nil && now-e.last.since < limit
}

// expire lets keys fall away that were idle for too long; shrink, those that are too many, the one idle for longest first.
func (a *account) expire(now time.Duration) {
	a.entries = slices.DeleteFunc(a.entries, func(e *entry) bool { return e.users == 0 && now-e.idleSince >= a.fresh+a.stale })
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
	if e.run == nil && !a.kept(e, now, a.fresh+a.stale) {
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
		a.tell(caller, c.at, fmt.Sprintf("run %d of call %d", e.last.run, e.last.caller))
		a.release(e, c.at)
		return
	}
	if e.run == nil {
		e.run = &running{n: a.runs, first: caller, ends: a.ends(a.runs, c.key, c.at)}
		a.runs++
	}
	e.run.waiting = append(e.run.waiting, caller)
}

// leave is a caller's ctx ending, if he is still there.
func (a *account) leave(caller int, e *entry, now time.Duration) {
	if e.run == nil || !slices.Contains(e.run.waiting, caller) {
		return
	}
	e.run.waiting = slices.DeleteFunc(e.run.waiting, func(w int) bool { return w == caller })
	if len(e.run.waiting) == 0 {
		e.run = nil // given up
	}
	a.tell(caller, now, "ctx")
	a.release(e, now)
}

// end is the end of an entry's run.
func (a *account) end(e *entry) {
	r, now := e.run, e.run.ends
	e.run = nil
	what := fmt.Sprintf("%s %d", a.run(r.n).kind, r.n)
	switch a.run(r.n).kind {
	case "Goexit":
		what = "Goexit"
	case "good":
		what = fmt.Sprintf("run %d of call %d", r.n, r.first)
		if a.fresh+a.stale > 0 {
			e.last = &value{r.n, r.first, now}
		}
	case "error":
		if a.kept(e, now, a.fresh+a.stale) {
			what = fmt.Sprintf("run %d of call %d", e.last.run, e.last.caller)
		}
	}
	for _, caller := range r.waiting {
		a.tell(caller, now, what)
	}
	for range r.waiting {
		a.release(e, now)
	}
}

func (s scenario) expected() (verdicts []string, lens []int, runs int) {
	a := &account{scenario: s, verdicts: make([]string, len(s.events))}
	of := make([]*entry, len(s.events)) // each caller's
	next := 0
	for {
		// What comes next: a call, a caller's going, or a run's end.
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
	g := share.NewGroup(share.Config{Fresh: s.fresh, Stale: s.stale, MaxKeys: s.maxKeys}, func(ctx context.Context, key int) (string, error) {
		mu.Lock()
		n := runs
		runs++
		mu.Unlock()
		o, of := s.run(n), ctx.Value(callerKey{})
		over := ctx.Done()
		if o.deaf {
			over = nil
		}
		select {
		case <-time.After(s.ends(n, key, time.Since(began)) - time.Since(began)):
		case <-over:
		}
		switch {
		case ctx.Err() != nil: // nobody hears what becomes of it
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
	time.Sleep(time.Second) // deaf runs end
	return verdicts, lens, runs
}

// ask makes a call on a goroutine of its own, since a Goexit ends it, and says what came of it.
func ask(g *share.Group[int, string], caller int, e event) (what string) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), callerKey{}, caller), e.stays)
	defer cancel()
	told := make(chan string, 1)
	go func() {
		returned := false
		defer func() {
			value := recover()
			switch p, ok := value.(*resilience.PanicError); {
			case ok:
				told <- fmt.Sprint(p.Value)
			case value != nil:
				told <- fmt.Sprint("a bare panic: ", value)
			case !returned:
				told <- "Goexit"
			}
		}()
		value, err := g.Do(ctx, e.key)
		returned = true
		switch {
		case err == nil:
			told <- value
		case errors.Is(err, errOwn):
			told <- strings.TrimSuffix(err.Error(), ": own")
		case errors.Is(err, context.DeadlineExceeded):
			told <- "ctx"
		default:
			told <- "odd: " + err.Error()
		}
	}()
	return <-told
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
				rt.Fatalf("event %d of %+v: %s, want %s", i, s, verdicts[i], wantVerdicts[i])
			}
		}
		if runs != wantRuns || !slices.Equal(lens, wantLens) {
			rt.Fatalf("%+v: %d runs, want %d, and %v keys, want %v", s, runs, wantRuns, lens, wantLens)
		}
	})
}
