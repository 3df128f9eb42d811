// Package keyed provides a bounded store with one value per key, created on first use: for example
// policies for hosts, or limiters for customers.
package keyed

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// A Store creates a value for a key when the key is first acquired. It removes the key when it has
// been idle for too long, or when there are too many keys.
//
// A key is idle if each of its users has released it. Only idle keys are removed, so there may be
// more keys than the limit while they are in use.
//
// Values can be kept: see [Store.KeepIf].
//
// A Store is safe for concurrent use. It holds no goroutine and no timer: it removes expired keys
// when it is used.
type Store[K comparable, V any] struct {
	max       int           // number of keys above which idle keys are evicted
	idleAfter time.Duration // 0: no limit

	keep    func(V) (keep bool, since int64) // see KeepIf; may be nil
	removed func(K, V)                       // see OnRemove; may be nil

	mu      sync.Mutex // guards the following, and all fields of entries except value and gone
	entries map[K]*Entry[K, V]
	oldest  Entry[K, V]    // head of the ring of idle entries, the longest idle first
	kept    Entry[K, V]    // head of the ring of idle entries that keep reported, the first one reported first
	nkept   int            // number of entries in kept
	placed  *Entry[K, V]   // an entry of the ring of oldest, or its head: see place
	dropped []*Entry[K, V] // removed, but not yet reported: see report
}

// An Entry is a key in use and its value.
type Entry[K comparable, V any] struct {
	key  K
	made chan struct{} // closed when value is ready, or when it could not be created

	// ready is set just before made is closed. It is checked first, because made may belong to a
	// synctest bubble that has ended, and must not be used outside that bubble.
	ready atomic.Bool

	// Written before made is closed, by the caller that added the entry to the store.
	value V
	gone  bool // the value could not be created

	users int

	idleSince  int64 // by package clock; of a kept entry: when it was last inspected
	isKept     bool  // of an idle entry: it is in the ring of kept
	inspected  bool  // keep is running for it
	prev, next *Entry[K, V]
}

// New creates a Store for at most limit keys. A key is removed when it has been idle for idleAfter;
// if that is 0, keys don't expire.
func New[K comparable, V any](limit int, idleAfter time.Duration) *Store[K, V] {
	s := &Store[K, V]{max: limit, idleAfter: idleAfter, entries: make(map[K]*Entry[K, V])}
	s.oldest.prev, s.oldest.next = &s.oldest, &s.oldest
	s.kept.prev, s.kept.next = &s.kept, &s.kept
	s.placed = &s.oldest
	return s
}

// KeepIf registers a function that reports whether an idle value must be kept, and if not, since
// when it need not be (by package clock; 0 if unknown). A kept value doesn't expire, and its idle
// time counts from when it need no longer be kept. If there are too many keys, other idle values are
// evicted first. Of more kept values than the limit, those that were kept longest are evicted.
//
// The function is called without the store's lock. KeepIf must be called before the store is used.
func (s *Store[K, V]) KeepIf(keep func(value V) (keep bool, since int64)) { s.keep = keep }

// OnRemove registers a function that is called after a key has expired or was evicted for lack of
// room. It is called without the store's lock, and by no caller that is still creating a key, so it
// may use the store. OnRemove must be called before the store is used.
func (s *Store[K, V]) OnRemove(removed func(key K, value V)) { s.removed = removed }

// Acquire returns the key's entry. If there is none, it calls make to create the value; callers
// that arrive meanwhile wait and share it. The caller must Release the entry.
//
// If make panics or returns false, the store keeps nothing: Acquire returns nil (or panics), and
// callers that waited create the value themselves.
func (s *Store[K, V]) Acquire(key K, make func(K) (value V, ok bool)) *Entry[K, V] {
	for {
		e, maker := s.enter(key)
		if maker {
			if e = s.fill(e, make); e != nil {
				s.makeRoom(e)
			}
			return e
		}
		if !e.ready.Load() {
			<-e.made
		}
		if !e.gone {
			return e
		}
	}
}

// enter adds a user to the key's entry, and reports whether that user must create the value.
func (s *Store[K, V]) enter(key K) (e *Entry[K, V], maker bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if e = s.entries[key]; e != nil {
		s.use(e)
		return e, false
	}
	e = &Entry[K, V]{key: key, made: make(chan struct{}), users: 1}
	s.entries[key] = e
	return e, true
}

// makeRoom evicts idle entries in place of e. It is called once others can use e, because keep and
// removed may use the store. If one of them panics, makeRoom releases e.
func (s *Store[K, V]) makeRoom(e *Entry[K, V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	returned := false
	defer func() {
		if !returned {
			s.leave(e)
		}
	}()
	s.shrink()
	returned = true
}

// use adds a user to the entry.
func (s *Store[K, V]) use(e *Entry[K, V]) {
	if e.users == 0 {
		s.unlink(e)
	}
	e.users++
}

func (s *Store[K, V]) fill(e *Entry[K, V], make func(K) (V, bool)) *Entry[K, V] {
	filled := false
	defer func() { // deferred for a panic of make
		if !filled {
			s.mu.Lock()
			e.gone = true
			if s.entries[e.key] == e {
				delete(s.entries, e.key)
			}
			s.mu.Unlock()
		}
		e.ready.Store(true)
		close(e.made)
	}()
	if e.value, filled = make(e.key); !filled {
		return nil
	}
	return e
}

// Value returns the key's value.
func (e *Entry[K, V]) Value() V { return e.value }

// Release ends one use of the entry.
func (s *Store[K, V]) Release(e *Entry[K, V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(e)
}

// ReleaseUnneeded ends one use of the entry. If it was the last use and unneeded returns true for
// the value, the key is removed immediately.
func (s *Store[K, V]) ReleaseUnneeded(e *Entry[K, V], unneeded func(V) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.users == 1 && s.entries[e.key] == e && unneeded(e.value) {
		delete(s.entries, e.key)
	}
	s.release(e) // under the same lock, so that one of several concurrent releases is the last
}

func (s *Store[K, V]) release(e *Entry[K, V]) {
	if s.leave(e) {
		s.shrink()
	}
}

// leave removes a user from the entry, and reports whether the entry is now idle.
func (s *Store[K, V]) leave(e *Entry[K, V]) (idle bool) {
	e.users--
	last := e.users == 0 && s.entries[e.key] == e
	if last || e.inspected { // the idle time of an inspected entry counts from here too
		e.idleSince = clock.Now()
	}
	if last {
		s.link(e, &s.oldest, s.oldest.prev)
	}
	return last
}

// Look returns the value of a key without using it. ok is false if the key isn't in the store or
// its value is still being created.
func (s *Store[K, V]) Look(key K) (value V, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if e := s.entries[key]; e != nil && e.ready.Load() {
		value, ok = e.value, true
	}
	return value, ok
}

// Forget removes the key. Its current users keep the value that they have.
func (s *Store[K, V]) Forget(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		s.remove(e)
	}
}

// All returns the keys and their values at this time, without those that are still being created.
func (s *Store[K, V]) All() map[K]V {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	all := make(map[K]V, len(s.entries))
	for key, e := range s.entries {
		if e.ready.Load() {
			all[key] = e.value
		}
	}
	return all
}

// Len returns the number of keys, without those that have been idle for too long.
func (s *Store[K, V]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return len(s.entries)
}

// expire removes the keys that have been idle for too long. It may unlock mu in between.
func (s *Store[K, V]) expire() {
	if s.idleAfter == 0 || s.oldest.next == &s.oldest && s.kept.next == &s.kept {
		return
	}
	now := clock.Now()
	overdue := func(e *Entry[K, V]) bool { return time.Duration(now-e.idleSince) >= s.idleAfter }
	for e := s.kept.next; e != &s.kept && overdue(e); e = s.kept.next {
		s.inspect(e)
	}
	for e := s.oldest.next; e != &s.oldest && overdue(e); e = s.oldest.next {
		if s.inspect(e) && overdue(e) {
			s.drop(e)
		}
	}
	s.report()
}

// shrink evicts idle entries, the longest idle first, while there are too many entries. It may
// unlock mu in between.
func (s *Store[K, V]) shrink() {
	for len(s.entries) > s.max {
		e := s.oldest.next
		if e == &s.oldest {
			if s.nkept <= s.max {
				break // keys that are in use will make room
			}
			e = s.kept.next
		} else if !s.inspect(e) || len(s.entries) <= s.max {
			continue
		}
		s.drop(e)
	}
	s.report()
}

// inspect moves an idle entry to the ring where it belongs, and reports whether it may be removed:
// whether its value need not be kept, and it is still idle. It unlocks mu while it calls keep. In
// the meantime, the entry has a user, so it stays.
func (s *Store[K, V]) inspect(e *Entry[K, V]) bool {
	if s.keep == nil {
		return true
	}
	wasKept := e.isKept
	keep, since := s.ask(e)
	if e.users--; e.users > 0 || s.entries[e.key] != e {
		return false
	}
	if keep || wasKept && since == 0 {
		since = clock.Now()
	}
	e.idleSince = max(e.idleSince, since)
	if keep {
		s.link(e, &s.kept, s.kept.prev)
		return false
	}
	s.link(e, &s.oldest, s.place(e))
	return true
}

// place returns the entry of the ring of oldest after which e belongs: first among its equals, as it was.
// If e isn't the first of all, place searches from where it placed the last one: keys that recover
// together are inspected together.
func (s *Store[K, V]) place(e *Entry[K, V]) (prev *Entry[K, V]) {
	after := func(other *Entry[K, V]) bool { return other != &s.oldest && other.idleSince < e.idleSince }
	if !after(s.oldest.next) {
		return &s.oldest
	}
	prev = s.placed
	for prev != &s.oldest && !after(prev) {
		prev = prev.prev
	}
	for after(prev.next) {
		prev = prev.next
	}
	s.placed = e
	return prev
}

// ask calls keep without mu.
func (s *Store[K, V]) ask(e *Entry[K, V]) (keep bool, since int64) {
	s.use(e)
	e.inspected = true
	s.mu.Unlock()
	returned := false
	defer func() {
		s.mu.Lock()
		e.inspected = false
		if !returned { // keep panics
			s.leave(e)
		}
	}()
	keep, since = s.keep(e.value)
	returned = true
	return keep, since
}

// drop removes an idle entry, and has it reported.
func (s *Store[K, V]) drop(e *Entry[K, V]) {
	s.remove(e)
	if s.removed != nil {
		s.dropped = append(s.dropped, e)
	}
}

// report calls removed for the dropped entries, without mu. It takes all of them first, so that a call
// of removed that uses the store finds nothing left to report, however many there are.
func (s *Store[K, V]) report() {
	dropped := s.dropped
	if dropped == nil {
		return
	}
	s.dropped = nil
	s.mu.Unlock()
	defer s.mu.Lock()
	for _, e := range dropped {
		s.removed(e.key, e.value)
	}
}

func (s *Store[K, V]) remove(e *Entry[K, V]) {
	if e.users == 0 {
		s.unlink(e)
	}
	delete(s.entries, e.key)
}

// link adds an idle entry to the ring of head, after prev. Each ring is in the order of idleSince.
func (s *Store[K, V]) link(e, head, prev *Entry[K, V]) {
	if e.isKept = head == &s.kept; e.isKept {
		s.nkept++
	}
	e.prev, e.next = prev, prev.next
	prev.next.prev, prev.next = e, e
}

// unlink removes an idle entry from its ring.
func (s *Store[K, V]) unlink(e *Entry[K, V]) {
	if s.placed == e {
		s.placed = e.prev
	}
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
	if e.isKept {
		s.nkept--
	}
}
