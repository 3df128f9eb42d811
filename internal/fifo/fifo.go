// Package fifo is the queue in which callers wait for their turn: first come, first served, and whoever gives up leaves at once.
package fifo

// A Queue is a line of waiters. The zero Queue is empty. It must be guarded by a lock of its owner's.
type Queue struct {
	first, last *Waiter
	length      int
}

// A Waiter is one who stands in a queue, or has stood in it.
type Waiter struct {
	// Ready is closed by [Queue.Pop], or by the owner of the queue as it needs.
	Ready chan struct{}

	prev, next *Waiter
	waits      bool
}

// Push puts a new waiter at the end.
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

// First is who came first of those who wait; nil if nobody waits.
func (q *Queue) First() *Waiter { return q.first }

// Pop takes the first one out of the queue and tells it so. It does nothing if nobody waits.
func (q *Queue) Pop() {
	if w := q.first; w != nil {
		q.Remove(w)
		close(w.Ready)
	}
}

// Remove takes w out of the queue, and reports whether it was still there.
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

// Len is how many wait.
func (q *Queue) Len() int { return q.length }
