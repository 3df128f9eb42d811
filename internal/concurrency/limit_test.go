package concurrency

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestEpochOrderWrapsAround checks the order of epochs, of which there are no more than 2^20.
func TestEpochOrderWrapsAround(t *testing.T) {
	const all = 1 << epochBits
	for _, c := range []struct {
		epoch, other uint32
		want         bool
	}{{0, 0, true}, {1, 0, true}, {0, 1, false}, {0, all - 1, true}, {all - 1, 0, false}, {all/2 - 1, 0, true}, {all / 2, 0, false}} {
		if got := atLeast(c.epoch, c.other); got != c.want {
			t.Errorf("atLeast(%d, %d): got %v, want %v", c.epoch, c.other, got, c.want)
		}
	}
	l := NewAIMD(10, 1, 100)
	l.word.Store(l.word.Load() | (all-1)<<epochShift)
	l.epoch = all - 1
	if !l.set(11) || l.admits.Load() != 11 || running(l.word.Load()) != 0 || epoch(l.word.Load()) != 0 {
		t.Errorf("got the word %x after the last epoch, want a limit of 11 in epoch 0", l.word.Load())
	}
	if l.set(11) {
		t.Error("set reports a change to the same limit")
	}
}

// TestLimitHoldsItsMaximum checks that MaxLimit fits into the word together with as many calls.
func TestLimitHoldsItsMaximum(t *testing.T) {
	l := NewQueue(MaxLimit, 1, MaxLimit)
	passes := 0
	for {
		if _, ok := l.Enter(Highest); !ok {
			break
		}
		passes++
	}
	if passes != MaxLimit || l.Running() != MaxLimit || l.Limit() != MaxLimit || epoch(l.word.Load()) != 0 {
		t.Errorf("got %d calls, %d running of %d, in epoch %d; want %d in epoch 0", passes, l.Running(), l.Limit(), epoch(l.word.Load()), MaxLimit)
	}
	l.Leave(Pass{}, time.Second, Ignored)
	if l.Running() != MaxLimit-1 {
		t.Errorf("got %d running, want %d", l.Running(), MaxLimit-1)
	}
}

// TestLimitCountsEveryCallWhileItChanges runs on more threads than there are processors, so that
// the system interrupts each at any of its instructions.
func TestLimitCountsEveryCallWhileItChanges(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * runtime.NumCPU()))
	l := NewAIMD(1000, 1, MaxLimit)
	var g errgroup.Group
	var callers atomic.Int32
	for range 3 {
		callers.Add(1)
		g.Go(func() error {
			defer callers.Add(-1)
			for range 1_000_000 {
				if p, ok := l.Enter(Highest); ok {
					l.Leave(p, 1, Ignored)
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		for n := 0; callers.Load() > 0; n++ {
			l.lock()
			l.set(1000 + n%2)
			l.unlock()
		}
		return nil
	})
	g.Wait()
	if l.Running() != 0 {
		t.Errorf("%d running after all have left", l.Running())
	}
}

// TestQueueCountsEveryCohortMember runs on several threads: once all calls have left, the books
// of the open cohort must be exact, or rounds would end early or never.
func TestQueueCountsEveryCohortMember(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * runtime.NumCPU()))
	l := NewQueue(1000, 1, MaxLimit)
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			for n := range 200_000 {
				if p, ok := l.Enter(Highest); ok {
					l.Leave(p, time.Duration(1+n%7), Sample)
				}
			}
			return nil
		})
	}
	g.Wait()
	q := l.law.(*queue)
	if l.Running() != 0 || q.open.older != 0 || q.closing.running != 0 {
		t.Errorf("got %d running, %d of them from before the round, %d in the last one; want 0", l.Running(), q.open.older, q.closing.running)
	}
	if epoch(l.word.Load()) < 20 {
		t.Errorf("got %d rounds, want at least 20", epoch(l.word.Load()))
	}
}

// TestLimitSetBoundsEndsDrainBelowMin checks that a drain admits no less than the new minimum, and
// that bounds that change nothing don't disturb a round.
func TestLimitSetBoundsEndsDrainBelowMin(t *testing.T) {
	l, q := newSteadyQueue(100)
	q.beginDrain(l, 100)
	before := l.word.Load()
	l.SetBounds(50, 100)
	if l.word.Load() != before || !q.open.drain {
		t.Error("bounds around the limit and the drain disturbed it")
	}
	l.SetBounds(51, 100)
	if l.admits.Load() != 100 || l.Limit() != 100 || l.RoundTrip() != unqueued {
		t.Errorf("%d admitted, limit %d, round trip %v; want 100, 100, %v", l.admits.Load(), l.Limit(), l.RoundTrip(), unqueued)
	}
}

// TestLimitCountsEveryCallAfterItsLawChanged checks that calls of before are known to the new law.
func TestLimitCountsEveryCallAfterItsLawChanged(t *testing.T) {
	l := NewAIMD(20, 1, 1000)
	before := occupy(l, 15)
	l.UseQueue()
	q := l.law.(*queue)
	if q.open.older != 15 || !q.open.active || q.open.epoch != epoch(l.word.Load()) || q.open.need != 20 {
		t.Errorf("a round with %d older calls that needs %d begins, want 15 and 20", q.open.older, q.open.need)
	}
	leave(l, before, time.Hour, Sample)
	if q.open.older != 0 || q.open.ended != 0 || l.Running() != 0 {
		t.Errorf("%d older calls, %d ended, %d running, want none", q.open.older, q.open.ended, l.Running())
	}
	call(l, 40, unqueued, Sample)
	if l.RoundTrip() != unqueued {
		t.Errorf("round trip %v, want %v", l.RoundTrip(), unqueued)
	}
}

// TestAIMDCountsDropsInAnyEpoch checks the first drop after many rounds of another law.
func TestAIMDCountsDropsInAnyEpoch(t *testing.T) {
	for _, epoch := range []uint32{0, 1, 1<<(epochBits-1) - 1, 1 << (epochBits - 1), 1<<epochBits - 1} {
		l := NewQueue(20, 1, 1000)
		l.word.Store(uint64(epoch) << epochShift)
		passes := occupy(l, 2)
		l.UseAIMD()
		leave(l, passes, unqueued, Drop)
		if l.Limit() != 18 {
			t.Errorf("epoch %d: limit %d after the drops of two concurrent calls, want 18", epoch, l.Limit())
		}
	}
}
