package fifo

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestQueueMatchesList compares a queue with a slice, for a random order of pushes, pops, and
// removals.
func TestQueueMatchesList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q Queue
	var list, all []*Waiter
	for range 10_000 {
		switch n := random.IntN(4); {
		case n < 2:
			w := q.Push()
			list, all = append(list, w), append(all, w)
		case n == 2:
			var popped *Waiter
			if len(list) > 0 {
				popped, list = list[0], list[1:]
			}
			q.Pop()
			if popped != nil {
				<-popped.Ready
			}
		default:
			if len(all) == 0 {
				continue
			}
			w := all[random.IntN(len(all))]
			i := slices.Index(list, w)
			if q.Remove(w) != (i >= 0) {
				t.Fatalf("got Remove %t, want %t", i < 0, i >= 0)
			}
			if i >= 0 {
				list = slices.Delete(list, i, i+1)
			}
		}
		var first *Waiter
		if len(list) > 0 {
			first = list[0]
		}
		if q.Len() != len(list) || q.First() != first {
			t.Fatalf("got %d waiters or another first one, want %d", q.Len(), len(list))
		}
	}
	n := 0
	for w := q.First(); w != nil; w = w.next {
		if w != list[n] {
			t.Fatalf("got another order from waiter %d on", n)
		}
		n++
	}
}

func TestQueueAheadSumsWeightsBefore(t *testing.T) {
	var q Queue
	var waiters []*Waiter
	for weight := 1; weight <= 4; weight++ {
		w := q.Push()
		w.Weight = weight
		waiters = append(waiters, w)
	}
	q.Remove(waiters[1])
	for i, want := range map[int]int{0: 0, 2: 1, 3: 4} {
		if got := q.Ahead(waiters[i]); got != want {
			t.Errorf("waiter %d: got a weight of %d ahead, want %d", i, got, want)
		}
	}
}
