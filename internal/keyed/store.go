// Package keyed keeps a value for each key, made on first use, in a bounded store: policies for hosts, limiters for customers.
package keyed

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// A Store makes a value for a key when the key is first acquired and keeps it until the key has been idle for too long, or too many keys
// are there. A key is idle when every one that acquired it has released it; only idle keys fall away, so those in use may be
// more than Max. A Store is safe for concurrent use. It holds no goroutine and no timer: time is judged when a key is acquired.
type Store[K comparable, V any] struct {
	max       int           // keys that may stay when idle keys are among them
	idleAfter time.Duration // 0: no limit
	evicted   func(V)       // hears of what falls away before its time; nil if nobody cares

	mu      sync.Mutex // guards all of the following, and the fields of entries but for value
	entries map[K]*Entry[K, V]
	oldest  Entry[K, V] // the head of the ring of idle entries, the one that was idle longest first
}

// An Entry is a key in use and its value.
type Entry[K comparable, V any] struct {
	key  K
	made chan struct{} // closed when value is there, or when it could not be made
	gone bool          // no longer in the store

	// there is set just before made is closed. Asked first: made may be of a synctest bubble that has ended, and must not be touched from outside of it.
	there atomic.Bool

	value V // written before made is closed, by the one that put the entry into the store
	users int

	idleSince  int64 // on package clock
	prev, next *Entry[K, V]
}

// New gives a store for at most limit keys, each of which falls away when it was idle for idleAfter (0: it does not).
func New[K comparable, V any](limit int, idleAfter time.Duration) *Store[K, V] {
	s := &Store[K, V]{max: limit, idleAfter: idleAfter, entries: make(map[K]*Entry[K, V])}
	s.oldest.prev, s.oldest.next = &s.oldest, &s.oldest
	return s
}

// OnEvict has evicted called with each value that falls away for lack of room alone, before another value can be made for its key. It is called
// with the store's lock held, and must not use the store. OnEvict must be called before the store is used.
func (s *Store[K, V]) OnEvict(evicted func(V)) { s.evicted = evicted }

// Acquire gives the key's entry, whose value is made by make if the key is not there; callers that come meanwhile wait and
// share it. The caller must Release the entry. If make panics, or says with ok that there is no value, nothing is kept, the
// entry is nil, and callers that waited make the value themselves.
func (s *Store[K, V]) Acquire(key K, make func(K) (value V, ok bool)) *Entry[K, V] {
	for {
		e, maker := s.enter(key)
		if maker {
			return s.fill(e, make)
		}
		if !e.there.Load() {
			<-e.made
		}
		s.mu.Lock()
		gone := e.gone
		s.mu.Unlock()
		if !gone {
			return e
		}
	}
}

// enter gives the key's entry with one user more, and whether that one is to make the value.
func (s *Store[K, V]) enter(key K) (e *Entry[K, V], maker bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if e = s.entries[key]; e != nil {
		if e.users == 0 {
			e.unlink()
		}
		e.users++
		return e, false
	}
	e = &Entry[K, V]{key: key, made: make(chan struct{}), users: 1}
	s.entries[key] = e
	s.shrink()
	return e, true
}

func (s *Store[K, V]) fill(e *Entry[K, V], make func(K) (V, bool)) *Entry[K, V] {
	filled := false
	defer func() { // a panic of make too
		if !filled {
			s.mu.Lock()
			e.gone = true
			if s.entries[e.key] == e {
				delete(s.entries, e.key)
			}
			s.mu.Unlock()
		}
		e.there.Store(true)
		close(e.made)
	}()
	if e.value, filled = make(e.key); !filled {
		return nil
	}
	return e
}

// Value is the key's value.
func (e *Entry[K, V]) Value() V { return e.value }

// Release ends one use of the entry.
func (s *Store[K, V]) Release(e *Entry[K, V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(e)
}

// ReleaseUnneeded ends one use of the entry. If it was the last, and unneeded says so of the value, the key falls away at once.
func (s *Store[K, V]) ReleaseUnneeded(e *Entry[K, V], unneeded func(V) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.users == 1 && s.entries[e.key] == e && unneeded(e.value) {
		delete(s.entries, e.key)
	}
	s.release(e) // under the same lock: of two that end at a time, one is the last
}

func (s *Store[K, V]) release(e *Entry[K, V]) {
	if e.users--; e.users > 0 || s.entries[e.key] != e {
		return
	}
	e.idleSince = clock.Now()
	last := s.oldest.prev
	e.prev, e.next = last, &s.oldest
	last.next, s.oldest.prev = e, e
	s.shrink()
}

// Look gives the value of a key that is there, without using it.
func (s *Store[K, V]) Look(key K) (value V, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	e := s.entries[key]
	if e == nil {
		return value, false
	}
	if !e.there.Load() {
		return value, false
	}
	return e.value, true
}

// Forget lets the key fall away. Those that use it keep the value that they have.
func (s *Store[K, V]) Forget(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		s.remove(e)
	}
}

// Len is how many keys are there, those that have been idle for too long not among them.
func (s *Store[K, V]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return len(s.entries)
}

// expire removes what was idle for too long.
func (s *Store[K, V]) expire() {
	if s.idleAfter == 0 || s.oldest.next == &s.oldest {
		return
	}
	for now := clock.Now(); ; {
		e := s.oldest.next
		if e == &s.oldest || time.Duration(now-e.idleSince) < s.idleAfter {
			return
		}
		s.remove(e)
	}
}

// shrink removes idle entries, the one that was idle longest first, while there are too many.
func (s *Store[K, V]) shrink() {
	for len(s.entries) > s.max && s.oldest.next != &s.oldest {
		e := s.oldest.next
		s.remove(e)
		if s.evicted != nil {
			s.evicted(e.value)
		}
	}
}

func (s *Store[K, V]) remove(e *Entry[K, V]) {
	if e.users == 0 {
		e.unlink()
	}
	delete(s.entries, e.key)
}

func (e *Entry[K, V]) unlink() {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}
