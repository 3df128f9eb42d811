package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func silent(time.Duration, string) {}

func TestBooksBalanceAfterAShortRun(t *testing.T) {
	cfg := config{length: 300 * time.Millisecond, workers: 40, seed: 1}
	l, err := soak(t.Context(), cfg, silent)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if !report(&text, cfg, l) {
		t.Error(text.String())
	}
}

func TestChecksAreMadeAfterAnEarlyEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if status := run(ctx, []string{"-for", "1h", "-workers", "20", "-seed", "7"}, &stdout, &stderr); status != 0 || stderr.Len() > 0 {
		t.Errorf("status %d, stderr %q\n%s", status, &stderr, &stdout)
	}
	for _, c := range checks() {
		if !strings.Contains(stdout.String(), c.name) {
			t.Errorf("the report lacks %q:\n%s", c.name, &stdout)
		}
	}
}

// balanced is a ledger that keeps every rule.
func balanced() *ledger {
	l := newLedger(config{workers: 1})
	l.calls.Store(10)
	l.answered.Store(10)
	l.ended[succeeded].Store(4)
	l.ended[failed].Store(3)
	l.ended[refused].Store(2)
	l.ended[canceled].Store(1)
	l.made.Store(8)
	l.starts.Store(9)
	l.attempts.Store(9)
	l.attemptsEnded.Store(9)
	l.decided.Store(2) // one of which was refused
	l.asked.Store(12)
	l.admitted.Store(9)
	l.refusals.Store(3)
	l.sent.Store(8)
	l.sentSum.Store(77)
	l.received.Store(8)
	l.receivedSum.Store(77)
	l.handed.Store(6)
	l.got.Store(4)
	l.dropped.Store(2)
	l.tallies[0] = tallied{made: 6, calls: 6, failures: 3, told: breaker.Snapshot{Calls: 6, Failures: 3}}
	l.tallies[1] = tallied{made: 3, calls: 2, failures: 1, ignored: 1, told: breaker.Snapshot{Calls: 2, Failures: 1}}
	l.closedAgain = true
	l.heapWarm, l.heapEnd = 1<<20, 1<<20
	return l
}

// broken are the names of the checks that fail.
func broken(l *ledger) (names []string) {
	for _, c := range checks() {
		if _, ok := c.holds(l); !ok {
			names = append(names, c.name)
		}
	}
	return names
}

func TestEachCheckFailsForTheLedgerItIsFor(t *testing.T) {
	if names := broken(balanced()); names != nil {
		t.Fatalf("a balanced ledger fails %q", names)
	}
	const (
		answered = "every call is answered, once"
		starts   = "Next.Starts agrees with the effector"
		window   = "a window counts every call"
		cancels  = "and with callers who cancel"
		running  = "no call is thought to run"
		closes   = "the guard closes again"
		further  = "every further attempt was granted"
		budgeted = "retries keep to the budget"
		server   = "the server's count agrees with the client's"
		values   = "every value is got or dropped"
		guard    = "the guard admits or refuses"
	)
	tests := []struct {
		what  string
		spoil func(l *ledger)
		fails []string
	}{
		{"no call at all", func(l *ledger) { l.calls.Store(0); l.answered.Store(0); clear(l.ended[:]) },
			[]string{answered, "every success has its value"}},
		{"a call never answered", func(l *ledger) { l.answered.Add(-1); l.ended[failed].Add(-1) }, []string{answered}},
		{"a call answered twice", func(l *ledger) { l.answered.Add(1); l.ended[failed].Add(1) }, []string{answered}},
		{"an answer of no kind", func(l *ledger) { l.ended[refused].Add(-1) }, []string{answered}},
		{"a start counted twice", func(l *ledger) { l.starts.Add(1) }, []string{starts}},
		{"a start not counted", func(l *ledger) { l.starts.Add(-1) }, []string{starts}},
		{"an attempt that goes on", func(l *ledger) { l.attemptsEnded.Add(-1) }, []string{"every attempt ends"}},
		{"a request lost", func(l *ledger) { l.received.Add(-1) }, []string{server}},
		{"a request from nowhere", func(l *ledger) { l.received.Add(1) }, []string{server}},
		{"another request than was sent", func(l *ledger) { l.receivedSum.Add(1) }, []string{server}},
		{"a write made twice", func(l *ledger) { l.repeated.Add(1) }, []string{"no request of a write comes twice"}},
		{"a value lost", func(l *ledger) { l.dropped.Add(-1) }, []string{values}},
		{"a value both got and dropped", func(l *ledger) { l.dropped.Add(1); l.twice.Add(1) }, []string{values, "and not twice"}},
		{"one value dropped twice and another lost", func(l *ledger) { l.twice.Add(1) }, []string{"and not twice"}},
		{"a success without value", func(l *ledger) { l.got.Add(-1); l.dropped.Add(1) }, []string{"every success has its value"}},
		{"a refusal not told", func(l *ledger) { l.refusals.Add(-1) }, []string{guard}},
		{"a call both refused and admitted", func(l *ledger) { l.admitted.Add(1) }, []string{guard}},
		{"a call counted twice", func(l *ledger) { l.tallies[0].told.Calls++ }, []string{window}},
		{"a failure not counted", func(l *ledger) { l.tallies[0].told.Failures-- }, []string{window}},
		{"a call not told to the breaker", func(l *ledger) { l.tallies[0].made++ }, []string{window}},
		{"an ignored call counted", func(l *ledger) { l.tallies[1].told.Calls++ }, []string{cancels}},
		{"a call classified twice", func(l *ledger) { l.tallies[1].ignored++ }, []string{cancels}},
		{"a permit lost", func(l *ledger) { l.tallies[1].told.Running = 1 }, []string{running}},
		{"a permit given back twice", func(l *ledger) { l.guard.Running = -1 }, []string{running}},
		{"a breaker that stays open", func(l *ledger) { l.closedAgain = false }, []string{closes}},
		{"a transition after the end", func(l *ledger) { l.guard.State = breaker.Open }, []string{closes}},
		{"a transition not told", func(l *ledger) { l.lastHeard = breaker.HalfOpen }, []string{closes}},
		{"a retry beyond the budget", func(l *ledger) { l.decided.Store(l.allowed() + 1) }, []string{budgeted}},
		{"a retry without a grant", func(l *ledger) { l.decided.Store(0) }, []string{further}},
		{"more first attempts than attempts", func(l *ledger) { l.made.Store(10) }, []string{further}},
		{"an effector left behind", func(l *ledger) { l.leftBehind = 1 }, []string{"no effector is left behind"}},
		{"a leak of memory", func(l *ledger) { l.heapEnd += l.heapAllowed() + 1 }, []string{"memory is flat"}},
		{"a goroutine left", func(l *ledger) { l.goroutines = errors.New("leak") }, []string{"goroutines are back to the start"}},
	}
	seen := map[string]bool{}
	for _, test := range tests {
		l := balanced()
		test.spoil(l)
		if got := broken(l); !slices.Equal(got, test.fails) {
			t.Errorf("%s: fails %q, must fail %q", test.what, got, test.fails)
		}
		var text bytes.Buffer
		if report(&text, config{}, l) {
			t.Errorf("%s: the report says that all is well:\n%s", test.what, &text)
		}
		for _, name := range test.fails {
			seen[name] = true
		}
	}
	for what, name := range oddityNames {
		l := balanced()
		l.odd(oddity(what), "call %d is odd", 1)
		if got := broken(l); !slices.Equal(got, []string{name}) || !slices.Equal(l.notes, []string{"call 1 is odd"}) {
			t.Errorf("an oddity %q fails %q and leaves the notes %q", name, got, l.notes)
		}
		seen[name] = true
	}
	for _, c := range checks() {
		if !seen[c.name] {
			t.Errorf("nothing shows that the check %q can fail", c.name)
		}
	}
}

func TestCallerKnowsAWrongAnswer(t *testing.T) {
	own := &attemptError{call: 1, attempt: 1, err: errServerDown}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		what  string
		ctx   context.Context
		call  *call
		value *lease
		err   error
		odd   oddity
	}{
		{"another call's value", t.Context(), &call{id: 1, starts: 1}, &lease{call: &call{id: 2}}, nil, foreignAnswer},
		{"no value", t.Context(), &call{id: 1, starts: 1}, nil, nil, unexplained},
		{"another error than the last attempt's", t.Context(), &call{id: 1, starts: 1, last: own},
			nil, &attemptError{call: 1, attempt: 1, err: errServerDown}, unexplained},
		{"a failure of no attempt", t.Context(), &call{id: 1, starts: 1}, nil, errServerDown, unexplained},
		{"not made and not refused", t.Context(), &call{id: 1}, nil, errServerDown, unexplained},
		{"dead on arrival, with another error", gone, &call{id: 1, kind: dead}, nil, resilience.ErrRefused, deadMade},
	} {
		r := &rig{ledger: newLedger(config{})}
		r.judge(test.ctx, test.call, test.value, test.err)
		for what := range r.ledger.oddCounts {
			if got := r.ledger.oddCounts[what].Load(); (got > 0) != (oddity(what) == test.odd) {
				t.Errorf("%s: %d oddities %q", test.what, got, oddityNames[what])
			}
		}
	}
}

func TestEffectorKnowsAWrongAttempt(t *testing.T) {
	for _, test := range []struct {
		what string
		call *call
		done int64 // attempts before
		odd  oddity
	}{
		{"a number that is not the attempt's", &call{}, 1, wrongNumber},
		{"an attempt after a permanent error", &call{rejected: true}, 0, afterPermanent},
	} {
		cl := &client{ledger: newLedger(config{})} // without an address: its attempts fail at once
		test.call.attempts.Store(test.done)
		if _, err := cl.attempt(context.WithValue(t.Context(), callKey{}, test.call)); err == nil {
			t.Errorf("%s: no error", test.what)
		}
		for what := range cl.ledger.oddCounts {
			if got := cl.ledger.oddCounts[what].Load(); (got > 0) != (oddity(what) == test.odd) {
				t.Errorf("%s: %d oddities %q", test.what, got, oddityNames[what])
			}
		}
	}
}

var errServerDown = errors.New("server down")

func TestJournalKnowsAWrongTransition(t *testing.T) {
	start := time.Now()
	opened := breaker.Transition{From: breaker.Closed, To: breaker.Open, At: start, Cause: "failures"}
	opened.Snapshot = breaker.Snapshot{Calls: 3, Failures: 2}
	tried := breaker.Transition{From: breaker.Open, To: breaker.HalfOpen, At: start.Add(1), Cause: "open time over"}
	tried.Snapshot = breaker.Snapshot{State: breaker.Open, Since: opened.At}
	closed := breaker.Transition{From: breaker.HalfOpen, To: breaker.Closed, At: start.Add(2), Cause: "probes"}
	closed.Snapshot = breaker.Snapshot{State: breaker.HalfOpen, Since: tried.At, Calls: 6, Failures: 1}
	reopened := closed
	reopened.To = breaker.Open
	reopened.Snapshot.Calls, reopened.Snapshot.Failures = 3, 2

	l := newLedger(config{})
	hear := func(list ...breaker.Transition) (notes []string) {
		l = newLedger(config{})
		j := &journal{ledger: l}
		for _, t := range list {
			j.heard(t)
		}
		return l.notes
	}
	for _, right := range [][]breaker.Transition{{opened, tried, closed}, {opened, tried, reopened}} {
		if notes := hear(right...); notes != nil {
			t.Errorf("found at fault: %q", notes)
		}
	}
	changed := func(tr breaker.Transition, change func(*breaker.Transition)) breaker.Transition {
		change(&tr)
		return tr
	}
	for _, wrong := range [][]breaker.Transition{
		{tried},          // the first is left out
		{opened, closed}, // one between is
		{opened, opened}, // told twice
		{changed(opened, func(t *breaker.Transition) { t.Cause = "" })},
		{changed(opened, func(t *breaker.Transition) { t.To = breaker.HalfOpen })},
		{changed(opened, func(t *breaker.Transition) { t.Snapshot.Failures = 4 })},
		{changed(opened, func(t *breaker.Transition) { t.Snapshot.Running = -1 })},
		{changed(opened, func(t *breaker.Transition) { t.Snapshot.State = breaker.Open })},
		{opened, changed(tried, func(t *breaker.Transition) { t.At = start.Add(-1) })},
		{opened, changed(tried, func(t *breaker.Transition) { t.Snapshot.Since = start.Add(-1) })},
		{opened, tried, changed(closed, func(t *breaker.Transition) { t.Snapshot.Calls = 5 })},
		{opened, tried, changed(closed, func(t *breaker.Transition) { t.Snapshot.Running = probes })},
		{opened, tried, changed(reopened, func(t *breaker.Transition) { t.Snapshot.Failures = 1 })},
		{opened, tried, changed(reopened, func(t *breaker.Transition) { t.Snapshot.Calls = 7 })},
	} {
		if notes := hear(wrong...); len(notes) != 1 {
			t.Errorf("%v: not one fault found but %q", wrong, notes)
		}
	}
}

func TestJournalKnowsThatTwoAreToldAtOnce(t *testing.T) {
	j := &journal{ledger: newLedger(config{})}
	j.telling.Store(true)
	j.heard(breaker.Transition{From: breaker.Closed, To: breaker.Open, At: time.Now(), Cause: "failures"})
	if len(j.ledger.notes) != 1 {
		t.Errorf("notes %q, must be one", j.ledger.notes)
	}
}

func TestMistakesInTheFlags(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"-for 999ms", "-for is 999ms, must be 1s to 24h0m0s"},
		{"-for 25h", "-for is 25h0m0s, must be 1s to 24h0m0s"},
		{"-for soon", `invalid value "soon" for flag -for`},
		{"-workers 0", "-workers is 0, must be 1 to 10000"},
		{"-workers 10001", "-workers is 10001, must be 1 to 10000"},
		{"-seed -1", `invalid value "-1" for flag -seed`},
		{"-speed 1", "flag provided but not defined: -speed"},
		{"now", `unexpected argument "now"`},
	} {
		var stdout, stderr bytes.Buffer
		if status := run(t.Context(), strings.Fields(test.args), &stdout, &stderr); status != 2 {
			t.Errorf("%s: status %d, must be 2", test.args, status)
		}
		if !strings.HasPrefix(stderr.String(), "soak: "+test.want) || strings.Count(stderr.String(), "\n") != 1 || stdout.Len() > 0 {
			t.Errorf("%s: stderr %q, stdout %q, must say %q", test.args, &stderr, &stdout, test.want)
		}
	}
}

func TestHelpListsTheFlags(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-help"}, &stdout, &stderr); status != 0 {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{"usage: soak", "-for", "-workers", "-seed"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, &stderr)
		}
	}
}

func TestThePageTellsHowManySumsThereAre(t *testing.T) {
	page, err := os.ReadFile("../../docs/internals/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%d sums", len(checks())); !strings.Contains(string(page), want) {
		t.Errorf("docs/internals/reliability.md does not say %q", want)
	}
}
