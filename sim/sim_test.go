package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// guide returns the pipeline of docs/guide.md.
func guide() resilience.Policy {
	return resilience.Pipeline{
		timeout.After(400 * time.Millisecond),
		retry.New(retry.Config{
			MaxAttempts: 2, Backoff: retry.FullJitter(50*time.Millisecond, time.Second),
			Budget: budget.New(budget.Config{Ratio: 0.02, MinPerSecond: 1}),
		}),
		breaker.New(breaker.Config{
			Name:        "users",
			FailureRate: 0.5, Window: 2 * time.Second, MinCalls: 20,
			Consecutive: 20,
			OpenFor:     time.Second, MaxOpenFor: 30 * time.Second, Jitter: 0.2,
		}),
		bulkhead.New(bulkhead.Config{Name: "users", Limit: 30}),
		timeout.After(120 * time.Millisecond),
	}
}

// retrying returns a pipeline of four attempts, with what is between them.
func retrying(between ...resilience.Policy) resilience.Policy {
	return resilience.Pipeline{
		timeout.After(time.Second),
		retry.New(retry.Config{MaxAttempts: 4, Backoff: retry.Constant(20 * time.Millisecond)}),
		resilience.Pipeline(between),
		timeout.After(250 * time.Millisecond),
	}
}

func naive() resilience.Policy { return retrying() }

func budgeted() resilience.Policy {
	return resilience.Pipeline{
		timeout.After(time.Second),
		retry.New(retry.Config{MaxAttempts: 4, Backoff: retry.Constant(20 * time.Millisecond), Budget: budget.New(budget.Config{Ratio: 0.1})}),
		timeout.After(250 * time.Millisecond),
	}
}

func broken() resilience.Policy { return retrying(newBreaker()) }

func newBreaker() *breaker.Breaker {
	return breaker.New(breaker.Config{FailureRate: 0.5, Window: 2 * time.Second, OpenFor: time.Second, MaxOpenFor: 2 * time.Second})
}

func none() resilience.Policy { return resilience.Pipeline{} }

// one returns a map with one pipeline.
func one(create func() resilience.Policy) map[string]func() resilience.Policy {
	return map[string]func() resilience.Policy{"users": create}
}

// brief returns a scenario of few seconds.
func brief() Scenario {
	return Scenario{Rate: Constant(50), Length: 3 * time.Second, Runs: 2}
}

func jsonOf(t *testing.T, r *Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The next tests hold rules 1 to 6 of the design: virtual time.

func TestRunWorksInAnyProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/program").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	out, err := exec.Command(program).CombinedOutput()
	if err != nil {
		t.Fatalf("got %v, want nil\n%s", err, out)
	}
	if got, want := string(out), "3 reports, 0 flags\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRunCallsFunctionOnceForEachClientAndOnceMore(t *testing.T) {
	s := brief()
	s.Clients = 3
	var calls atomic.Int64
	var year atomic.Int64
	Test(t, s, one(func() resilience.Policy {
		calls.Add(1)
		year.Store(int64(time.Now().Year()))
		return naive()
	}))
	if got := calls.Load(); got != 8 {
		t.Errorf("got %d calls, want 8 for 2 runs of 3 clients", got)
	}
	if year.Load() != 2000 {
		t.Errorf("got year %d, want 2000, when virtual time begins", year.Load())
	}
}

// A hidden is a policy whose parts are only in unexported fields.
type hidden struct {
	parts map[string]any
	inner atomic.Pointer[resilience.Pipeline]
}

func (h *hidden) Run(ctx context.Context, next resilience.Next) error {
	return resilience.Pipeline(*h.inner.Load()).Run(ctx, next)
}

func hiding(p resilience.Policy, part any) *hidden {
	h := &hidden{parts: map[string]any{"part": part}}
	h.inner.Store(&resilience.Pipeline{p})
	return h
}

func TestRunRejectsSharedPolicies(t *testing.T) {
	shared, extra := newBreaker(), budget.New(budget.Config{Ratio: 0.1})
	whole := guide()
	for name, test := range map[string]struct {
		create func() resilience.Policy
		want   string
	}{
		"the whole":     {func() resilience.Policy { return whole }, "*timeout.Timeout"},
		"a breaker":     {func() resilience.Policy { return retrying(shared) }, "*breaker.Breaker"},
		"a budget":      {func() resilience.Policy { return retry.New(retry.Config{Budget: extra}) }, "*budget.Budget"},
		"in a field":    {func() resilience.Policy { return hiding(shared, nil) }, "*breaker.Breaker"},
		"in a map":      {func() resilience.Policy { return hiding(naive(), extra) }, "*budget.Budget"},
		"with 1 client": {func() resilience.Policy { return shared }, "*breaker.Breaker"},
	} {
		report, err := Run(t.Context(), brief(), one(test.create))
		if err == nil || report != nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), `"users"`) {
			t.Errorf("%s: got %v, %v, want nil and an error with users and %s", name, report, err, test.want)
		}
	}
	pass := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error { return next.Run(ctx) })
	Test(t, brief(), one(func() resilience.Policy { return resilience.Pipeline{resilience.AtMostOnce, pass, naive()} }))
}

func policy(run func(ctx context.Context, next resilience.Next) error) func() resilience.Policy {
	return func() resilience.Policy { return resilience.PolicyFunc(run) }
}

func TestRunReturnsErrorsThatNameThePipeline(t *testing.T) {
	outside := make(chan struct{}) // not of a bubble
	t.Cleanup(func() { close(outside) })
	for name, test := range map[string]struct {
		create func() resilience.Policy
		want   string
	}{
		"a panic of a policy":    {policy(func(context.Context, resilience.Next) error { panic("boom") }), "boom"},
		"a Goexit of a policy":   {policy(func(context.Context, resilience.Next) error { runtime.Goexit(); return nil }), "Goexit"},
		"a panic of a function":  {func() resilience.Policy { panic("boom") }, "boom"},
		"a panic(nil)":           {func() resilience.Policy { panic(nil) }, "panic"},
		"a Goexit of a function": {func() resilience.Policy { runtime.Goexit(); return nil }, "Goexit"},
		"a nil policy":           {func() resilience.Policy { return nil }, "nil"},
		"a nil pointer":          {func() resilience.Policy { return (*breaker.Breaker)(nil) }, "*breaker.Breaker"},
		"a nil in a list":        {func() resilience.Policy { return resilience.Pipeline{naive(), nil} }, "policy 1"},
		"a nil function":         {nil, "nil"},
		"a deadlock of a call":   {policy(func(context.Context, resilience.Next) error { <-make(chan int); return nil }), "deadlock"},
		"a deadlock with a ticker": {func() resilience.Policy {
			ticker := time.NewTicker(time.Second)
			return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				for range ticker.C { // ignores its context
				}
				return nil
			})
		}, "deadlock"},
		"a deadlock of a function": {func() resilience.Policy { <-make(chan int); return nil }, "deadlock"},
		"a goroutine that remains": {policy(func(ctx context.Context, next resilience.Next) error {
			go func() { <-make(chan int) }()
			return next.Run(ctx)
		}), "a goroutine outlives the run"},
		"a goroutine with a ticker": {func() resilience.Policy {
			go func() {
				for range time.Tick(time.Millisecond) {
				}
			}()
			return naive()
		}, "a goroutine outlives the run"},
		"a channel from outside": {policy(func(context.Context, resilience.Next) error { <-outside; return nil }), "5 s"},
		"a goroutine that waits for the outside": {func() resilience.Policy {
			go func() {
				time.Sleep(2 * time.Second)
				<-outside
			}()
			return naive()
		}, "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // some take 5 s
			report, err := Run(t.Context(), brief(), one(test.create))
			if err == nil || report != nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), `"users"`) {
				t.Errorf("got %v, %v, want nil and an error with users and %q", report, err, test.want)
			}
		})
	}
}

func TestRunReturnsErrorInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		report, err := Run(t.Context(), brief(), one(naive))
		if err == nil || report != nil || !strings.Contains(err.Error(), "bubble") {
			t.Errorf("got %v, %v, want nil and an error about the bubble", report, err)
		}
	})
}

func TestRunReturnsErrorWithoutPipelines(t *testing.T) {
	if _, err := Run(t.Context(), brief(), nil); err == nil {
		t.Error("got nil, want an error")
	}
}

func TestRunPassesValuesAndNoDeadline(t *testing.T) {
	type key struct{}
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "value"), time.Hour)
	defer cancel()
	var bad atomic.Int64
	_, err := Run(ctx, brief(), one(policy(func(ctx context.Context, next resilience.Next) error {
		if _, ok := ctx.Deadline(); ok || ctx.Value(key{}) != "value" {
			bad.Add(1)
		}
		return next.Run(ctx)
	})))
	if err != nil || bad.Load() != 0 {
		t.Errorf("got %v, and %d calls with a deadline or without the value, want nil and 0", err, bad.Load())
	}
}

func TestRunStopsWhenContextEnds(t *testing.T) {
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := Scenario{Rate: Constant(500), Length: time.Hour, Runs: 4}
	s.OnProgress = func(share float64) {
		if share > 0 {
			cancel(stop)
		}
	}
	report, err := Run(ctx, s, one(naive))
	if err != stop || report == nil || report.Pipelines["users"].Calls.Runs != 0 {
		t.Errorf("got %v, %v, want a report without runs and %v", report, err, stop)
	}
}

func TestRunReportsRunsThatEndedBeforeItsContext(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one run after another
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	var runs atomic.Int64
	s := Scenario{Rate: Constant(100), Length: 5 * time.Second, Runs: 500}
	report, err := Run(ctx, s, one(func() resilience.Policy {
		if runs.Add(1) == 5 { // the first result in the third run
			cancel(stop)
		}
		return naive()
	}))
	if err != stop || report == nil {
		t.Fatalf("got %v, %v, want a report and %v", report, err, stop)
	}
	got := report.Pipelines["users"]
	if got.Calls.Runs < 2 || got.Calls.Runs == s.Runs {
		t.Errorf("got %d runs, want those that ended before the context, at least 2", got.Calls.Runs)
	}
	if mean := got.Series[2].Offered; mean < 50 || mean > 200 {
		t.Errorf("got %v calls in a second, want the mean of the runs that ended, about 100", mean)
	}
}

func TestRunReturnsErrorWithoutReportWhenContextEnds(t *testing.T) {
	stop := errors.New("enough")
	for range 5 { // if both happen at the same time, either is returned
		ctx, cancel := context.WithCancelCause(t.Context())
		begun := make(chan struct{})
		s := brief()
		s.Runs = 1
		var once sync.Once
		s.OnProgress = func(float64) {
			once.Do(func() {
				cancel(stop)
				close(begun)
				for range 10_000 { // the run ends meanwhile
					runtime.Gosched()
				}
			})
		}
		report, err := Run(ctx, s, one(func() resilience.Policy {
			<-begun
			panic("boom")
		}))
		if err == stop && report != nil || err != stop && strings.Contains(err.Error(), "boom") && report == nil {
			continue
		}
		t.Errorf("got %v, %v, want a report and %v, or the panic", report, err, stop)
	}
}

func TestRunForgetsWhatItCounted(t *testing.T) {
	s := brief().withDefaults()
	r := &run{scenario: &s, pipeline: "users", create: naive, parent: t.Context()}
	record, err := r.do()
	if record == nil || err != nil {
		t.Fatalf("got %v, %v, want a record", record, err)
	}
	if r.record != nil || r.server != nil || r.calls != nil || r.policies != nil {
		t.Error("got a run that keeps what it counted until the report is complete, want none")
	}
}

func TestRunForgetsAnswersOfPastSeconds(t *testing.T) {
	s := Scenario{Rate: Constant(50), Length: 20 * time.Second}.withDefaults()
	r := &run{scenario: &s, pipeline: "users", parent: t.Context()}
	most := 0
	r.create = policy(func(context.Context, resilience.Next) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		most = max(most, len(r.record.recent))
		return nil
	})
	if _, err := r.do(); err != nil {
		t.Fatal(err)
	}
	if most < 1 || most > 3 {
		t.Errorf("got answers of up to %d seconds, want those of at most 3, as GoodWithin is 1s", most)
	}
}

// deterministic returns pipelines without random numbers.
func deterministic() map[string]func() resilience.Policy {
	return map[string]func() resilience.Policy{
		"none": none, "naive": naive, "budgeted": budgeted, "broken": broken,
		"hedged": func() resilience.Policy {
			return resilience.Pipeline{timeout.After(time.Second), hedge.New(hedge.Config{Delay: 50 * time.Millisecond, Max: 2}), newBreaker()}
		},
		"bulkhead": func() resilience.Policy {
			return retrying(bulkhead.New(bulkhead.Config{Limit: 10, Queue: 10, MaxWait: 100 * time.Millisecond}))
		},
	}
}

func TestRunIsDeterministicOnAnyNumberOfProcessors(t *testing.T) {
	const ms = time.Millisecond
	// So many calls that some of one client would wake up at the same time, but fewer than align covers.
	s := Scenario{
		Seed: 7, Rate: Constant(700), Length: time.Second, Runs: 3, Clients: 2,
		Server: Server{Replicas: 2, Fail: 0.01}, Incidents: []Incident{
			{From: 100 * ms, For: 200 * ms, Down: true, Replica: 1},
			{From: 200 * ms, For: 300 * ms, SlowBy: 10, Surge: 2},
			{From: 700 * ms, For: 200 * ms, Hang: 0.5, Fail: 0.3},
		},
	}
	var first []byte
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, processors := range []int{1, 8, 2} {
		runtime.GOMAXPROCS(processors)
		got := jsonOf(t, Test(t, s, deterministic()))
		if first == nil {
			first = got
		}
		if !bytes.Equal(got, first) {
			t.Errorf("%d processors: got another report than with 1 processor", processors)
		}
	}
}

func TestPoolAddsRunsInTheOrderOfTheirSeeds(t *testing.T) {
	s := brief().withDefaults()
	p := &pool{scenario: &s, tallies: map[string]*tally{"users": newTally(&s)}}
	for range 4 {
		p.jobs = append(p.jobs, &run{scenario: &s, pipeline: "users"})
	}
	ended := func() *record { return newRecord(&s, newServer(&s, 0)) }
	p.records = []*record{nil, ended(), ended(), nil}
	p.addInOrder()
	if got := p.tallies["users"].runs; got != 0 {
		t.Errorf("got %d runs while the first has not ended, want 0", got)
	}
	p.records[0] = ended()
	p.addInOrder()
	if got := p.tallies["users"].runs; got != 3 {
		t.Errorf("got %d runs after the first three have ended, want 3", got)
	}
}

func TestRunGivesAllPipelinesTheSameCalls(t *testing.T) {
	s := brief()
	s.Server.Fail = 0.3
	report := Test(t, s, deterministic())
	want := report.Pipelines["none"]
	for name, got := range report.Pipelines {
		if got.Calls != want.Calls || got.Calls.Mean == 0 {
			t.Errorf("%s: got %v calls, want %v", name, got.Calls, want.Calls)
		}
		for i := range got.Series {
			if got.Series[i].Offered != want.Series[i].Offered {
				t.Errorf("%s: second %d: got %v calls, want %v", name, i, got.Series[i].Offered, want.Series[i].Offered)
			}
		}
	}
}

func TestRunUsesOneSeedAfterAnother(t *testing.T) {
	s := brief()
	all := Test(t, s, one(naive)).Pipelines["users"]
	s.Runs = 1
	first := Test(t, s, one(naive)).Pipelines["users"]
	s.Seed = 1
	second := Test(t, s, one(naive)).Pipelines["users"]
	if first.P99 == second.P99 {
		t.Errorf("got %v for seeds 0 and 1, want another value", first.P99)
	}
	if got, want := all.P99.Min, min(first.P99.Min, second.P99.Min); got != want {
		t.Errorf("got %v for both seeds together, want %v", got, want)
	}
}

func TestRunUsesAllProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	s := brief()
	s.Runs = 4
	// Each run waits until all four have begun.
	var begun atomic.Int64
	all := make(chan struct{})
	_, err := Run(t.Context(), s, one(func() resilience.Policy {
		if begun.Add(1) == 4 {
			close(all)
		}
		<-all
		return naive()
	}))
	if err != nil {
		t.Errorf("got %v, want four concurrent runs", err)
	}
}

func TestRecordDoesNotGrowWithCalls(t *testing.T) {
	s := Scenario{Rate: Constant(1), Length: time.Minute}.withDefaults()
	r := newRecord(&s, newServer(&s, 0))
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	begun := heap()
	for second := range 60 {
		for range 20_000 {
			at := time.Duration(second) * time.Second
			r.callBegins(at)
			r.attemptBegins(at)
			r.callEnds(at, 20*time.Millisecond, good)
			r.finish(at)
		}
	}
	if got := int64(heap()) - int64(begun); got > 2<<20 {
		t.Errorf("got %d bytes after 1,200,000 calls, want at most 2 MiB: those of the latest two seconds", got)
	}
	runtime.KeepAlive(r)
}

func TestRunReportsProgress(t *testing.T) {
	s := brief()
	var shares []float64
	progress := make(chan struct{}, 100)
	s.OnProgress = func(share float64) {
		shares = append(shares, share)
		progress <- struct{}{}
	}
	Test(t, s, one(func() resilience.Policy { // called four times
		<-progress
		return naive()
	}))
	if len(shares) < 5 || shares[0] != 0 || !slices.IsSorted(shares) {
		t.Fatalf("got %v, want at least five ascending shares, from 0", shares)
	}
	if shares[len(shares)-2] >= 1 || shares[len(shares)-1] != 1 {
		t.Errorf("got %v, want 1 only at the end", shares)
	}
}

func TestTestFailsOnError(t *testing.T) {
	if os.Getenv("SIM_FAIL") != "" {
		Test(t, Scenario{}, one(naive))
		fmt.Println("not reached")
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestTestFailsOnError$")
	cmd.Env = append(os.Environ(), "SIM_FAIL=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Scenario.Rate") || strings.Contains(string(out), "not reached") {
		t.Errorf("got %v, %s, want a failed test with the error", err, out)
	}
}
