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
// A Store is safe for concurrent use. It holds no goroutine and no timer: it removes expired keys
// when it is used.
type Store[K comparable, V any] struct {
	max       int           // number of keys above which idle keys are evicted
	idleAfter time.Duration // 0: no limit
	evicted   func(V)       // called with values that are evicted for lack of room; may be nil

	mu      sync.Mutex // guards the following, and all fields of entries except value
	entries map[K]*Entry[K, V]
	oldest  Entry[K, V] // head of the ring of idle entries, the longest idle first
}

// An Entry is a key in use and its value.
type Entry[K comparable, V any] struct {
	key  K
	made chan struct{} // closed when value is ready, or when it could not be created
	gone bool          // the value could not be created

	// ready is set just before made is closed. It is checked first, because made may belong to a
	// synctest bubble that has ended, and must not be used outside that bubble.
	ready atomic.Bool

	value V // written before made is closed, by the caller that added the entry to the store
	users int

	idleSince  int64 // by package clock
	prev, next *Entry[K, V]
}

// New creates a Store for at most limit keys. A key is removed when it has been idle for idleAfter;
// if that is 0, keys don't expire.
func New[K comparable, V any](limit int, idleAfter time.Duration) *Store[K, V] {
	s := &Store[K, V]{max: limit, idleAfter: idleAfter, entries: make(map[K]*Entry[K, V])}
	s.oldest.prev, s.oldest.next = &s.oldest, &s.oldest
	return s
}

// OnEvict registers a function that is called with each value that is evicted for lack of room, and
// for no other reason, before another value can be created for its key. The function is called with
// the store's lock held and must not use the store. OnEvict must be called before the store is
// used.
func (s *Store[K, V]) OnEvict(evicted func(V)) { s.evicted = evicted }

// Acquire returns the key's entry. If there is none, it calls make to create the value; callers
// that arrive meanwhile wait and share it. The caller must Release the entry.
//
// If make panics or returns false, the store keeps nothing: Acquire returns nil (or panics), and
// callers that waited create the value themselves.
func (s *Store[K, V]) Acquire(key K, make func(K) (value V, ok bool)) *Entry[K, V] {
	for {
		e, maker := s.enter(key)
		if maker {
			return s.fill(e, make)
		}
		if !e.ready.Load() {
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

// enter adds a user to the key's entry, and reports whether that user must create the value.
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
	if e.users--; e.users > 0 || s.entries[e.key] != e {
		return
	}
	e.idleSince = clock.Now()
	last := s.oldest.prev
	e.prev, e.next = last, &s.oldest
	last.next, s.oldest.prev = e, e
	s.shrink()
}

// Look returns the value of a key without using it. ok is false if the key isn't in the store or
// its value is still being created.
func (s *Store[K, V]) Look(key K) (value V, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	e := s.entries[key]
	if e == nil {
		return value, false
	}
	if !e.ready.Load() {
		return value, false
	}
	return e.value, true
}

// Forget removes the key. Its current users keep the value that they have.
func (s *Store[K, V]) Forget(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		s.remove(e)
	}
}

// Len returns the number of keys, without those that have been idle for too long.
func (s *Store[K, V]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return len(s.entries)
}

// expire removes the keys that have been idle for too long.
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

// shrink evicts idle entries, the longest idle first, while there are too many entries.
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
