package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/proof/internal/cases"
)

func TestMain(m *testing.M) { cases.Main(m, 1200, 60) }

// In these tests the documents determine every answer, down to the nanosecond.

func TestConsecutiveMatchesReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		driveRules(t, exact, func(c *breaker.Config) { c.Consecutive = rapid.IntRange(0, 4).Draw(t, "Consecutive") })
	})
}

func TestLeakyMatchesReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { driveRules(t, exact, leaky(t)) })
}

func TestLastCallsMatchesReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { driveRules(t, exact, lastCalls(t)) })
}

func TestFailureRateMatchesReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { driveRules(t, exact, window(t), failureRate(t)) })
}

func TestSlowRateMatchesReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { driveRules(t, exact, window(t), slowRate(t)) })
}

func TestBreakerRulesTogetherMatchReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { driveRules(t, exact, window(t), anyRules(t)) })
}

// Open times are random within the bounds that Jitter sets.
func TestJitterStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		driveRules(t, exact, func(c *breaker.Config) {
			c.Jitter = rapid.SampledFrom([]float64{0.1, 0.5, 1}).Draw(t, "Jitter")
		})
	})
}

// Any time may pass, and the window must return one of the valid answers.
func TestWindowStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { driveRules(t, bounded, window(t), anyRules(t)) })
}

// Calls begin and end around the time when the first ones become slow. Faults there need many calls
// at the right moments.
func TestSlowCallStaysInBounds(t *testing.T) {
	for range 5 {
		rapid.Check(t, func(t *rapid.T) {
			c := drawConfig(t, window(t), slowRate(t), func(c *breaker.Config) {
				c.SlowRate = rapid.SampledFrom([]float64{0.5, 0.4, 0.3}).Draw(t, "SlowRate below 1")
			})
			rapid.SyncTest(t, func(t *rapid.T) { driveSlowCalls(t, c) })
		})
	}
}

func driveSlowCalls(t *rapid.T, c breaker.Config) {
	m := newMachine(t, c, bounded)
	m.beginSome(t)
	t.Repeat(map[string]func(*rapid.T){
		"":               m.check,
		"acquire":        m.acquire,
		"done":           m.done,
		"succeed":        m.succeed,
		"wait a little":  m.waitALittle,
		"wait until due": m.waitUntilDue,
	})
}

type rule = func(c *breaker.Config)

func leaky(t *rapid.T) rule {
	return func(c *breaker.Config) { c.Leaky = rapid.IntRange(1, 4).Draw(t, "Leaky") }
}

func lastCalls(t *rapid.T) rule {
	return func(c *breaker.Config) {
		c.Failures = rapid.IntRange(1, 4).Draw(t, "Failures")
		c.LastCalls = c.Failures + rapid.IntRange(0, 4).Draw(t, "LastCalls more")
	}
}

func window(t *rapid.T) rule {
	return func(c *breaker.Config) {
		c.Window = rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute, 10 * time.Microsecond}).Draw(t, "Window")
		c.MinCalls = rapid.IntRange(1, 5).Draw(t, "MinCalls")
	}
}

func failureRate(t *rapid.T) rule {
	return func(c *breaker.Config) { c.FailureRate = drawRate(t, "FailureRate") }
}

func slowRate(t *rapid.T) rule {
	return func(c *breaker.Config) {
		c.SlowRate = drawRate(t, "SlowRate")
		// With these values, no running call on drive's grid has an age between SlowCall and an
		// eighth more.
		share := rapid.SampledFrom([]time.Duration{200, 600, 944, 1300, 1696}).Draw(t, "SlowCall in thousandths of Window")
		c.SlowCall = windowOf(*c) / 1000 * share
	}
}

func windowOf(c breaker.Config) time.Duration {
	if c.Window == 0 {
		return 10 * time.Second
	}
	return c.Window
}

func anyRules(t *rapid.T) rule {
	return func(c *breaker.Config) {
		consecutive := func(c *breaker.Config) { c.Consecutive = rapid.IntRange(1, 4).Draw(t, "Consecutive") }
		for i, rule := range []rule{failureRate(t), slowRate(t), lastCalls(t), leaky(t), consecutive} {
			if rapid.Bool().Draw(t, fmt.Sprintf("rule %d", i)) {
				rule(c)
			}
		}
	}
}

func drawRate(t *rapid.T, label string) float64 {
	return rapid.SampledFrom([]float64{1, 0.5, 0.25, 0.1, 0.3, 1. / 3, 0.6, 0.7, 0.75, 0.9}).Draw(t, label)
}

func drawConfig(t *rapid.T, rules ...rule) breaker.Config {
	seconds := func(most int, label string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Second
	}
	c := breaker.Config{
		Name:          rapid.SampledFrom([]string{"", "payments"}).Draw(t, "Name"),
		OpenFor:       seconds(12, "OpenFor"),
		Probes:        rapid.IntRange(0, 3).Draw(t, "Probes"),
		ProbeFailures: rapid.IntRange(0, 3).Draw(t, "ProbeFailures"),
		ProbeTimeout:  seconds(9, "ProbeTimeout"),
		DryRun:        rapid.IntRange(0, 7).Draw(t, "DryRun if 7") == 7,
	}
	if rapid.Bool().Draw(t, "MaxOpenFor set") {
		c.MaxOpenFor = max(c.OpenFor, 5*time.Second) + seconds(30, "MaxOpenFor more")
	}
	if rapid.Bool().Draw(t, "ProbeSuccesses set") {
		c.ProbeSuccesses = max(1, c.Probes) + rapid.IntRange(0, 2).Draw(t, "ProbeSuccesses more")
	}
	if !c.DryRun && rapid.Bool().Draw(t, "SlowStart set") {
		c.SlowStart = rapid.SampledFrom([]time.Duration{time.Nanosecond, time.Second, 7 * time.Second, time.Minute}).Draw(t, "SlowStart")
	}
	if rapid.Bool().Draw(t, "Classify set") {
		c.Classify = classifyVerdict
	}
	for _, rule := range rules {
		rule(&c)
	}
	return c
}

// A verdict is an error that carries the outcome for classifyVerdict and, if not 0, a RetryAfter.
type verdict struct {
	outcome breaker.Outcome
	after   time.Duration
}

func (v verdict) Error() string             { return v.outcome.String() }
func (v verdict) RetryAfter() time.Duration { return v.after }

func classifyVerdict(_ context.Context, err error) breaker.Outcome {
	v := verdict{outcome: breaker.Success}
	errors.As(err, &v)
	return v.outcome
}

const (
	exact   = true
	bounded = false
)

// A machine drives a breaker and the reference with the same commands.
type machine struct {
	config  breaker.Config
	exact   bool
	asks    bool // acquire after every command that must lead to a refusal; only in half of the cases, as it may hide faults
	real    *breaker.Breaker
	ref     *reference
	mu      sync.Mutex // guards changes, which a timer may append to during a call
	changes []breaker.Transition
	checked int           // how many reported transitions have been checked
	made    bool          // the real breaker admitted the latest call
	rules   []rule        // that a new Config draws again
	horizon int           // how many reported transitions aren't later than what the reference is doing
	offset  time.Duration // of the grid
	calls   []*both
}

// both is one call through the breaker and the reference.
type both struct {
	ctx    context.Context
	cancel context.CancelFunc
	permit breaker.Permit
	ref    *call
}

// driveRules drives a Config drawn by the rules.
func driveRules(t *rapid.T, exact bool, rules ...rule) {
	drive(t, drawConfig(t, rules...), exact, rules...)
}

// drive does random commands. In an exact test the documents determine every answer.
func drive(t *rapid.T, c breaker.Config, exact bool, rules ...rule) {
	rapid.SyncTest(t, func(t *rapid.T) {
		m := newMachine(t, c, exact)
		m.rules = rules
		t.Repeat(map[string]func(*rapid.T){
			"":               m.check,
			"acquire":        m.acquire,
			"acquire too":    m.acquire,
			"done context":   m.doneContext,
			"do":             m.do,
			"do too":         m.do,
			"run":            m.run,
			"done":           m.done,
			"done too":       m.done,
			"cancel":         m.cancel,
			"lose":           m.lose,
			"wait":           m.wait,
			"wait until due": m.waitUntilDue,
			"force":          m.force,
			"set config":     m.setConfig,
		})
		// Whatever happened, a breaker that wasn't forced recovers with time.
		if s := m.real.State(); s == breaker.Open || s == breaker.HalfOpen {
			time.Sleep(24 * time.Hour)
			m.check(t)
		}
	})
}

func newMachine(t *rapid.T, c breaker.Config, exact bool) *machine {
	m := &machine{config: c, exact: exact, horizon: math.MaxInt, asks: rapid.Bool().Draw(t, "asks")}
	m.offset = windowOf(c) / 100 * time.Duration(rapid.IntRange(0, 9).Draw(t, "grid offset"))
	c.OnStateChange = m.report
	m.real = breaker.New(c)
	m.ref = newReference(c, choices{
		opened: func() bool {
			if exact {
				t.Fatal("fault of the test: the design doesn't determine whether the breaker opens")
			}
			return len(m.ref.changes) < min(len(m.reported()), m.horizon)
		},
		admits:  func() bool { return m.made },
		lasting: func(shortest, longest time.Duration) time.Duration { return m.lasting(t, shortest, longest) },
	})
	return m
}

func (m *machine) report(tr breaker.Transition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes = append(m.changes, tr)
}

// reported returns the transitions reported so far.
func (m *machine) reported() []breaker.Transition {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

// check compares everything that is visible.
func (m *machine) check(t *rapid.T) {
	synctest.Wait()
	if m.gridded() {
		time.Sleep(m.untilOnGrid())
	}
	m.compareAll(t)
	if m.asks && m.ref.refuses() {
		b := &both{}
		_, err := m.real.Acquire(t.Context())
		m.admitted(t, b, err)
	}
}

func (m *machine) compareAll(t *rapid.T) {
	now := m.ref.now()
	defer m.ref.Unlock()
	if len(m.reported()) != len(m.ref.changes) {
		t.Fatalf("%v: got transitions %v, want %v", now, m.reported(), m.ref.changes)
	}
	for ; m.checked < len(m.reported()); m.checked++ {
		got, want := m.reported()[m.checked], m.ref.changes[m.checked]
		if got.Name != m.config.Name || got.From != want.from || got.To != want.to || !got.At.Equal(want.at) || got.Cause == "" || got.Err != want.err {
			t.Fatalf("transition %d: got %+v, want %+v", m.checked, got, want)
		}
		slowStartEnds := want.from == breaker.HalfOpen && want.to == breaker.Closed // at any time, so off the grid
		m.compare(t, fmt.Sprintf("of transition %d", m.checked), m.exact && !slowStartEnds, got.Snapshot, want.snapshots)
	}
	if got := m.real.State(); got != m.ref.state {
		t.Fatalf("got state %v, want %v", got, m.ref.state)
	}
	m.compare(t, "now", m.exact, m.real.Snapshot(), m.ref.snapshots(now))
}

func (m *machine) compare(t *rapid.T, when string, exact bool, got breaker.Snapshot, valid []breaker.Snapshot) {
	t.Helper()
	got.Since, got.Until = got.Since.Round(0), got.Until.Round(0)
	if exact && len(valid) > 1 {
		t.Fatalf("fault of the test: the design doesn't determine the snapshot: %+v", valid)
	}
	if !slices.Contains(valid, got) {
		t.Fatalf("snapshot %s: got\n%+v, want one of\n%+v", when, got, valid)
	}
}

// lasting returns the open time that the real breaker drew for the opening that the reference is
// making.
func (m *machine) lasting(t *rapid.T, shortest, longest time.Duration) time.Duration {
	if len(m.reported()) < len(m.ref.changes) {
		t.Fatalf("got no opening, want %v", m.ref.changes[len(m.reported()):])
	}
	open := m.real.Snapshot()
	if after := m.reported()[len(m.ref.changes):]; len(after) > 0 {
		open = after[0].Snapshot
	}
	lasted := open.Until.Sub(open.Since)
	if lasted < shortest || lasted > longest {
		t.Fatalf("got open time %v, want %v to %v", lasted, shortest, longest)
	}
	return lasted
}

// admitted compares what breaker and reference decided on a call. It reports whether the call is
// admitted.
func (m *machine) admitted(t *rapid.T, b *both, err error) bool {
	t.Helper()
	var by breaker.State
	var left time.Duration
	m.made = err == nil
	b.ref, by, left = m.ref.acquire()
	m.horizon = math.MaxInt
	if b.ref == nil {
		m.refused(t, err, by, left)
		return false
	}
	if err != nil {
		t.Fatalf("got %v, want the call admitted", err)
	}
	return true
}

func (m *machine) refused(t *rapid.T, err error, by breaker.State, left time.Duration) {
	t.Helper()
	var e *breaker.OpenError
	if !errors.As(err, &e) || e.Name != m.config.Name || e.State != by || e.RetryAfter() != left {
		t.Fatalf("got %v, want a refusal in state %v with RetryAfter %v", err, by, left)
	}
	if !errors.Is(err, breaker.ErrOpen) || !errors.Is(err, resilience.ErrRefused) {
		t.Fatalf("got %v, want it to match ErrOpen and ErrRefused", err)
	}
}

func (m *machine) acquire(t *rapid.T) {
	b := &both{}
	b.ctx, b.cancel = context.WithCancel(t.Context())
	var err error
	b.permit, err = m.real.Acquire(b.ctx)
	if m.admitted(t, b, err) {
		m.calls = append(m.calls, b)
	}
}

// beginSome starts some calls that will soon be slow and some that won't.
func (m *machine) beginSome(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "old calls") {
		m.acquire(t)
		m.waitALittle(t)
	}
	m.check(t)
	time.Sleep(m.config.SlowCall * 3 / 4)
	for range rapid.IntRange(2, 8).Draw(t, "young calls") {
		m.acquire(t)
		m.waitALittle(t)
	}
}

func (m *machine) waitALittle(t *rapid.T) {
	time.Sleep(m.config.SlowCall / 32 * time.Duration(rapid.IntRange(0, 2).Draw(t, "32nds of SlowCall")))
}

func (m *machine) doneContext(t *rapid.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.real.Acquire(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, resilience.ErrRefused) {
		t.Fatalf("Acquire with a done context: got %v, want Canceled", err)
	}
}

// drawEnd draws how a call ends. A nil error is a success. cancel is true if canceling the context
// makes the outcome.
//
//lint:ignore ST1008 the error is what is drawn
func (m *machine) drawEnd(t *rapid.T) (err error, outcome breaker.Outcome, cancel bool) {
	outcome = rapid.SampledFrom([]breaker.Outcome{breaker.Failure, breaker.Success, breaker.Ignored}).Draw(t, "outcome")
	after := time.Duration(0)
	if rapid.IntRange(0, 3).Draw(t, "RetryAfter if 3") == 3 {
		after = time.Duration(rapid.IntRange(1, 90).Draw(t, "RetryAfter")) * time.Second
	}
	err = verdict{outcome, after}
	gone := rapid.Bool().Draw(t, "context canceled")
	if rapid.IntRange(0, 5).Draw(t, "CallerFault if 5") == 5 {
		return resilience.CallerFault(err), neverMade, gone
	}
	if m.config.Classify != nil {
		return err, outcome, false
	}
	if outcome == breaker.Success {
		return rapid.SampledFrom([]error{nil, resilience.NotFailure(err), resilience.WithRetryAfter(resilience.Contention(err), time.Hour)}).Draw(t, "error"), outcome, gone
	}
	return err, outcome, outcome == breaker.Ignored
}

// neverMade is the outcome of a call that ended by CallerFault.
const neverMade breaker.Outcome = -1

func (m *machine) draw(t *rapid.T) (i int, b *both) {
	if len(m.calls) == 0 {
		t.Skip("no call")
	}
	i = rapid.IntRange(0, len(m.calls)-1).Draw(t, "call")
	return i, m.calls[i]
}

// done ends a call that may have ended already, or may belong to an earlier phase.
func (m *machine) done(t *rapid.T) {
	_, b := m.draw(t)
	err, outcome, cancel := m.drawEnd(t)
	if cancel {
		b.cancel()
	}
	b.permit.Done(err)
	m.ref.done(b.ref, outcome == neverMade, outcome, err)
}

func (m *machine) succeed(t *rapid.T) {
	_, b := m.draw(t)
	var err error
	if m.config.Classify != nil {
		err = verdict{outcome: breaker.Success}
	}
	b.permit.Done(err)
	m.ref.done(b.ref, false, breaker.Success, err)
}

func (m *machine) cancel(t *rapid.T) {
	_, b := m.draw(t)
	b.permit.Cancel()
	m.ref.done(b.ref, true, breaker.Ignored, nil)
}

func (m *machine) lose(t *rapid.T) {
	i, _ := m.draw(t)
	m.calls = slices.Delete(m.calls, i, i+1)
}

// do makes a call that ends immediately, in any way a function can end.
func (m *machine) do(t *rapid.T) {
	ctx, cancelCtx := context.WithCancel(t.Context())
	defer cancelCtx()
	err, outcome, cancel := m.drawEnd(t)
	way := rapid.SampledFrom([]string{"return", "return", "panic", "Goexit"}).Draw(t, "way")
	if way != "return" {
		if outcome = breaker.Failure; cancel {
			outcome = breaker.Ignored
		}
	}
	var got error
	made, returned := false, false
	var panicked any
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		defer func() { panicked = recover() }()
		_, got = breaker.Do(ctx, m.real, func(context.Context) (int, error) {
			made, m.horizon = true, len(m.reported())
			if cancel {
				cancelCtx()
			}
			switch way {
			case "panic":
				panic("boom")
			case "Goexit":
				runtime.Goexit()
			}
			return 0, err
		})
		returned = true
	}()
	<-finished
	b := &both{}
	if !made {
		m.admitted(t, b, got)
		return
	}
	if !m.admitted(t, b, nil) {
		return
	}
	if way == "return" && (!returned || got != err) || way == "panic" && panicked != "boom" || way != "return" && returned {
		t.Fatalf("Do did not pass on a %s: got %v, %v", way, got, panicked)
	}
	if way != "return" {
		err = nil
	}
	m.ref.done(b.ref, outcome == neverMade, outcome, err)
}

// run makes a call in a pipeline in which an inner policy may refuse it.
func (m *machine) run(t *rapid.T) {
	err, outcome, cancel := m.drawEnd(t)
	ctx, cancelCtx := context.WithCancel(t.Context())
	defer cancelCtx()
	refused := rapid.Bool().Draw(t, "refused by inner policy")
	inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if refused {
			return err
		}
		return next.Run(ctx)
	})
	b := &both{}
	asked := false
	got := resilience.Run(ctx, resilience.Pipeline{m.real, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		asked, m.horizon = true, len(m.reported())
		return next.Run(ctx)
	}), inner}, func(context.Context) error {
		if cancel {
			cancelCtx()
		}
		return err
	})
	if !asked {
		m.admitted(t, b, got)
		return
	}
	if !m.admitted(t, b, nil) {
		return
	}
	if got != err {
		t.Fatalf("Run: got %v, want %v", got, err)
	}
	if refused {
		outcome = breaker.Ignored
	}
	m.ref.done(b.ref, outcome == neverMade, outcome, err)
}

func (m *machine) force(t *rapid.T) {
	switch to := rapid.SampledFrom([]breaker.State{breaker.Closed, breaker.HalfOpen, breaker.ForcedOpen, breaker.Disabled}).Draw(t, "to"); to {
	case breaker.Closed:
		m.real.Reset()
		m.ref.force(to)
	case breaker.HalfOpen:
		m.real.HalfOpen()
		m.ref.force(to)
	case breaker.ForcedOpen:
		m.real.ForceOpen()
		m.ref.force(to)
	case breaker.Disabled:
		m.real.Disable()
		m.ref.force(to)
	}
}

// setConfig draws some fields of the Config again, or all.
func (m *machine) setConfig(t *rapid.T) {
	c, drawn := m.config, drawConfig(t, m.rules...)
	if c.DryRun || drawn.DryRun {
		c.DryRun, c.SlowStart, drawn.SlowStart = drawn.DryRun, 0, 0
	}
	switch rapid.SampledFrom([]string{"all", "all", "none", "numbers", "probes", "open time"}).Draw(t, "fields") {
	case "all":
		c = drawn
	case "numbers":
		c.Consecutive, c.Leaky = min(c.Consecutive, 1)*drawn.Consecutive, min(c.Leaky, 1)*drawn.Leaky
		c.FailureRate, c.MinCalls = drawn.FailureRate, drawn.MinCalls
	case "probes":
		c.Probes, c.ProbeSuccesses, c.ProbeFailures = drawn.Probes, drawn.ProbeSuccesses, drawn.ProbeFailures
		c.ProbeTimeout, c.SlowStart = drawn.ProbeTimeout, drawn.SlowStart
	case "open time":
		c.Name, c.OpenFor, c.MaxOpenFor, c.Jitter = drawn.Name, drawn.OpenFor, drawn.MaxOpenFor, drawn.Jitter
	}
	if m.ref.slowStarts() && c.DryRun {
		t.Skip("a dry run hides what a slow start decides")
	}
	onGrid := m.gridded() && windowOf(c) == windowOf(m.config)
	changed := c
	changed.OnStateChange = m.report
	if err := m.real.SetConfig(changed); err != nil {
		t.Fatalf("got %v for a valid Config", err)
	}
	m.ref.setConfig(c)
	m.config = c
	if got := m.real.Config(); got.Name != c.Name || got.OpenFor != m.ref.c.OpenFor || got.Probes != m.ref.c.Probes || got.Window != m.ref.c.Window {
		t.Fatalf("got Config %+v, want %+v", got, m.ref.c)
	}
	if onGrid {
		return // and calls that the window keeps are too
	}
	m.offset = windowOf(c) / 100 * time.Duration(rapid.IntRange(0, 9).Draw(t, "grid offset"))
	if m.gridded() {
		step := windowOf(c) / 10 * 4
		at := time.Since(m.origin()) - m.offset
		time.Sleep((at/step+3)*step - at)
	}
}

// origin returns the time at which the epochs of the window began.
func (m *machine) origin() time.Time {
	m.ref.now()
	defer m.ref.Unlock()
	if m.ref.ramp {
		return m.ref.began
	}
	return m.ref.since
}

// gridded reports whether the design determines every answer only at some times. These times are
// four tenths of Window apart, from the beginning of the closed phase on, shifted by offset, each
// with nine hundredths of Window after it. Calls at most two of these steps apart are certainly in
// one window, and calls further apart are certainly not.
func (m *machine) gridded() bool {
	m.ref.now()
	counts := m.ref.counts()
	m.ref.Unlock()
	return m.exact && counts && (m.config.FailureRate > 0 || m.config.SlowRate > 0)
}

// untilOnGrid returns how long it takes until the next moment on the grid, 0 on it. A phase may
// begin at any time, and its grid with it: at the end of a slow start, in the middle of a wait.
func (m *machine) untilOnGrid() time.Duration {
	w := windowOf(m.config)
	step, noise := w/10*4, w/100*9
	at := time.Since(m.origin()) - m.offset
	switch {
	case at < 0:
		return -at
	case at%step > noise:
		return step - at%step
	}
	return 0
}

func (m *machine) wait(t *rapid.T) {
	w := windowOf(m.config)
	if m.gridded() {
		step, noise := w/10*4, w/100*9
		at := time.Since(m.origin()) - m.offset
		n := at/step + time.Duration(rapid.SampledFrom([]int{1, 0, 2, 3, 4, 20}).Draw(t, "steps"))
		to := n*step + time.Duration(rapid.Int64Range(0, int64(noise)).Draw(t, "noise"))
		time.Sleep(to - at)
		return
	}
	times := []time.Duration{
		time.Second, 1, 2 * time.Second, 5 * time.Second, time.Minute, time.Hour,
		w / 10, w/10 - 1, w / 2, w/10*9 - 1, w / 10 * 9, w, w + 1,
		m.config.SlowCall, m.config.SlowCall + 1, m.config.SlowCall / 2, m.config.SlowCall / 8, m.config.SlowCall / 16,
	}
	some := rapid.Int64Range(0, int64(2*w))
	time.Sleep(rapid.OneOf(rapid.SampledFrom(times), rapid.Map(some, func(n int64) time.Duration { return time.Duration(n) })).Draw(t, "time"))
}

// waitUntilDue waits until a moment at which something ends, or shortly before or after it.
func (m *machine) waitUntilDue(t *rapid.T) {
	if m.gridded() {
		t.Skip("not on the grid")
	}
	due := m.due()
	if len(due) == 0 {
		t.Skip("nothing is due")
	}
	at := rapid.SampledFrom(due).Draw(t, "due")
	off := rapid.SampledFrom([]time.Duration{0, -1, 1, -m.config.SlowCall / 16, m.config.SlowCall / 16}).Draw(t, "off by")
	time.Sleep(time.Until(at) + off)
}

// due returns every future moment at which something changes according to the documents.
func (m *machine) due() (at []time.Time) {
	r := m.ref
	now := r.now()
	defer r.Unlock()
	switch {
	case r.state == breaker.Open:
		at = append(at, r.until, r.until.Add(-50*time.Millisecond))
	case r.state == breaker.HalfOpen && !r.ramp:
		for _, c := range r.running {
			at = append(at, c.deadline)
		}
	case r.counts():
		at = append(at, r.since.Add(r.openTime), r.began.Add(r.lasts))
		for _, c := range r.running {
			at = append(at, c.start.Add(r.c.SlowCall), c.start.Add(r.c.SlowCall+r.c.SlowCall/8))
		}
		for _, e := range r.ended {
			at = append(at, e.at.Add(r.c.Window/10*9), e.at.Add(r.c.Window))
		}
	}
	return slices.DeleteFunc(at, func(t time.Time) bool { return !t.After(now) })
}
