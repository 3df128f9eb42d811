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
	"github.com/effector-go/resilience/observe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func silent(time.Duration, string) {}

func TestSoakHoldsAllChecksAfterShortRun(t *testing.T) {
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

func TestSoakRunsChecksAfterEarlyEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if status := run(ctx, []string{"-for", "1h", "-workers", "20", "-seed", "7"}, &stdout, &stderr); status != 0 || stderr.Len() > 0 {
		t.Errorf("got status %d, stderr %q\n%s", status, &stderr, &stdout)
	}
	for _, c := range checks() {
		if !strings.Contains(stdout.String(), c.name) {
			t.Errorf("report lacks %q:\n%s", c.name, &stdout)
		}
	}
}

// balanced returns a ledger for which every check holds.
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
	l.tallies[0] = tallied{made: 6, calls: 6, failures: 3, snapshot: breaker.Snapshot{Calls: 6, Failures: 3}}
	l.tallies[1] = tallied{made: 3, calls: 2, failures: 1, ignored: 1, snapshot: breaker.Snapshot{Calls: 2, Failures: 1}}
	l.runs.Store(10)
	w := testimony{begun: 10, ended: 10, attempts: 9, attemptsEnded: 9}
	w.results[observe.Success], w.results[observe.Failure], w.results[observe.Refused], w.results[observe.Canceled] = 4, 3, 2, 1
	w.events[observe.Refusal], w.events[observe.Retry] = 3, 2
	l.observed = observed{
		pipeline: observe.PipelineSnapshot{
			Attempts: 9,
			Calls: map[observe.Result]observe.Histogram{
				observe.Success: {Count: 4}, observe.Failure: {Count: 3}, observe.Refused: {Count: 2}, observe.Canceled: {Count: 1},
			},
			Layers: []observe.LayerSnapshot{
				{Position: retryLayer, Entered: 10, Passed: 12, Events: map[observe.EventKind]uint64{observe.Retry: 2}},
				{Position: guardLayer, Entered: 12, Passed: 9, Events: map[observe.EventKind]uint64{observe.Refusal: 3}},
			},
		},
		witnesses: [2]testimony{w, w},
	}
	l.closedAgain = true
	l.heapWarm, l.heapEnd = 1<<20, 1<<20
	return l
}

// broken returns the names of the checks that fail.
func broken(l *ledger) (names []string) {
	for _, c := range checks() {
		if _, ok := c.holds(l); !ok {
			names = append(names, c.name)
		}
	}
	return names
}

func TestChecksFailForWrongLedger(t *testing.T) {
	if names := broken(balanced()); names != nil {
		t.Fatalf("balanced ledger: got failed checks %q", names)
	}
	const (
		answered = "every call is answered once"
		starts   = "Next.Starts agrees with the effector"
		window   = "a window counts every call"
		cancels  = "also if callers cancel"
		running  = "no breaker counts running calls at the end"
		closes   = "the guard closes again"
		further  = "every additional attempt was granted"
		budgeted = "retries stay within the budget"
		server   = "the server's count agrees with the client's"
		values   = "every value is returned or dropped"
		once     = "no value is returned or dropped twice"
		guard    = "the guard admits or refuses"

		listeners        = "both listeners are called for the same"
		observedCalls    = "the observer counts every call once"
		observedResults  = "the observer's results are the callers'"
		observedAttempts = "the observer counts every attempt"
		observedLayers   = "the observer's layers are the policies'"
		observedEvents   = "no listener is called for an event that isn't counted"
		observedChanges  = "the observer sees every change of the guard"
	)
	// both changes what both witnesses have counted.
	both := func(change func(w *testimony)) func(l *ledger) {
		return func(l *ledger) {
			for i := range l.observed.witnesses {
				change(&l.observed.witnesses[i])
			}
		}
	}
	tests := []struct {
		what  string
		spoil func(l *ledger)
		fails []string
	}{
		{"no calls", func(l *ledger) { l.calls.Store(0); l.answered.Store(0); clear(l.ended[:]) },
			[]string{answered, "every success has its value", observedResults}},
		{"a call never answered", func(l *ledger) { l.answered.Add(-1); l.ended[failed].Add(-1) }, []string{answered}},
		{"a call answered twice", func(l *ledger) { l.answered.Add(1); l.ended[failed].Add(1) }, []string{answered}},
		{"an answer without an ending", func(l *ledger) { l.ended[refused].Add(-1) }, []string{answered}},
		{"a start counted twice", func(l *ledger) { l.starts.Add(1) }, []string{starts}},
		{"a start not counted", func(l *ledger) { l.starts.Add(-1) }, []string{starts}},
		{"an attempt that doesn't end", func(l *ledger) { l.attemptsEnded.Add(-1) }, []string{"every attempt ends"}},
		{"a request lost", func(l *ledger) { l.received.Add(-1) }, []string{server}},
		{"a request received but not sent", func(l *ledger) { l.received.Add(1) }, []string{server}},
		{"a request changed", func(l *ledger) { l.receivedSum.Add(1) }, []string{server}},
		{"a write sent twice", func(l *ledger) { l.repeated.Add(1) }, []string{"no write is sent twice"}},
		{"a value lost", func(l *ledger) { l.dropped.Add(-1) }, []string{values}},
		{"a value both returned and dropped", func(l *ledger) { l.dropped.Add(1); l.twice.Add(1) }, []string{values, once}},
		{"one value dropped twice and another lost", func(l *ledger) { l.twice.Add(1) }, []string{once}},
		{"a success without value", func(l *ledger) { l.got.Add(-1); l.dropped.Add(1) }, []string{"every success has its value"}},
		{"a refusal not counted", func(l *ledger) { l.refusals.Add(-1) }, []string{guard, observedLayers}},
		{"a call both refused and admitted", func(l *ledger) { l.admitted.Add(1) }, []string{guard, observedLayers}},
		{"a call counted twice", func(l *ledger) { l.tallies[0].snapshot.Calls++ }, []string{window}},
		{"a failure not counted", func(l *ledger) { l.tallies[0].snapshot.Failures-- }, []string{window}},
		{"a call not reported to the breaker", func(l *ledger) { l.tallies[0].made++ }, []string{window}},
		{"an ignored call counted", func(l *ledger) { l.tallies[1].snapshot.Calls++ }, []string{cancels}},
		{"a call classified twice", func(l *ledger) { l.tallies[1].ignored++ }, []string{cancels}},
		{"a permit lost", func(l *ledger) { l.tallies[1].snapshot.Running = 1 }, []string{running}},
		{"a permit released twice", func(l *ledger) { l.guard.Running = -1 }, []string{running}},
		{"a breaker that stays open", func(l *ledger) { l.closedAgain = false }, []string{closes}},
		{"a transition after the end", func(l *ledger) { l.guard.State = breaker.Open }, []string{closes}},
		{"a transition not reported", func(l *ledger) { l.lastReported = breaker.HalfOpen }, []string{closes}},
		{"a retry beyond the budget", func(l *ledger) { l.decided.Store(l.allowed() + 1) }, []string{budgeted}},
		{"a retry without a grant", func(l *ledger) { l.decided.Store(0) }, []string{further}},
		{"more first attempts than attempts", func(l *ledger) { l.made.Store(10) }, []string{further}},
		{"an effector left behind", func(l *ledger) { l.leftBehind = 1 }, []string{"no effector is left behind"}},
		{"a memory leak", func(l *ledger) { l.heapEnd += l.heapAllowed() + 1 }, []string{"memory is flat"}},
		{"a goroutine left", func(l *ledger) { l.goroutines = errors.New("leak") }, []string{"no goroutine is left"}},
		{"a listener left out", func(l *ledger) { l.observed.witnesses[1].begun-- }, []string{listeners}},
		{"a call not observed", both(func(w *testimony) { w.begun-- }), []string{observedCalls}},
		{"a call that never ended", func(l *ledger) { l.observed.pipeline.Running = 1 }, []string{observedCalls}},
		{"a call observed but not run", func(l *ledger) { l.runs.Add(-1) }, []string{observedCalls}},
		{"a result that only listeners received", both(func(w *testimony) { w.results[observe.Failure]++ }), []string{observedResults}},
		{"an attempt not observed", func(l *ledger) { l.observed.pipeline.Attempts-- }, []string{observedAttempts}},
		{"an attempt that ended twice", both(func(w *testimony) { w.attemptsEnded++ }), []string{observedAttempts}},
		{"a run of a layer not counted", func(l *ledger) { l.observed.pipeline.Layers[1].Entered-- }, []string{observedLayers}},
		{"an event not counted", func(l *ledger) { l.observed.pipeline.Layers[0].Events[observe.Retry]-- }, []string{observedEvents}},
		{"a change not counted", both(func(w *testimony) { w.changes++ }), []string{observedChanges}},
	}
	seen := map[string]bool{}
	for _, test := range tests {
		l := balanced()
		test.spoil(l)
		if got := broken(l); !slices.Equal(got, test.fails) {
			t.Errorf("%s: got failed checks %q, want %q", test.what, got, test.fails)
		}
		var text bytes.Buffer
		if report(&text, config{}, l) {
			t.Errorf("%s: report returned true:\n%s", test.what, &text)
		}
		for _, name := range test.fails {
			seen[name] = true
		}
	}
	for what, name := range violationNames {
		l := balanced()
		l.violated(violation(what), "call %d is wrong", 1)
		if got := broken(l); !slices.Equal(got, []string{name}) || !slices.Equal(l.notes, []string{"call 1 is wrong"}) {
			t.Errorf("violation of %q: got failed checks %q and notes %q", name, got, l.notes)
		}
		seen[name] = true
	}
	for _, c := range checks() {
		if !seen[c.name] {
			t.Errorf("no test shows that the check %q can fail", c.name)
		}
	}
}

func TestCallerDetectsWrongAnswer(t *testing.T) {
	own := &attemptError{call: 1, attempt: 1, err: errServerDown}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		what  string
		ctx   context.Context
		call  *call
		value *lease
		err   error
		want  violation
	}{
		{"another call's value", t.Context(), &call{id: 1, starts: 1}, &lease{call: &call{id: 2}}, nil, foreignAnswer},
		{"no value", t.Context(), &call{id: 1, starts: 1}, nil, nil, unexplained},
		{"another error than the last attempt's", t.Context(), &call{id: 1, starts: 1, last: own},
			nil, &attemptError{call: 1, attempt: 1, err: errServerDown}, unexplained},
		{"a failure without attempt", t.Context(), &call{id: 1, starts: 1}, nil, errServerDown, unexplained},
		{"neither made nor refused", t.Context(), &call{id: 1}, nil, errServerDown, unexplained},
		{"an ended context with another error", gone, &call{id: 1, kind: dead}, nil, resilience.ErrRefused, deadMade},
	} {
		r := &rig{ledger: newLedger(config{})}
		r.judge(test.ctx, test.call, test.value, test.err)
		for what := range r.ledger.violationCounts {
			if got := r.ledger.violationCounts[what].Load(); (got > 0) != (violation(what) == test.want) {
				t.Errorf("%s: got %d violations of %q", test.what, got, violationNames[what])
			}
		}
	}
}

func TestEffectorDetectsWrongAttempt(t *testing.T) {
	for _, test := range []struct {
		what string
		call *call
		done int64 // earlier attempts
		want violation
	}{
		{"a wrong attempt number", &call{}, 1, wrongNumber},
		{"an attempt after a permanent error", &call{rejected: true}, 0, afterPermanent},
	} {
		cl := &client{ledger: newLedger(config{})} // has no address, so its attempts fail immediately
		test.call.attempts.Store(test.done)
		if _, err := cl.attempt(context.WithValue(t.Context(), callKey{}, test.call)); err == nil {
			t.Errorf("%s: got no error", test.what)
		}
		for what := range cl.ledger.violationCounts {
			if got := cl.ledger.violationCounts[what].Load(); (got > 0) != (violation(what) == test.want) {
				t.Errorf("%s: got %d violations of %q", test.what, got, violationNames[what])
			}
		}
	}
}

var errServerDown = errors.New("server down")

func TestJournalDetectsWrongTransition(t *testing.T) {
	start := time.Now()
	opened := breaker.Transition{From: breaker.Closed, To: breaker.Open, At: start, Cause: "failures"}
	opened.Snapshot = breaker.Snapshot{Calls: 3, Failures: 2}
	probing := breaker.Transition{From: breaker.Open, To: breaker.HalfOpen, At: start.Add(1), Cause: "open time over"}
	probing.Snapshot = breaker.Snapshot{State: breaker.Open, Since: opened.At}
	closed := breaker.Transition{From: breaker.HalfOpen, To: breaker.Closed, At: start.Add(2), Cause: "probes"}
	closed.Snapshot = breaker.Snapshot{State: breaker.HalfOpen, Since: probing.At, Calls: 6, Failures: 1}
	reopened := closed
	reopened.To = breaker.Open
	reopened.Snapshot.Calls, reopened.Snapshot.Failures = 3, 2

	l := newLedger(config{})
	reported := func(list ...breaker.Transition) (notes []string) {
		l = newLedger(config{})
		j := &journal{ledger: l}
		for _, t := range list {
			j.report(t)
		}
		return l.notes
	}
	for _, right := range [][]breaker.Transition{{opened, probing, closed}, {opened, probing, reopened}} {
		if notes := reported(right...); notes != nil {
			t.Errorf("got notes %q for correct transitions", notes)
		}
	}
	changed := func(tr breaker.Transition, change func(*breaker.Transition)) breaker.Transition {
		change(&tr)
		return tr
	}
	for _, wrong := range [][]breaker.Transition{
		{probing},        // lacks the first transition
		{opened, closed}, // lacks one in between
		{opened, opened}, // reported twice
		{changed(opened, func(t *breaker.Transition) { t.Cause = "" })},
		{changed(opened, func(t *breaker.Transition) { t.To = breaker.HalfOpen })},
		{changed(opened, func(t *breaker.Transition) { t.Snapshot.Failures = 4 })},
		{changed(opened, func(t *breaker.Transition) { t.Snapshot.Running = -1 })},
		{changed(opened, func(t *breaker.Transition) { t.Snapshot.State = breaker.Open })},
		{opened, changed(probing, func(t *breaker.Transition) { t.At = start.Add(-1) })},
		{opened, changed(probing, func(t *breaker.Transition) { t.Snapshot.Since = start.Add(-1) })},
		{opened, probing, changed(closed, func(t *breaker.Transition) { t.Snapshot.Calls = 5 })},
		{opened, probing, changed(closed, func(t *breaker.Transition) { t.Snapshot.Running = probes })},
		{opened, probing, changed(reopened, func(t *breaker.Transition) { t.Snapshot.Failures = 1 })},
		{opened, probing, changed(reopened, func(t *breaker.Transition) { t.Snapshot.Calls = 7 })},
	} {
		if notes := reported(wrong...); len(notes) != 1 {
			t.Errorf("%v: got notes %q, want one", wrong, notes)
		}
	}
}

func TestJournalDetectsConcurrentReports(t *testing.T) {
	j := &journal{ledger: newLedger(config{})}
	j.reporting.Store(true)
	j.report(breaker.Transition{From: breaker.Closed, To: breaker.Open, At: time.Now(), Cause: "failures"})
	if len(j.ledger.notes) != 1 {
		t.Errorf("got notes %q, want one", j.ledger.notes)
	}
}

func TestSoakRejectsInvalidFlags(t *testing.T) {
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
			t.Errorf("%s: got status %d, want 2", test.args, status)
		}
		if !strings.HasPrefix(stderr.String(), "soak: "+test.want) || strings.Count(stderr.String(), "\n") != 1 || stdout.Len() > 0 {
			t.Errorf("%s: got stderr %q, stdout %q, want %q", test.args, &stderr, &stdout, test.want)
		}
	}
}

func TestSoakHelpListsFlags(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-help"}, &stdout, &stderr); status != 0 {
		t.Errorf("got status %d, want 0", status)
	}
	for _, want := range []string{"usage: soak", "-for", "-workers", "-seed"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, &stderr)
		}
	}
}

func TestReliabilityPageStatesNumberOfChecks(t *testing.T) {
	page, err := os.ReadFile("../../docs/internals/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%d checks must hold", len(checks())); !strings.Contains(string(page), want) {
		t.Errorf("docs/internals/reliability.md lacks %q", want)
	}
}
