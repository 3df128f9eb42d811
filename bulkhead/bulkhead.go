// Package bulkhead limits how many calls run concurrently, so that one slow dependency can't take
// all goroutines, memory, or connections of a program.
//
//	reports := bulkhead.New(bulkhead.Config{Name: "reports", Limit: 10, Queue: 20, MaxWait: time.Second})
//
//	report, err := bulkhead.Do(ctx, reports, makeReport)
//
// Use one bulkhead for each resource that can be exhausted: calls that share connections or memory
// share a bulkhead. Don't use one to find the right limit (see package adaptive) or to limit calls
// per second (see package ratelimit).
//
// The pattern is from Michael Nygard's Release It! (2007). A call that finds room costs about 15
// ns, no lock, and no allocation (BenchmarkDo).
package bulkhead

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/describe"
	"github.com/effector-go/resilience/internal/fifo"
)

// A Bulkhead is a semaphore with a bounded queue. At most Limit calls run concurrently, up to Queue
// more wait, first come, first served, and all others are refused with a [*FullError]. A Bulkhead
// is a [resilience.Policy]; create it with [New]. It is safe for concurrent use. It holds no
// goroutine, and a timer only for a call that waits with a MaxWait.
type Bulkhead struct {
	// word holds the limit, the number of running calls, and the waiting mark. It is changed by
	// compare-and-swap. Calls wait only while there is no room: a goroutine that makes room while
	// the mark is set holds mu and hands the room to waiters in the same step. So a caller that
	// finds room knows that no call waits, and a call that ends while others wait sees the mark.
	word atomic.Uint64

	// mu guards the following. A call that finds room needs none of it. The limit is also changed
	// with mu held, so that a goroutine that holds mu sees it and config change in one step.
	mu      sync.Mutex
	config  Config     // Limit is unused: word has it
	waiters fifo.Queue // empty unless word has the mark
}

// The parts of word.
const (
	one        = uint64(1) // running call
	countMask  = 1<<31 - 1
	waiting    = 1 << 31
	limitShift = 32
)

func running(word uint64) int { return int(word & countMask) }
func limitOf(word uint64) int { return int(word >> limitShift) }
func room(word uint64) bool   { return running(word) < limitOf(word) }

func withLimit(word uint64, limit int) uint64 {
	return word&(1<<limitShift-1) | uint64(limit)<<limitShift
}

// New returns a Bulkhead. It panics with the text of [Config.Validate]'s error if there is one.
func New(config Config) *Bulkhead {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	b := &Bulkhead{config: config}
	b.word.Store(withLimit(0, config.Limit))
	return b
}

// Do calls fn when there is room for it and returns fn's result. It returns a [*FullError] if the
// call is refused, and [resilience.ContextErr] if ctx ends before the call starts. Do panics if b
// or fn is nil. It allocates nothing unless the call waits or is refused.
func Do[T any](ctx context.Context, b *Bulkhead, fn func(context.Context) (T, error)) (T, error) {
	if b == nil {
		panic("bulkhead: Do: b is nil, must be a Bulkhead made by New")
	}
	if fn == nil {
		panic("bulkhead: Do: fn is nil, must be a function")
	}
	if err := b.acquire(ctx); err != nil {
		var zero T
		return zero, err
	}
	defer b.release() // panics and Goexit too
	return fn(ctx)
}

// Run makes the call when there is room for it: see [resilience.Policy]. It returns the same errors
// as [Do].
func (b *Bulkhead) Run(ctx context.Context, next resilience.Next) error {
	if !b.tryAcquire() {
		if err := b.acquireInTurn(ctx); err != nil {
			return err
		}
	}
	defer b.release() // panics and Goexit too
	return next.Run(ctx)
}

// Acquire takes a place for work that isn't a function call, such as a stream, and holds it until
// the permit's Release; `defer permit.Release()` is right. It returns the same errors as [Do].
func (b *Bulkhead) Acquire(ctx context.Context) (Permit, error) {
	if err := b.acquire(ctx); err != nil {
		return Permit{}, err
	}
	return Permit{bulkhead: b}, nil
}

// A Permit is a place in a bulkhead. The zero Permit holds no place. A Permit must not be copied
// after its first use. Its methods are safe for concurrent use.
type Permit struct {
	bulkhead *Bulkhead
	released atomic.Bool
}

// Release returns the place to the bulkhead. Only the first call has an effect.
func (p *Permit) Release() {
	if p.bulkhead != nil && !p.released.Swap(true) {
		p.bulkhead.release()
	}
}

// Name returns the Config's Name.
func (b *Bulkhead) Name() string { return b.Config().Name }

// Config returns the Config in use, as changed by [Bulkhead.SetConfig] and [Bulkhead.Resize].
func (b *Bulkhead) Config() Config {
	b.mu.Lock()
	defer b.mu.Unlock()
	config := b.config
	config.Limit = limitOf(b.word.Load())
	return config
}

// SetConfig replaces the Config while calls run and wait. Running calls continue even if there are
// more of them than the new Limit; waiting calls are admitted immediately if there is room. Waiting
// calls keep their places, even if there are more of them than the new Queue, and their MaxWait. If
// config is invalid, SetConfig changes nothing and returns [Config.Validate]'s error.
func (b *Bulkhead) SetConfig(config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config = config
	b.change(func(word uint64) uint64 { return withLimit(word, config.Limit) })
	return nil
}

// Resize is [Bulkhead.SetConfig] for the Limit alone. It panics unless limit is from 1 to
// 2147483647.
func (b *Bulkhead) Resize(limit int) {
	if err := checkLimit(b.Name(), "Resize: limit", limit); err != nil {
		panic(err.Error())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change(func(word uint64) uint64 { return withLimit(word, limit) })
}

// A Snapshot is the state of a bulkhead at one instant.
type Snapshot struct {
	Name    string
	Limit   int
	Queue   int
	Running int
	Waiting int
}

// Snapshot returns the current state.
func (b *Bulkhead) Snapshot() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	word := b.word.Load()
	return Snapshot{b.config.Name, limitOf(word), b.config.Queue, running(word), b.waiters.Len()}
}

// Report describes the bulkhead: its values are limit, running, and waiting, as in [Snapshot].
func (b *Bulkhead) Report() resilience.Report {
	s := b.Snapshot()
	return resilience.Report{
		Kind: "bulkhead", Name: s.Name, Config: describe.Config(b.Config()),
		Values: []resilience.Value{
			describe.Calls("limit", s.Limit),
			describe.Calls("running", s.Running),
			describe.Calls("waiting", s.Waiting),
		},
	}
}

// acquire takes a place, or returns the error of a call that gets none.
func (b *Bulkhead) acquire(ctx context.Context) error {
	if ctx.Err() != nil {
		return resilience.ContextErr(ctx)
	}
	if b.tryAcquire() {
		return nil
	}
	return b.acquireInTurn(ctx)
}

// tryAcquire takes a place if there is room, and reports whether it did.
func (b *Bulkhead) tryAcquire() bool {
	for {
		word := b.word.Load()
		if !room(word) {
			return false
		}
		if b.take(word) {
			return true
		}
	}
}

// take and putBack add and remove one running call while no call waits. They do nothing and return
// false if word has changed since it was read.

func (b *Bulkhead) take(word uint64) bool    { return b.word.CompareAndSwap(word, word+one) }
func (b *Bulkhead) putBack(word uint64) bool { return b.word.CompareAndSwap(word, word-one) }

// acquireInTurn waits for a place if the queue has room.
func (b *Bulkhead) acquireInTurn(ctx context.Context) error {
	w, maxWait, err := b.enqueue()
	if w == nil {
		return err
	}
	began := time.Now()
	var tooLong <-chan time.Time
	if maxWait > 0 {
		timer := time.NewTimer(maxWait)
		defer timer.Stop()
		tooLong = timer.C
	}
	select {
	case <-w.Ready:
	case <-ctx.Done():
	case <-tooLong:
	}
	// If several are ready, the end of the context takes precedence, then the place.
	if ctx.Err() != nil {
		if b.dequeue(w, 0) == nil {
			b.release()
		}
		return resilience.ContextErr(ctx)
	}
	return b.dequeue(w, time.Since(began))
}

// enqueue puts the caller into the queue and returns how long it may wait there. The waiter is nil
// if there is room after all, or, with a *FullError, if the queue is full.
func (b *Bulkhead) enqueue() (*fifo.Waiter, time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		word := b.word.Load()
		switch {
		case room(word):
			if b.take(word) {
				return nil, 0, nil
			}
		case b.waiters.Len() >= b.config.Queue:
			return nil, 0, b.full(0)
		case b.word.CompareAndSwap(word, word|waiting): // from now on, a call that ends sees the waiter
			return b.waiters.Push(), b.config.MaxWait, nil
		}
	}
}

// dequeue removes w from the queue. It returns nil if w has got a place, otherwise a *FullError.
func (b *Bulkhead) dequeue(w *fifo.Waiter, waited time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiters.Remove(w) { // if w was the last, the next call that ends clears the mark
		return b.full(waited)
	}
	return nil
}

// release returns a place.
func (b *Bulkhead) release() {
	for {
		word := b.word.Load()
		if word&waiting != 0 {
			b.handOver()
			return
		}
		if b.putBack(word) {
			return
		}
	}
}

// handOver returns a place while calls wait.
func (b *Bulkhead) handOver() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change(func(word uint64) uint64 { return word - one })
}

// change applies a change to word that may make room, and hands the room to waiters. The caller
// holds mu.
func (b *Bulkhead) change(change func(word uint64) uint64) {
	for {
		word := b.word.Load()
		next := change(word)
		admitted := max(0, min(b.waiters.Len(), limitOf(next)-running(next)))
		next += uint64(admitted) * one
		if admitted == b.waiters.Len() {
			next &^= waiting
		}
		if !b.word.CompareAndSwap(word, next) {
			continue
		}
		for range admitted {
			b.waiters.Pop()
		}
		return
	}
}

// full returns the error of a refused call. The caller holds mu.
func (b *Bulkhead) full(waited time.Duration) *FullError {
	return &FullError{Name: b.config.Name, Limit: limitOf(b.word.Load()), Queue: b.config.Queue, Waited: waited}
}
