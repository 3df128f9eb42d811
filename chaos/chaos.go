// Package chaos injects faults into a pipeline, to see what the policies around them do.
//
//	faults := chaos.New(chaos.Config{
//		Name: "users",
//		Faults: []chaos.Fault{
//			{Share: 0.05, Delay: 2 * time.Second},
//			{Share: 0.01, Err: syscall.ECONNRESET},
//		},
//	})
//	getUser := resilience.Compose(fetchUser, timeouts, retries, payments, faults) // innermost
//
//	faults.Start(10 * time.Minute) // off until then, and again afterward
//	defer faults.Stop()
//
// Use it for experiments: in a test, in staging, or in production with a small share of the calls.
// docs/chaos.md describes how to run one safely. An experiment always ends: [Chaos.Start] takes the
// time after which it ends by itself, and [Chaos.Stop] ends it immediately. Don't leave Start in
// code that runs unattended.
//
// Policies treat an injected fault as real: a call under a fault counts as a start of the effector
// that may have had its effect, unless the fault's error is marked with [resilience.NotMade]. That
// is what makes a test of [resilience.AtMostOnce] possible: see [Fault].Lose.
//
// While it is off, a Chaos costs one atomic load (BenchmarkChaos). The idea of experiments with an
// end, a limited share, and a kill switch is that of the Principles of Chaos Engineering (Rosenthal
// et al., 2017).
package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/describe"
)

// A Chaos is a policy that injects faults while it is on. It belongs innermost in a pipeline: a
// call whose fault replaces the effector doesn't reach the policies inside. It is created by [New],
// initially off, and safe for concurrent use.
type Chaos struct {
	config Config // with its defaults
	hung   error  // what a hang returns at the end of the experiment
	total  counts

	// experiment is the running one, nil while off. Calls load it. Start, Stop, and the timer write
	// it with mu held, so that an end never removes an experiment that began later.
	experiment atomic.Pointer[experiment]
	mu         sync.Mutex
}

// An experiment lasts from a Start that found the Chaos off until it is off again.
type experiment struct {
	seed    uint64
	numbers atomic.Uint64 // of the calls that Only selected
	ended   chan struct{} // closed at the end
	until   time.Time     // guarded by mu of the Chaos
	timer   *time.Timer   // likewise; it ends the experiment
}

// counts are those of all experiments.
type counts struct {
	calls    atomic.Uint64
	active   atomic.Int64
	injected []atomic.Uint64
}

// enter makes a call active, unless limit calls are.
func (t *counts) enter(limit int64) bool {
	for {
		active := t.active.Load()
		if active >= limit {
			return false
		}
		if t.active.CompareAndSwap(active, active+1) {
			return true
		}
	}
}

// New returns a Chaos that is off. It panics with the text of [Config.Validate]'s error if config
// is invalid.
func New(config Config) *Chaos {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	return &Chaos{
		config: config.withDefaults(),
		hung:   config.injected(errEnded),
		total:  counts{injected: make([]atomic.Uint64, len(config.Faults))},
	}
}

// Start turns c on until d from now. If c is already on, Start only moves the end, to an earlier or
// a later time; if c is off, the sequence of faults that belongs to [Config].Seed starts over.
// Start panics unless d is positive and at most 24 hours.
func (c *Chaos) Start(d time.Duration) {
	if d <= 0 || d > maxTime {
		panic(fmt.Sprintf("%s: Start: d is %v, must be positive and at most %v", title(c.config.Name), d, maxTime))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.experiment.Load()
	if e == nil {
		e = &experiment{seed: c.config.Seed, ended: make(chan struct{})}
		if e.seed == 0 {
			e.seed = rand.Uint64()
		}
		c.experiment.Store(e)
	} else {
		e.timer.Stop()
	}
	e.until = time.Now().Add(d)
	e.timer = time.AfterFunc(d, func() { c.endDue(e) })
}

const maxTime = 24 * time.Hour

// Stop turns c off immediately. Calls that hang end with [ErrInjected]; calls that are being
// delayed continue, without another fault. Stop does nothing while c is off.
func (c *Chaos) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.experiment.Load(); e != nil {
		e.timer.Stop()
		c.end(e)
	}
}

// endDue ends e, unless it has ended or another Start has moved its end.
func (c *Chaos) endDue(e *experiment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.experiment.Load() == e && !time.Now().Before(e.until) {
		c.end(e)
	}
}

func (c *Chaos) end(e *experiment) {
	c.experiment.Store(nil)
	close(e.ended)
}

// Name returns [Config].Name.
func (c *Chaos) Name() string { return c.config.Name }

// A Snapshot is the state of a [Chaos] at one instant. Counts are those since New, over all
// experiments.
type Snapshot struct {
	Name     string
	On       bool
	Until    time.Time // when it turns itself off; zero while off
	Active   int       // calls under a fault now
	Calls    uint64    // calls that Only selected while it was on
	Injected []uint64  // injected faults, by their index in Config.Faults
}

// Snapshot returns the current state.
func (c *Chaos) Snapshot() Snapshot {
	s := Snapshot{
		Name:     c.config.Name,
		Active:   int(c.total.active.Load()),
		Calls:    c.total.calls.Load(),
		Injected: make([]uint64, len(c.total.injected)),
	}
	for i := range s.Injected {
		s.Injected[i] = c.total.injected[i].Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.experiment.Load(); e != nil {
		s.On, s.Until = true, e.until
	}
	return s
}

// Report describes the policy. It has no values.
func (c *Chaos) Report() resilience.Report {
	return resilience.Report{Kind: "chaos", Name: c.config.Name, Config: describe.Config(c.config)}
}

// An Injection is one fault of one call: see [Config].OnInject.
type Injection struct {
	Name  string        // of the Chaos
	Fault int           // the fault's index in Config.Faults
	Delay time.Duration // including the jitter
}

// Run makes the call, or injects a fault into it. It returns the call's error or the fault's, or
// [resilience.ContextErr] if ctx ended during a delay or a hang.
func (c *Chaos) Run(ctx context.Context, next resilience.Next) error {
	if e := c.experiment.Load(); e != nil {
		return c.run(ctx, next, e)
	}
	return next.Run(ctx)
}

func (c *Chaos) run(ctx context.Context, next resilience.Next, e *experiment) error {
	if c.config.Only != nil && !c.config.Only(ctx) {
		return next.Run(ctx)
	}
	c.total.calls.Add(1)
	i, delay := c.draw(e)
	if i < 0 {
		return next.Run(ctx)
	}
	if !c.total.enter(int64(c.config.MaxActive)) {
		return next.Run(ctx)
	}
	defer c.total.active.Add(-1)
	c.total.injected[i].Add(1)
	if c.config.OnInject != nil {
		c.config.OnInject(ctx, Injection{c.config.Name, i, delay})
	}
	return c.inject(ctx, next, e, &c.config.Faults[i], delay)
}

// draw returns the fault of the experiment's next call and its delay, or -1. The call's number and
// the seed alone decide.
func (c *Chaos) draw(e *experiment) (fault int, delay time.Duration) {
	random := rand.New(rand.NewPCG(e.seed, e.numbers.Add(1)))
	left := random.Float64()
	for i := range c.config.Faults {
		f := &c.config.Faults[i]
		if left -= f.Share; left >= 0 {
			continue
		}
		delay = f.Delay
		if f.Jitter > 0 {
			delay += time.Duration(random.Int64N(int64(f.Jitter)) + 1)
		}
		return i, delay
	}
	return -1, 0
}

func (c *Chaos) inject(ctx context.Context, next resilience.Next, e *experiment, f *Fault, delay time.Duration) error {
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		ended := false
		select {
		case <-timer.C:
		case <-e.ended:
			ended = true
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			next.CountStart(nil)
			return resilience.ContextErr(ctx)
		}
		if ended {
			return next.Run(ctx)
		}
	}
	switch {
	case f.Lose:
		return f.lose(ctx, next)
	case f.Err != nil:
		next.CountStart(f.Err)
		return f.Err
	case f.Panic != nil:
		next.CountStart(nil)
		panic(f.Panic)
	case f.Hang:
		next.CountStart(nil)
		select {
		case <-e.ended:
			return c.hung
		case <-ctx.Done():
			return resilience.ContextErr(ctx)
		}
	}
	return next.Run(ctx)
}

// lose makes the call and loses its answer. The answer stays with a fork, so it never reaches the
// caller, with or without a Discard policy.
func (f *Fault) lose(ctx context.Context, next resilience.Next) error {
	fork := next.Fork()
	err := fork.Run(ctx)
	if err == nil {
		fork.Discard()
		return f.Err
	}
	next.Adopt(fork)
	return err
}
