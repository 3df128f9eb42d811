// Package fifo provides the queue in which callers wait for their turn: first come, first served,
// with immediate removal of a caller that gives up.
package fifo

// A Queue is a first-in, first-out queue of waiters. The zero Queue is empty. Its owner must guard
// it with a lock.
type Queue struct {
	first, last *Waiter
	length      int
}

// A Waiter is an element that is or was in a queue.
type Waiter struct {
	// Ready is closed by [Queue.Pop], or by the queue's owner when it sees fit.
	Ready chan struct{}

	// Weight is for the queue's owner, such as what the waiter waits for.
	Weight int

	prev, next *Waiter
	waits      bool // in the queue
}

// Push appends a new waiter.
func (q *Queue) Push() *Waiter {
	w := &Waiter{Ready: make(chan struct{}), prev: q.last, waits: true}
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
	q.length++
	return w
}

// First returns the waiter that came first, or nil if the queue is empty.
func (q *Queue) First() *Waiter { return q.first }

// Pop removes the first waiter and closes its Ready channel. It does nothing if the queue is empty.
func (q *Queue) Pop() {
	if w := q.first; w != nil {
		q.Remove(w)
		close(w.Ready)
	}
}

// Remove removes w from the queue and reports whether it was still there.
func (q *Queue) Remove(w *Waiter) bool {
	if !w.waits {
		return false
	}
	w.waits = false
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
	q.length--
	return true
}

// Ahead returns the total Weight of the waiters that came before w, which must be in the queue.
func (q *Queue) Ahead(w *Waiter) (weight int) {
	for w = w.prev; w != nil; w = w.prev {
		weight += w.Weight
	}
	return weight
}

// Len returns the number of waiters.
func (q *Queue) Len() int { return q.length }
