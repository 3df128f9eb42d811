// Package bulkhead limits how many calls run at once, so that one slow dependency does not take all of a program's goroutines, memory or
// connections with it.
//
//	reports := bulkhead.New(bulkhead.Config{Name: "reports", Limit: 10, Queue: 20, MaxWait: time.Second})
//
//	report, err := bulkhead.Do(ctx, reports, makeReport)
//
// Use one for each resource that is used up: calls that share connections or memory share a bulkhead. Do not use one to
// find the right limit (that is what package adaptive does), nor to limit calls in a second (package ratelimit).
//
// The pattern is Michael Nygard's (Release It!, 2007). A call for which there is room costs some 15 ns, no lock and no allocation
// (BenchmarkDo).
package bulkhead

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/fifo"
)

// A Bulkhead is a semaphore with a bounded queue: at most Limit calls run at once, Queue more may wait, first come, first
// served, and further ones are refused with [*FullError]. It is a [resilience.Policy], made by [New], and safe for concurrent use. It
// holds no goroutine, and a timer only for a call that waits with a MaxWait.
type Bulkhead struct {
	name    string
	queue   int
	maxWait time.Duration

	// word holds the limit, how many calls run, and whether calls may wait. It is changed by compare-and-swap. Calls wait only while
	// there is no room: whoever makes room while the mark is set does so with mu held, and gives it to those who wait in the same
	// step. So one who finds room finds nobody waiting and takes it, and one who leaves while others wait meets them.
	word atomic.Uint64

	mu      sync.Mutex // guards waiters
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

// New gives a Bulkhead. It panics with the text of [Config.Validate]'s error if there is one.
func New(config Config) *Bulkhead {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	b := &Bulkhead{name: config.Name, queue: config.Queue, maxWait: config.MaxWait}
	b.word.Store(uint64(config.Limit) << limitShift)
	return b
}

// Do calls fn when there is room for it and returns what fn returns. Its error is [*FullError] if the call is refused, and
// [resilience.ContextErr] if ctx is done, before or while it waits. Do panics if b or fn is nil. It allocates nothing unless it waits or refuses.
func Do[T any](ctx context.Context, b *Bulkhead, fn func(context.Context) (T, error)) (T, error) {
	if b == nil {
		panic("bulkhead: Do: b is nil, must be a Bulkhead made by New")
	}
	if fn == nil {
		panic("bulkhead: Do: fn is nil, must be a function")
	}
	if err := b.enter(ctx); err != nil {
		var zero T
		return zero, err
	}
	defer b.leave() // panics and Goexit too
	return fn(ctx)
}

// Run makes the call when there is room for it: see [resilience.Policy]. Its error is as [Do]'s.
func (b *Bulkhead) Run(ctx context.Context, next resilience.Next) error {
	if !b.enterAtOnce() {
		if err := b.enterSlowly(ctx); err != nil {
			return err
		}
	}
	defer b.leave() // panics and Goexit too
	return next.Run(ctx)
}

// Acquire takes a place for a call that is made otherwise, a stream say, until the permit's Release; `defer permit.Release()` is right. Its error
// is as [Do]'s.
func (b *Bulkhead) Acquire(ctx context.Context) (Permit, error) {
	if err := b.enter(ctx); err != nil {
		return Permit{}, err
	}
	return Permit{bulkhead: b}, nil
}

// A Permit is a place in a bulkhead. The zero Permit is none. A Permit must not be copied after its first use, and its methods are safe
// for concurrent use.
type Permit struct {
	bulkhead *Bulkhead
	released atomic.Bool
}

// Release gives the place back. Later ones do nothing.
func (p *Permit) Release() {
	if p.bulkhead != nil && !p.released.Swap(true) {
		p.bulkhead.leave()
	}
}

// Name gives Config.Name.
func (b *Bulkhead) Name() string { return b.name }

// Resize sets how many calls may run at once. Running calls go on, also where they are more than the new limit; waiters are let in at once
// where there is room. It panics unless limit is from 1 to 2147483647.
func (b *Bulkhead) Resize(limit int) {
	if err := checkLimit(b.name, "Resize: limit", limit); err != nil {
		panic(err.Error())
	}
	b.change(func(word uint64) uint64 { return word&(1<<limitShift-1) | uint64(limit)<<limitShift })
}

// A Snapshot is what a bulkhead is like at one instant.
type Snapshot struct {
	Name    string
	Limit   int // as of Resize
	Queue   int
	Running int
	Waiting int
}

// Snapshot tells the present counts.
func (b *Bulkhead) Snapshot() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	word := b.word.Load()
	return Snapshot{b.name, limitOf(word), b.queue, running(word), b.waiters.Len()}
}

// enter takes a place, or gives the error of a call that gets none.
func (b *Bulkhead) enter(ctx context.Context) error {
	if ctx.Err() != nil {
		return resilience.ContextErr(ctx)
	}
	if b.enterAtOnce() {
		return nil
	}
	return b.enterSlowly(ctx)
}

// enterAtOnce takes a place if there is room.
func (b *Bulkhead) enterAtOnce() bool {
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

// take and giveBack are how one call more or less runs while nobody waits. They do nothing, and report false, if word has changed since it was
// read.

func (b *Bulkhead) take(word uint64) bool     { return b.word.CompareAndSwap(word, word+one) }
func (b *Bulkhead) giveBack(word uint64) bool { return b.word.CompareAndSwap(word, word-one) }

// enterSlowly waits for a place if it may.
func (b *Bulkhead) enterSlowly(ctx context.Context) error {
	w, err := b.line()
	if w == nil {
		return err
	}
	began := time.Now()
	var tooLong <-chan time.Time
	if b.maxWait > 0 {
		timer := time.NewTimer(b.maxWait)
		defer timer.Stop()
		tooLong = timer.C
	}
	select {
	case <-w.Ready:
	case <-ctx.Done():
	case <-tooLong:
	}
	// Of several at once the ctx's end goes first, then the place.
	if ctx.Err() != nil {
		b.giveUp(w)
		return resilience.ContextErr(ctx)
	}
	if b.stepOut(w) {
		return b.full(time.Since(began))
	}
	return nil
}

// line puts the caller into the queue, unless there is room after all, when both results are nil, or the queue is full.
func (b *Bulkhead) line() (*fifo.Waiter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		word := b.word.Load()
		switch {
		case room(word):
			if b.take(word) {
				return nil, nil
			}
		case b.waiters.Len() >= b.queue:
			return nil, b.full(0)
		case b.word.CompareAndSwap(word, word|waiting): // from now on whoever leaves meets us
			return b.waiters.Push(), nil
		}
	}
}

// stepOut takes w out of the queue, and reports whether it was still there, without a place.
func (b *Bulkhead) stepOut(w *fifo.Waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiters.Remove(w) // if w was the last, the next one who leaves takes the mark away
}

// giveUp takes w out of the queue, or gives back the place that it got.
func (b *Bulkhead) giveUp(w *fifo.Waiter) {
	if !b.stepOut(w) {
		b.leave()
	}
}

// leave gives a place back.
func (b *Bulkhead) leave() {
	for {
		word := b.word.Load()
		if word&waiting != 0 {
			b.change(func(word uint64) uint64 { return word - one })
			return
		}
		if b.giveBack(word) {
			return
		}
	}
}

// change makes the change to word, which may make room, and gives the room to those who wait.
func (b *Bulkhead) change(change func(word uint64) uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		word := b.word.Load()
		next := change(word)
		let := max(0, min(b.waiters.Len(), limitOf(next)-running(next)))
		next += uint64(let) * one
		if let == b.waiters.Len() {
			next &^= waiting
		}
		if !b.word.CompareAndSwap(word, next) {
			continue
		}
		for range let {
			b.waiters.Pop()
		}
		return
	}
}

func (b *Bulkhead) full(waited time.Duration) *FullError {
	return &FullError{Name: b.name, Limit: limitOf(b.word.Load()), Queue: b.queue, Waited: waited}
}
