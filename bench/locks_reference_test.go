package bench

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/breaker"
)

// The same small breaker behind several ways of locking, for the benchmarks and for the tests that show which of them are
// right. It opens after so many failures in a row, refuses calls for the open time, then makes probes, one at a time: so
// many successful ones close it, one failed opens it again. As most that are written for one program it does nothing for a
// call that panics, and a probe that never returns holds it half-open; the library's does both, at the cost measured here.

var (
	errRefused = errors.New("refused")
	errBoom    = errors.New("boom")
)

// An effector is what the breakers guard.
type effector = func(context.Context) (int, error)

// A lockForm is the small breaker behind one way of locking. Do makes a call or refuses it, Reset closes it by hand.
type lockForm interface {
	Do(ctx context.Context, fn effector) (int, error)
	Reset()
}

// rules are what every form is made by.
type rules struct {
	failures int           // in a row that open
	openFor  time.Duration // the time for which it is open
	probes   int           // successful ones that close
	opened   func()        // hears of every opening, unless nil
}

func (r *rules) tellOpened() {
	if r.opened != nil {
		r.opened()
	}
}

// lockForms are the forms that are right.
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

// A machine is the small breaker without a lock: what the forms guard, each in its way.
type machine struct {
	rules
	state      state
	generation uint64 // stays in a state so far, this one included: a result counts in the stay that admitted its call, else not
	failed     int    // closed: failures in a row
	succeeded  int    // half-open: probes
	onProbe    bool   // half-open
	until      time.Time
}

func newMachine(r rules) machine { return machine{rules: r, generation: 1} }

// look is admit where admitting writes nothing; it is not sure where it would.
func (m *machine) look() (generation uint64, err error, sure bool) {
	switch {
	case m.state == closed:
		return m.generation, nil, true
	case m.state == halfOpen && m.onProbe, m.state == open && time.Now().Before(m.until):
		return 0, errRefused, true
	}
	return 0, nil, false
}

// admit gives a call the generation by which to book its result, or refuses it.
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
	case generation != m.generation: // late: what it tells of is over
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
	m.tellOpened()
}

func (m *machine) enter(s state) {
	m.state = s
	m.generation++
	m.failed, m.succeeded, m.onProbe = 0, 0, false
}

// twoMutexes takes an exclusive lock to admit a call and again to book its result: look, call, book, the shape of the circuit
// breaker in the book Cloud Native Go. (The book looks under a read lock and keeps no place for a probe: unlimitedProbes.)
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

// rwMutex admits under a read lock, unless that means to write: then it lets go of the read lock and decides anew under
// the exclusive one. It books under the exclusive one.
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
	generation, err = f.admit() // not what was seen before: another caller may have been faster
	f.mu.Unlock()
	return generation, err
}

func (f *rwMutex) Reset() {
	f.mu.Lock()
	f.enter(closed)
	f.mu.Unlock()
}

// rwMutexFailures is rwMutex with the exclusive lock for failures and probes only: for a success of a closed breaker a read
// lock shows that there is nothing to write.
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

// oneMutex locks once a call: a call of a closed breaker is admitted by one atomic load and booked under the lock, one of an
// open breaker is refused under the lock. Probes take it twice.
type oneMutex struct {
	mu sync.Mutex // guards machine
	machine

	// closedAs is the generation while the breaker is closed, else 0. Written with mu held: who reads a generation was
	// admitted by it, and if it is over by then the result falls away under the lock.
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
	if f.closedAs.Load() != now { // a store that changes nothing would still take the word from every reader's cache
		f.closedAs.Store(now)
	}
}

// atomicCount keeps the generation of a closed breaker and its failures in one word, so that a failure counts in its own
// generation or not at all; a success that follows a success only loads. What is not closed is under the lock.
type atomicCount struct {
	mu sync.Mutex // guards machine, and every change of word to or from 0
	machine

	// word is generation<<countBits | failures in a row while the breaker is closed, else 0. It changes by compare-and-swap,
	// but for its way back from 0.
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

// count books a result that is not a success after a success.
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

// trip opens the breaker if word is still what it was.
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
	f.word.Store(0) // a failure that counts by the old word fails to from now on
	f.enter(closed)
	f.word.Store(f.generation << countBits)
}

// library is this module's breaker by the same rules: the open time does not grow.
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

// The following forms are wrong: see docs/internals/locks.md.

// heldMutex holds its lock during the call: the calls go one by one.
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

// unlimitedProbes locks what it reads and what it writes, and yet decides by what it saw a lock ago: once the open time is over
// every caller is let through until the first of them has come back. So does the circuit breaker in the book Cloud Native Go,
// which has no half-open state; nor does it know what a result that comes late tells of.
type unlimitedProbes struct {
	rules
	mu        sync.RWMutex // guards the following
	failed    int          // in a row
	succeeded int          // in a row, since it opened
	until     time.Time    // the end of the open time; zero: closed
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
		f.tellOpened()
	}
}

func (f *unlimitedProbes) Reset() {
	f.mu.Lock()
	f.failed, f.succeeded, f.until = 0, 0, time.Time{}
	f.mu.Unlock()
}

// readLocks writes under read locks, which exclude nobody who does the same.
type readLocks struct {
	mu sync.RWMutex
	machine

	// pause, unless nil, runs between what a call reads and what it writes on the grounds of it: where another
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

// bookPausing is machine.book, with the addition of a failure taken apart, as the processor does it.
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

// looseAtomics keeps each of its fields in an atomic, and changes them one after the other.
type looseAtomics struct {
	rules
	failed    atomic.Int64
	until     atomic.Int64 // Unix time in nanoseconds; 0: closed
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
		f.tellOpened()
	}
	return value, err
}

func (f *looseAtomics) Reset() {
	f.failed.Store(0)
	f.succeeded.Store(0)
	f.until.Store(0)
}
