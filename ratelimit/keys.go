package ratelimit

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// keys holds the limiters of a [Keyed]. A key is removed only when its bucket is full and no call
// uses it: after it hasn't been used for the time in which its bucket fills, or, if there are too
// many keys, when a sweep comes across it.
type keys[K comparable] struct {
	max int

	mu      sync.Mutex // guards the following
	entries map[K]*keyEntry[K]
	expiry  expiryHeap[K]
	swept   int // position in expiry where the next sweep begins
}

type keyEntry[K comparable] struct {
	key     K
	limiter *Limiter
	fills   time.Duration // from empty to full

	// users is how many calls use the limiter. It is incremented with keys.mu held, so that a
	// goroutine that holds it and finds 0 may remove the entry. It is decremented after the call
	// has taken its tokens, so that such a goroutine sees in the bucket what was taken.
	users atomic.Int32

	lastUsed int64 // on package clock; guarded by keys.mu
	check    int64 // when to look whether the key may be removed; at most lastUsed + fills
	index    int   // in keys.expiry
}

func (e *keyEntry[K]) release() { e.users.Add(-1) }

// sweepStep is how many keys are examined for each new key beyond max. More than one, so that full
// buckets are found faster than keys come.
const sweepStep = 4

func (s *keys[K]) init(limit int) {
	s.max = limit
	s.entries = make(map[K]*keyEntry[K])
}

// acquire returns the entry of the key, which the caller must release; nil if there is none.
func (s *keys[K]) acquire(key K) *keyEntry[K] {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock.Now()
	s.expire(now)
	e := s.entries[key]
	if e != nil {
		e.users.Add(1)
		e.lastUsed = now
	}
	return e
}

// peek is acquire for a caller that takes no tokens.
func (s *keys[K]) peek(key K) *keyEntry[K] {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(clock.Now())
	e := s.entries[key]
	if e != nil {
		e.users.Add(1)
	}
	return e
}

// add adds an entry for the key and acquires it. If another caller has added one since, it acquires
// that.
func (s *keys[K]) add(key K, l *Limiter) *keyEntry[K] {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock.Now()
	e := s.entries[key]
	if e == nil {
		e = &keyEntry[K]{key: key, limiter: l, fills: l.bucket.Load().fills()}
		e.check = clock.Add(now, e.fills)
		s.entries[key] = e
		heap.Push(&s.expiry, e)
	}
	e.users.Add(1)
	e.lastUsed = now
	s.sweep(now)
	return e
}

func (s *keys[K]) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(clock.Now())
	return len(s.entries)
}

// limiters returns those of the keys that are remembered.
func (s *keys[K]) limiters() []*Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Limiter, len(s.expiry))
	for i, e := range s.expiry {
		all[i] = e.limiter
	}
	return all
}

// expire removes the keys that haven't been used for the time in which their bucket fills.
func (s *keys[K]) expire(now int64) {
	for len(s.expiry) > 0 {
		e := s.expiry[0]
		if e.check > now {
			return
		}
		unused := clock.Add(e.lastUsed, e.fills)
		switch {
		case unused > now: // it was used since check was set
			e.check = unused
		case e.removable(now):
			s.remove(e)
			continue
		default: // a call waits, or has waited and then taken its tokens
			e.check = clock.Add(now, e.fills)
		}
		heap.Fix(&s.expiry, 0)
	}
}

// sweep removes keys with a full bucket if there are too many keys. It examines a few of them, and
// goes on where the previous sweep ended.
func (s *keys[K]) sweep(now int64) {
	for range sweepStep {
		if len(s.entries) <= s.max {
			return
		}
		s.swept = (s.swept + 1) % len(s.expiry)
		if e := s.expiry[s.swept]; e.removable(now) {
			s.remove(e)
		}
	}
}

// removable reports whether a new entry would be the same: no call uses the entry, and its bucket
// is full.
func (e *keyEntry[K]) removable(now int64) bool {
	return e.users.Load() == 0 && e.limiter.bucket.Load().lack(now) == 0
}

func (s *keys[K]) remove(e *keyEntry[K]) {
	delete(s.entries, e.key)
	heap.Remove(&s.expiry, e.index)
}

// expiryHeap has the entry that is to be checked first at the top.
type expiryHeap[K comparable] []*keyEntry[K]

func (h expiryHeap[K]) Len() int           { return len(h) }
func (h expiryHeap[K]) Less(i, j int) bool { return h[i].check < h[j].check }

func (h expiryHeap[K]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *expiryHeap[K]) Push(x any) {
	e := x.(*keyEntry[K])
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *expiryHeap[K]) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
