package concurrency

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
)

// newFar returns a limit whose round is far from its end, so that calls leave their places in
// stripes, and the index of a stripe that is not that of the test's goroutine.
func newFar(t *testing.T, newLimit func(initial, least, most int) *Limit) (l *Limit, other uint32) {
	t.Helper()
	l = newLimit(1000, 1, 1000)
	if !l.far {
		t.Fatal("a round of 1,000 calls is not far from its end")
	}
	p := occupy(l, 1)[0]
	l.Leave(p, unqueued, Ignored)
	return l, p.stripe ^ 1
}

// leavePlaces makes n calls, each in every other stripe, starting with first.
func leavePlaces(l *Limit, first uint32, n int) {
	passes := occupy(l, n)
	for i := range passes {
		passes[i].stripe = (first + 2*uint32(i)) % uint32(len(l.stripes))
	}
	leave(l, passes, unqueued, Sample)
}

func wasRefused(l *Limit) bool { return l.state.Load()&refused != 0 }

func places(l *Limit) (n int) {
	for i := range l.stripes {
		if l.stripes[i].place.Load() != 0 {
			n++
		}
	}
	return n
}

func TestLimitLeavesPlaceForNextCall(t *testing.T) {
	for name, law := range map[string]func(initial, least, most int) *Limit{"queue": NewQueue, "AIMD": NewAIMD} {
		l, _ := newFar(t, law)
		call(l, 1, unqueued, Sample)
		word := l.word.Load()
		if running(word) != 1 || l.Running() != 0 {
			t.Errorf("%s: %d places taken, %d running, want a place for no running call", name, running(word), l.Running())
		}
		p := occupy(l, 1)
		if l.word.Load() != word || l.Running() != 1 {
			t.Errorf("%s: the next call took a place in the word, or %d run, want 1", name, l.Running())
		}
		leave(l, p, unqueued, Ignored)
		if running(l.word.Load()) != 0 || l.Running() != 0 {
			t.Errorf("%s: %d places taken, %d running, want none", name, running(l.word.Load()), l.Running())
		}
	}
}

// TestLimitAdmitsAsIfStripesHadNoPlaces checks that a place in another stripe counts neither as a
// running call nor for the peak, whatever the priority.
func TestLimitAdmitsAsIfStripesHadNoPlaces(t *testing.T) {
	for priority := range Highest + 1 {
		l, other := newFar(t, NewQueue)
		leavePlaces(l, other, 2)
		if places(l) != 2 || l.Running() != 0 || l.peak.Load() != 2 {
			t.Fatalf("got %d places, %d running, a peak of %d, want 2, 0, 2", places(l), l.Running(), l.peak.Load())
		}
		want := 1000 * (6 + priority) / 10
		for n := range want {
			if _, ok := l.Enter(priority); !ok {
				t.Fatalf("priority %d: call %d was refused, want %d", priority, n+1, want)
			}
			if calls := running(l.word.Load()); calls != n+1 {
				t.Fatalf("priority %d: %d places are taken by %d calls", priority, calls, n+1)
			}
		}
		if wasRefused(l) {
			t.Errorf("priority %d: refused is set, but no call was refused", priority)
		}
		if _, ok := l.Enter(priority); ok || l.Running() != want || !wasRefused(l) {
			t.Errorf("priority %d: admitted %v, %d running, want a refusal with %d", priority, ok, l.Running(), want)
		}
	}
}

// TestLimitTakesPlacesBeforeItRefuses has calls run up to the limit, end, and begin again: the peak
// doesn't rise then, and it isn't the peak that makes places available.
func TestLimitTakesPlacesBeforeItRefuses(t *testing.T) {
	l, other := newFar(t, NewQueue)
	l.law.(*queue).next = 100_000
	passes := occupy(l, 1000)
	for i := range passes[:3] {
		passes[i].stripe = (other + uint32(i)) % uint32(len(l.stripes))
	}
	leave(l, passes[:3], unqueued, Sample)
	if places(l) != 3 {
		t.Fatalf("got %d places, want 3", places(l))
	}
	occupy(l, 3)
	if wasRefused(l) || places(l) != 0 || l.Running() != 1000 {
		t.Errorf("refused %v, %d places, %d running, want no refusal, 0, 1000", wasRefused(l), places(l), l.Running())
	}

	if _, ok := l.Enter(Highest); ok {
		t.Fatal("a call above the limit was admitted")
	}
	leave(l, passes[3:6], unqueued, Sample)
	if places(l) != 0 || l.Running() != 997 {
		t.Errorf("after a refusal, %d places were left and %d run, want 0 and 997", places(l), l.Running())
	}
}

// TestLimitLeavesNoPlacesAfterRefusal has a call refused while no stripe has a place.
func TestLimitLeavesNoPlacesAfterRefusal(t *testing.T) {
	l, _ := newFar(t, NewQueue)
	l.law.(*queue).next = 100_000
	passes := occupy(l, 1000)
	if _, ok := l.Enter(Highest); ok || !wasRefused(l) {
		t.Fatalf("admitted %v above the limit, refused %v", ok, wasRefused(l))
	}
	leave(l, passes[:3], unqueued, Sample)
	if places(l) != 0 || l.Running() != 997 {
		t.Errorf("after a refusal, %d places were left and %d run, want 0 and 997", places(l), l.Running())
	}
}

// TestLimitPlaceIsForAdmittedCallsOnly checks that a low priority can't take the place in its
// stripe if it isn't admitted, and that a higher one can.
func TestLimitPlaceIsForAdmittedCallsOnly(t *testing.T) {
	l, _ := newFar(t, NewQueue)
	passes := occupy(l, 601)
	leave(l, passes[:1], unqueued, Sample)
	if places(l) != 1 {
		t.Fatalf("got %d places, want 1", places(l))
	}
	if _, ok := l.Enter(0); ok {
		t.Error("a call of the lowest priority was admitted while 600 of 1,000 run")
	}
	if _, ok := l.Enter(1); !ok {
		t.Error("a call of higher priority was refused while 600 of 1,000 run")
	}
}

// TestLimitEndsEpochWithoutPlaces checks that a place of one epoch isn't used in the next one, and
// that what the stripes kept is known to the round.
func TestLimitEndsEpochWithoutPlaces(t *testing.T) {
	l, other := newFar(t, NewQueue)
	q := l.law.(*queue)
	leavePlaces(l, other, 3)
	l.lock()
	if ended := q.open.ended; ended != 4 || left(l.word.Load()) != 4 || running(l.word.Load()) != 0 || places(l) != 0 {
		t.Errorf("%d calls have ended, %d have left the word, %d taken, %d places; want 4, 4, 0, 0", ended, left(l.word.Load()), running(l.word.Load()), places(l))
	}
	occupy(l, 2)
	before := l.epoch
	l.set(900)
	if peak := l.peak.Load(); peak != 2 {
		t.Errorf("peak %d at the beginning of an epoch, want the 2 calls that run", peak)
	}
	l.unlock()
	if p := occupy(l, 1)[0]; p.epoch != before+1 {
		t.Errorf("a call has the epoch %d, want %d", p.epoch, before+1)
	}
}

// TestLimitCollectsFullStripes checks a stripe that is full, and that it lags only once.
func TestLimitCollectsFullStripes(t *testing.T) {
	l, other := newFar(t, NewQueue)
	s, q := &l.stripes[other], l.law.(*queue)
	size := len(s.took)
	for range size {
		leavePlaces(l, other, 1)
	}
	if s.n != size || q.open.ended != 1 || l.lagging.Load() != 1 {
		t.Errorf("%d times in the stripe, %d calls known, %d stripes lag; want %d, 1, 1", s.n, q.open.ended, l.lagging.Load(), size)
	}
	leavePlaces(l, other, 1)
	if s.n != 0 || q.open.ended != size+2 {
		t.Errorf("%d times in the stripe, %d calls known; want 0, %d", s.n, q.open.ended, size+2)
	}
	l.lock()
	l.unlock()
	if l.lagging.Load() != 0 {
		t.Errorf("%d stripes lag once all were collected, want none", l.lagging.Load())
	}
}

// TestLimitIsFarFromTheEndOfLongRounds checks whether calls leave their places in stripes.
func TestLimitIsFarFromTheEndOfLongRounds(t *testing.T) {
	l := NewQueue(20, 1, 1000)
	if l.far {
		t.Error("a round of 20 calls is far from its end")
	}
	l.lock()
	l.law.(*queue).next = 1000
	l.unlock()
	if !l.far {
		t.Error("a round of 1,000 calls isn't far from its end")
	}
}

// TestQueueRoundIsExactWithPlaces checks that a round whose calls leave their places in stripes ends
// with exactly the call that it ended with if they didn't.
func TestQueueRoundIsExactWithPlaces(t *testing.T) {
	l, _ := newFar(t, NewQueue) // has ended one call
	q := l.law.(*queue)
	random := rand.New(rand.NewPCG(1, 1))
	var passes []Pass
	began, kept := 1, 0
	for !q.closing.active {
		if began > 1000 {
			t.Fatal("the round of 1,000 calls goes on after them")
		}
		if len(passes) < 1+random.IntN(20) {
			passes = append(passes, occupy(l, 1)...)
			began++
			continue
		}
		p := passes[0]
		p.stripe = random.Uint32N(uint32(len(l.stripes)))
		passes = passes[1:]
		l.Leave(p, unqueued, Sample)
		kept += places(l)
	}
	if began != 1000 || kept == 0 {
		t.Errorf("the round ended after %d calls, with %d places seen; want 1000, and some", began, kept)
	}
	if q.closing.ended+q.closing.running != 1000 || q.closing.running != len(passes) {
		t.Errorf("the round has %d ended and %d running calls, want %d running of 1000", q.closing.ended, q.closing.running, len(passes))
	}
}

// TestLimitHoldsUnderContention runs on more threads than there are processors: never more than
// the limit run, the counts agree at any time, and all of the limit can be used when the others have
// ended.
func TestLimitHoldsUnderContention(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * runtime.NumCPU()))
	const limit = 100
	for name, law := range map[string]func(initial, least, most int) *Limit{"queue": NewQueue, "AIMD": NewAIMD} {
		l := law(limit, limit, limit)
		var now, most, callers atomic.Int64
		var g errgroup.Group
		for range 8 {
			callers.Add(1)
			g.Go(func() error {
				defer callers.Add(-1)
				var passes []Pass
				for n := range 50_000 {
					if p, ok := l.Enter(Highest); ok {
						passes = append(passes, p)
						if calls := now.Add(1); calls > most.Load() {
							most.Store(calls)
						}
					}
					for len(passes) > n/1000%30 {
						now.Add(-1)
						l.Leave(passes[0], time.Duration(n), Sample)
						passes = passes[1:]
					}
				}
				now.Add(int64(-len(passes)))
				leave(l, passes, time.Second, Sample)
				return nil
			})
		}
		g.Go(func() error {
			for callers.Load() > 0 {
				l.lock()
				word := l.word.Load()
				if q, ok := l.law.(*queue); ok && left(word) != q.open.ended+q.ran-q.open.older {
					t.Errorf("%d calls have left, but %d that began in the epoch and %d that began before", left(word), q.open.ended, q.ran-q.open.older)
				}
				if epoch(word) != l.epoch || places(l) != 0 {
					t.Errorf("epoch %d, %d places, want %d and 0", l.epoch, places(l), epoch(word))
				}
				l.unlock()
				runtime.Gosched()
			}
			return nil
		})
		g.Wait()
		if most.Load() > limit || most.Load() < limit/10 {
			t.Errorf("%s: up to %d calls ran, want at most %d, and a tenth of it", name, most.Load(), limit)
		}
		if l.Running() != 0 {
			t.Errorf("%s: %d running, want none", name, l.Running())
		}
		admitted := 0
		for range limit {
			var done sync.WaitGroup
			done.Go(func() { // on its own stack
				if _, ok := l.Enter(Highest); ok {
					admitted++
				}
			})
			done.Wait()
		}
		if want := int(l.admits.Load()); admitted != want {
			t.Errorf("%s: %d calls admitted, want %d", name, admitted, want)
		}
	}
}

// TestLimitRefusesNoneOfConcurrentCallsThatFit has several calls look for the places in stripes at
// once: what one of them gives back must be there for the others.
func TestLimitRefusesNoneOfConcurrentCallsThatFit(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * runtime.NumCPU()))
	const limit, free, callers = 40, 8, 4
	for range 10_000 {
		l := NewAIMD(limit, limit, limit)
		passes := occupy(l, limit)
		l.lock()
		l.law.(*aimd).next = 10_000
		l.unlock()
		for i := range passes[:free] {
			passes[i].stripe = uint32(i % len(l.stripes))
		}
		leave(l, passes[:free], unqueued, Sample)
		if places(l) == 0 {
			t.Fatal("no call has left its place in a stripe")
		}
		var g errgroup.Group
		var admitted, ready atomic.Int64
		for range callers {
			g.Go(func() error {
				for ready.Add(1); ready.Load() < callers; { // all begin at once
					runtime.Gosched()
				}
				for range free / callers {
					if _, ok := l.Enter(Highest); ok {
						admitted.Add(1)
					}
				}
				return nil
			})
		}
		g.Wait()
		if admitted.Load() != free || l.Running() != limit {
			t.Fatalf("%d calls admitted and %d running, want %d and %d", admitted.Load(), l.Running(), free, limit)
		}
	}
}

// TestLimitSpreadsStacksOverStripes checks stacks of all usual sizes that are next to each other.
func TestLimitSpreadsStacksOverStripes(t *testing.T) {
	l := &Limit{stripes: make([]stripe, 16)}
	first := uint64(0xc000080000)
	for size := uint64(2 << 10); size <= 64<<10; size *= 2 {
		used := map[uint32]bool{}
		for n := range uint64(16) {
			used[l.stripe(uintptr(first+n*size))] = true
		}
		if len(used) < 10 {
			t.Errorf("16 stacks of %d bytes use %d of 16 stripes, want at least 10", size, len(used))
		}
	}
}

// TestLimitHasAsManyStripesAsProcessorsNeed checks that there are four for each processor, but no
// more than 16.
func TestLimitHasAsManyStripesAsProcessorsNeed(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, test := range []struct{ processors, want int }{{1, 4}, {2, 8}, {3, 12}, {4, 16}, {5, 16}, {64, 16}} {
		runtime.GOMAXPROCS(test.processors)
		if l := NewQueue(20, 1, 1000); len(l.stripes) != test.want {
			t.Errorf("%d stripes with %d processors, want %d", len(l.stripes), test.processors, test.want)
		}
	}
}

// TestLimitKeepsCacheLinesApart checks that what calls on other processors write is not in a cache
// line with what each call reads.
func TestLimitKeepsCacheLinesApart(t *testing.T) {
	const line = 64
	if unsafe.Sizeof(uintptr(0)) < 8 {
		t.Skip("the sizes are those of 64-bit processors")
	}
	var l Limit
	if size := unsafe.Sizeof(l); size%line != 0 {
		t.Errorf("a Limit has %d bytes, want whole cache lines", size)
	}
	word, read, locked := unsafe.Offsetof(l.word)/line, unsafe.Offsetof(l.admits)/line, unsafe.Offsetof(l.mu)/line
	if last := (unsafe.Offsetof(l.stripes) + unsafe.Sizeof(l.stripes) - 1) / line; word >= read || last >= locked {
		t.Errorf("the word is in line %d, what each call reads in %d to %d, the lock in %d", word, read, last, locked)
	}
	if size := unsafe.Sizeof(stripe{}); size%line != 0 {
		t.Errorf("a stripe has %d bytes, want whole cache lines", size)
	}
	var q queue
	if unsafe.Offsetof(q.times)-unsafe.Offsetof(q.ran) < line {
		t.Error("what each call reads is less than a cache line from what is written with the lock")
	}
}
