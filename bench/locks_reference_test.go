package bench

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/breaker"
)

// This file has the same small breaker behind several ways of locking, for the benchmarks and for
// the tests that show which of them are right. It opens after a number of consecutive failures and
// refuses calls for the open time. Then it allows one probe after the other: a number of successful
// probes closes it, and a failed one opens it again. Like most breakers written for one program it
// doesn't handle panics, and a probe that never returns keeps it half-open. The library's breaker
// handles both, at the cost measured here.

var (
	errRefused = errors.New("refused")
	errBoom    = errors.New("boom")
)

// An effector is what the breakers guard.
type effector = func(context.Context) (int, error)

// A lockForm is the small breaker behind one way of locking. Do makes a call or refuses it; Reset
// closes the breaker manually.
type lockForm interface {
	Do(ctx context.Context, fn effector) (int, error)
	Reset()
}

// rules is the configuration of every form.
type rules struct {
	failures int           // consecutive failures that open the breaker
	openFor  time.Duration // the open time
	probes   int           // successful probes that close the breaker
	opened   func()        // called at every opening, unless nil
}

func (r *rules) reportOpened() {
	if r.opened != nil {
		r.opened()
	}
}

// lockForms are the correct forms.
var lockForms = []struct {
	name string
	make func(rules) lockForm
}{
	{"two-mutexes", func(r rules) lockForm { return &twoMutexes{machine: newMachine(r)} }},
	{"rwmutex", func(r rules) lockForm { return &rwMutex{machine: newMachine(r)} }},
	{"rwmutex-failures", func(r rules) lockForm { return &rwMutexFailures{rwMutex{machine: newMachine(r)}} }},
	{"one-mutex", func(r rules) lockForm { return newOneMutex(r) }},
	{"atomic", func(r rules) lockForm { return newAtomicCount(r) }},
	{"library", func(r rules) lockForm { return newLibrary(r) }},
}

// wrongForms pass every test that makes one call after the other.
var wrongForms = []struct {
	name string
	make func(rules) lockForm
}{
	{"wrong-held-mutex", func(r rules) lockForm { return &heldMutex{machine: newMachine(r)} }},
	{"wrong-unlimited-probes", func(r rules) lockForm { return &unlimitedProbes{rules: r} }},
	{"wrong-read-locks", func(r rules) lockForm { return &readLocks{machine: newMachine(r)} }},
	{"wrong-loose-atomics", func(r rules) lockForm { return &looseAtomics{rules: r} }},
}

type state int

const (
	closed state = iota
	open
	halfOpen
)

// A machine is the small breaker without a lock. Each form guards it in its own way.
type machine struct {
	rules
	state      state
	generation uint64 // number of state periods so far; a result counts only in the generation that admitted its call
	failed     int    // closed: consecutive failures
	succeeded  int    // half-open: successful probes
	onProbe    bool   // half-open: a probe is running
	until      time.Time
}

func newMachine(r rules) machine { return machine{rules: r, generation: 1} }

// look does what admit does if admitting writes nothing; otherwise sure is false.
func (m *machine) look() (generation uint64, err error, sure bool) {
	switch {
	case m.state == closed:
		return m.generation, nil, true
	case m.state == halfOpen && m.onProbe, m.state == open && time.Now().Before(m.until):
		return 0, errRefused, true
	}
	return 0, nil, false
}

// admit returns the generation in which to count the call's result, or refuses the call.
func (m *machine) admit() (generation uint64, err error) {
	if generation, err, sure := m.look(); sure {
		return generation, err
	}
	if m.state == open {
		m.enter(halfOpen)
	}
	m.onProbe = true
	return m.generation, nil
}

// book counts the result of a call that was admitted in the given generation.
func (m *machine) book(generation uint64, err error) {
	switch {
	case generation != m.generation: // late: the period that admitted the call has ended
	case m.state == closed && err == nil:
		m.failed = 0
	case m.state == closed:
		m.failed++
		if m.failed >= m.failures {
			m.open()
		}
	case err != nil:
		m.open()
	default:
		m.onProbe = false
		m.succeeded++
		if m.succeeded >= m.probes {
			m.enter(closed)
		}
	}
}

func (m *machine) open() {
	m.enter(open)
	m.until = time.Now().Add(m.openFor)
	m.reportOpened()
}

func (m *machine) enter(s state) {
	m.state = s
	m.generation++
	m.failed, m.succeeded, m.onProbe = 0, 0, false
}

// twoMutexes takes an exclusive lock to admit a call and again to count its result: look, call,
// book, as the circuit breaker in the book Cloud Native Go does. (The book looks under a read lock
// and doesn't limit probes: see unlimitedProbes.)
type twoMutexes struct {
	mu sync.Mutex // guards machine
	machine
}

func (f *twoMutexes) Do(ctx context.Context, fn effector) (int, error) {
	f.mu.Lock()
	generation, err := f.admit()
	f.mu.Unlock()
	if err != nil {
		return 0, err
	}
	value, err := fn(ctx)
	f.mu.Lock()
	f.book(generation, err)
	f.mu.Unlock()
	return value, err
}

func (f *twoMutexes) Reset() {
	f.mu.Lock()
	f.enter(closed)
	f.mu.Unlock()
}

// rwMutex admits under a read lock unless that requires a write. Then it releases the read lock and
// decides again under the exclusive lock. It counts under the exclusive lock.
type rwMutex struct {
	mu sync.RWMutex // guards machine
	machine
}

func (f *rwMutex) Do(ctx context.Context, fn effector) (int, error) {
	generation, err := f.lockAndAdmit()
	if err != nil {
		return 0, err
	}
	value, err := fn(ctx)
	f.mu.Lock()
	f.book(generation, err)
	f.mu.Unlock()
	return value, err
}

func (f *rwMutex) lockAndAdmit() (generation uint64, err error) {
	f.mu.RLock()
	generation, err, sure := f.look()
	f.mu.RUnlock()
	if sure {
		return generation, err
	}
	f.mu.Lock()
	generation, err = f.admit() // decides again, because another caller may have been faster
	f.mu.Unlock()
	return generation, err
}

func (f *rwMutex) Reset() {
	f.mu.Lock()
	f.enter(closed)
	f.mu.Unlock()
}

// rwMutexFailures is rwMutex that takes the exclusive lock only for failures and probes. For a
// success of a closed breaker, a read lock shows that there is nothing to write.
type rwMutexFailures struct{ rwMutex }

func (f *rwMutexFailures) Do(ctx context.Context, fn effector) (int, error) {
	generation, err := f.lockAndAdmit()
	if err != nil {
		return 0, err
	}
	value, err := fn(ctx)
	if err == nil {
		f.mu.RLock()
		nothing := generation != f.generation || f.state == closed && f.failed == 0
		f.mu.RUnlock()
		if nothing {
			return value, nil
		}
	}
	f.mu.Lock()
	f.book(generation, err)
	f.mu.Unlock()
	return value, err
}

// oneMutex locks once for each call. A closed breaker admits a call by one atomic load and counts
// it under the lock; an open breaker refuses a call under the lock. Probes take the lock twice.
type oneMutex struct {
	mu sync.Mutex // guards machine
	machine

	// closedAs is the generation while the breaker is closed, otherwise 0. It is written with mu
	// held. A caller that reads a generation was admitted by it. If that generation has ended by
	// the time the result arrives, the result is ignored under the lock.
	closedAs atomic.Uint64
}

func newOneMutex(r rules) *oneMutex {
	f := &oneMutex{machine: newMachine(r)}
	f.publish()
	return f
}

func (f *oneMutex) Do(ctx context.Context, fn effector) (int, error) {
	generation := f.closedAs.Load()
	if generation == 0 {
		var err error
		f.mu.Lock()
		generation, err = f.admit()
		f.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
	value, err := fn(ctx)
	f.mu.Lock()
	f.book(generation, err)
	f.publish()
	f.mu.Unlock()
	return value, err
}

func (f *oneMutex) Reset() {
	f.mu.Lock()
	f.enter(closed)
	f.publish()
	f.mu.Unlock()
}

func (f *oneMutex) publish() {
	now := uint64(0)
	if f.state == closed {
		now = f.generation
	}
	if f.closedAs.Load() != now { // even a store of the same value would remove the word from every reader's cache
		f.closedAs.Store(now)
	}
}

// atomicCount keeps the generation and the failures of a closed breaker in one word, so that a
// failure counts in its own generation or not at all. A success that follows a success only loads.
// Other states are handled under the lock.
type atomicCount struct {
	mu sync.Mutex // guards machine, and every change of word to or from 0
	machine

	// word is generation<<countBits | consecutive failures while the breaker is closed, otherwise
	// 0. It changes by compare-and-swap, except from 0.
	word atomic.Uint64
}

const countBits = 24

func newAtomicCount(r rules) *atomicCount {
	f := &atomicCount{machine: newMachine(r)}
	f.word.Store(f.generation << countBits)
	return f
}

func (f *atomicCount) Do(ctx context.Context, fn effector) (int, error) {
	generation := f.word.Load() >> countBits
	if generation == 0 {
		var err error
		f.mu.Lock()
		generation, err = f.admit()
		f.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
	value, err := fn(ctx)
	if word := f.word.Load(); err != nil || word != generation<<countBits {
		f.count(generation, err)
	}
	return value, err
}

// count counts every result except a success after a success.
func (f *atomicCount) count(generation uint64, err error) {
	for {
		word := f.word.Load()
		switch next := generation << countBits; {
		case word>>countBits != generation:
			f.bookProbe(generation, err)
			return
		case err != nil && word-next+1 >= uint64(f.failures):
			if f.trip(word) {
				return
			}
		case err != nil && f.word.CompareAndSwap(word, word+1), err == nil && f.word.CompareAndSwap(word, next):
			return
		}
	}
}

// trip opens the breaker if word is unchanged.
func (f *atomicCount) trip(word uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.word.CompareAndSwap(word, 0) {
		return false
	}
	f.open()
	return true
}

func (f *atomicCount) bookProbe(generation uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == closed { // late
		return
	}
	f.book(generation, err)
	if f.state == closed {
		f.word.Store(f.generation << countBits)
	}
}

func (f *atomicCount) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.word.Store(0) // from now on, a failure that swaps the old word fails to
	f.enter(closed)
	f.word.Store(f.generation << countBits)
}

// library is this module's breaker with the same rules: the open time doesn't grow.
type library struct{ b *breaker.Breaker }

func newLibrary(r rules) *library {
	c := breaker.Config{Consecutive: r.failures, OpenFor: r.openFor, MaxOpenFor: r.openFor, ProbeSuccesses: r.probes}
	if r.opened != nil {
		c.OnStateChange = func(t breaker.Transition) {
			if t.To == breaker.Open {
				r.opened()
			}
		}
	}
	return &library{breaker.New(c)}
}

func (f *library) Do(ctx context.Context, fn effector) (int, error) { return breaker.Do(ctx, f.b, fn) }
func (f *library) Reset()                                           { f.b.Reset() }

// The forms below are wrong: see docs/internals/locks.md.

// heldMutex holds its lock during the call, so only one call runs at any time.
type heldMutex struct {
	mu sync.Mutex // guards machine
	machine
}

func (f *heldMutex) Do(ctx context.Context, fn effector) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	generation, err := f.admit()
	if err != nil {
		return 0, err
	}
	value, err := fn(ctx)
	f.book(generation, err)
	return value, err
}

func (f *heldMutex) Reset() {
	f.mu.Lock()
	f.enter(closed)
	f.mu.Unlock()
}

// unlimitedProbes locks both its reads and its writes, but decides by what it read under an earlier
// lock: once the open time is over, every caller is admitted until the first of them has returned.
// So does the circuit breaker in the book Cloud Native Go, which has no half-open state. It also
// counts late results.
type unlimitedProbes struct {
	rules
	mu        sync.RWMutex // guards the fields below
	failed    int          // consecutive failures
	succeeded int          // successes since it opened
	until     time.Time    // the end of the open time; zero if closed
}

func (f *unlimitedProbes) Do(ctx context.Context, fn effector) (int, error) {
	f.mu.RLock()
	refuse := !f.until.IsZero() && time.Now().Before(f.until)
	f.mu.RUnlock()
	if refuse {
		return 0, errRefused
	}
	value, err := fn(ctx)
	f.mu.Lock()
	f.book(err)
	f.mu.Unlock()
	return value, err
}

func (f *unlimitedProbes) book(err error) {
	if err == nil {
		f.failed = 0
		f.succeeded++
		if f.succeeded >= f.probes {
			f.until = time.Time{}
		}
		return
	}
	f.failed++
	if f.failed >= f.failures || !f.until.IsZero() {
		f.until = time.Now().Add(f.openFor)
		f.succeeded = 0
		f.reportOpened()
	}
}

func (f *unlimitedProbes) Reset() {
	f.mu.Lock()
	f.failed, f.succeeded, f.until = 0, 0, time.Time{}
	f.mu.Unlock()
}

// readLocks writes under read locks, which don't exclude other writers that do the same.
type readLocks struct {
	mu sync.RWMutex
	machine

	// pause, unless nil, runs between a call's read and the write that depends on it, where another
	// goroutine may run. So one goroutine can show what two would do.
	pause func()
}

func (f *readLocks) Do(ctx context.Context, fn effector) (int, error) {
	f.mu.RLock()
	generation, err := f.admitPausing()
	f.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	value, err := fn(ctx)
	f.mu.RLock()
	f.bookPausing(generation, err)
	f.mu.RUnlock()
	return value, err
}

// admitPausing is machine.admit.
func (f *readLocks) admitPausing() (generation uint64, err error) {
	if generation, err, sure := f.look(); sure {
		return generation, err
	}
	f.mayPause()
	if f.state == open {
		f.enter(halfOpen)
	}
	f.onProbe = true
	return f.generation, nil
}

// bookPausing is machine.book, with the increment of failed split into a read and a write, as the
// processor does it.
func (f *readLocks) bookPausing(generation uint64, err error) {
	if err == nil && f.state == closed && f.failed == 0 {
		return
	}
	if err != nil && f.state == closed && generation == f.generation && f.failed+1 < f.failures {
		failed := f.failed
		f.mayPause()
		f.failed = failed + 1
		return
	}
	f.book(generation, err)
}

func (f *readLocks) mayPause() {
	if pause := f.pause; pause != nil {
		f.pause = nil // once
		pause()
	}
}

func (f *readLocks) Reset() {
	f.mu.Lock()
	f.enter(closed)
	f.mu.Unlock()
}

// looseAtomics keeps each field in an atomic of its own, and changes them one after another.
type looseAtomics struct {
	rules
	failed    atomic.Int64
	until     atomic.Int64 // Unix time in nanoseconds; 0 if closed
	onProbe   atomic.Bool
	succeeded atomic.Int64
}

func (f *looseAtomics) Do(ctx context.Context, fn effector) (int, error) {
	until := f.until.Load()
	probe := until != 0
	if probe && (time.Now().UnixNano() < until || !f.onProbe.CompareAndSwap(false, true)) {
		return 0, errRefused
	}
	value, err := fn(ctx)
	switch {
	case err == nil && probe:
		if f.succeeded.Add(1) >= int64(f.probes) {
			f.Reset()
		}
		f.onProbe.Store(false)
	case err == nil:
		if f.failed.Load() != 0 {
			f.failed.Store(0)
		}
	case probe, f.failed.Add(1) >= int64(f.failures):
		f.until.Store(time.Now().Add(f.openFor).UnixNano())
		f.onProbe.Store(false)
		f.reportOpened()
	}
	return value, err
}

func (f *looseAtomics) Reset() {
	f.failed.Store(0)
	f.succeeded.Store(0)
	f.until.Store(0)
}
