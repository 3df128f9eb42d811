package concurrency

import (
	"testing"
	"time"
)

const unqueued = 10 * time.Millisecond

// steady gives a limit that has seen a queue, and knows how long a call takes that does not.
func steady(limit int) (*Limit, *queue) {
	l := NewQueue(limit, 1, 1000)
	q := l.law.(*queue)
	q.quick, q.skip = false, 0
	q.least = estimate{mean: float64(unqueued)}
	return l, q
}

// occupy has n calls run.
func occupy(l *Limit, n int) {
	for range n {
		if _, ok := l.Enter(Highest); !ok {
			panic("the limit is below what was to run")
		}
	}
}

// call has n calls come and go, each of which takes so long.
func call(l *Limit, n int, took time.Duration, outcome Outcome) {
	for range n {
		p, ok := l.Enter(Highest)
		if !ok {
			panic("there was no room")
		}
		l.Leave(p, took, outcome)
	}
}

func TestARoundBeginsOnceTheCallsOfBeforeHaveEnded(t *testing.T) {
	l := NewQueue(30, 1, 1000)
	call(l, 30, time.Hour, Sample)
	call(l, 29, unqueued, Sample)
	if l.RoundTrip() != 0 {
		t.Errorf("%v before the first round has ended", l.RoundTrip())
	}
	call(l, 1, unqueued, Sample)
	if l.RoundTrip() != unqueued {
		t.Errorf("%v, want %v", l.RoundTrip(), unqueued)
	}
}

// TestADrainIsJudgedByCallsThatBeganInIt: those that ran when it began are waited for, and as many again as are admitted, since some may have overtaken others.
func TestADrainIsJudgedByCallsThatBeganInIt(t *testing.T) {
	l, q := steady(100)
	q.rounds = everyDrain
	occupy(l, 60)
	call(l, 100, unqueued, Sample)
	if !q.draining || admits(l.word.Load()) != 50 || l.Limit() != 100 || q.skip != 60+50 || q.need != 50 {
		t.Errorf("%+v, %d admitted of %d", q, admits(l.word.Load()), l.Limit())
	}
}

// TestALimitThatIsNotMetDoesNotGrow, however many run.
func TestALimitThatIsNotMetDoesNotGrow(t *testing.T) {
	l, _ := steady(100)
	occupy(l, 98)
	call(l, 300, unqueued, Sample)
	if l.Limit() != 100 {
		t.Errorf("limit %d", l.Limit())
	}
	occupy(l, 1)
	call(l, 100, unqueued, Sample)
	if l.Limit() != 104 {
		t.Errorf("limit %d, want 104", l.Limit())
	}
}

// TestWhatIsSeenUnderLoadIsNotTheLeast, however little longer it is: else the limit would creep up with the queue that it makes.
func TestWhatIsSeenUnderLoadIsNotTheLeast(t *testing.T) {
	l, _ := steady(100)
	occupy(l, 99)
	call(l, 100, unqueued*101/100, Sample)
	if l.Limit() == 100 || l.RoundTrip() != unqueued {
		t.Errorf("limit %d, round trip %v", l.Limit(), l.RoundTrip())
	}
}

// TestTheLimitShrinksByStepsUntilADrainTells: then it goes to what was measured.
func TestTheLimitShrinksByStepsUntilADrainTells(t *testing.T) {
	l, q := steady(100)
	q.skip, q.before, q.draining = 0, estimate{mean: 2 * float64(unqueued)}, true
	q.need = 50
	l.set(100, 50)
	call(l, 50, unqueued, Sample)
	if l.Limit() != 52 || q.draining || admits(l.word.Load()) != 52 { // half of the round trip was a queue
		t.Errorf("limit %d, want 52", l.Limit())
	}

	l, q = steady(100)
	occupy(l, 60)
	for _, want := range []int{95, 90, 86, 82} {
		q.skip = 0
		call(l, max(q.need, fewest), 2*unqueued, Sample)
		if l.Limit() != want {
			t.Errorf("limit %d, want %d", l.Limit(), want)
		}
	}
	if !q.draining || admits(l.word.Load()) != 41 {
		t.Errorf("%d admitted; draining %v", admits(l.word.Load()), q.draining)
	}
}

// TestADropWouldHaveTakenAsLongAsAnAnswer: of drops, those that took longer tell of a queue, and the others nothing, not of its absence either.
func TestADropWouldHaveTakenAsLongAsAnAnswer(t *testing.T) {
	l, q := steady(20)
	occupy(l, 15)
	call(l, 10, time.Microsecond, Drop)
	call(l, 10, 2*unqueued, Drop)
	if l.Limit() != 19 || !q.quick {
		t.Errorf("limit %d, want 19", l.Limit())
	}
	l, q = steady(20)
	occupy(l, 15)
	call(l, 20, time.Microsecond, Drop)
	if l.Limit() != 20 || q.quick || l.RoundTrip() != unqueued {
		t.Errorf("limit %d, round trip %v", l.Limit(), l.RoundTrip())
	}
}

// TestADrainInWhichMostCallsFailLateKeepsTheHalf, since that was too much too.
func TestADrainInWhichMostCallsFailLateKeepsTheHalf(t *testing.T) {
	l, q := steady(100)
	q.draining, q.need = true, 50
	l.set(100, 50)
	call(l, 50, 3*unqueued, Drop)
	if l.Limit() != 50 || q.draining {
		t.Errorf("limit %d, want 50", l.Limit())
	}
}

// TestALimitGrowsWhereTheRoundTripMayHaveBeenThoughtTooShort: it was taken from few calls, and what looks like a queue of 5 % is none.
func TestALimitGrowsWhereTheRoundTripMayHaveBeenThoughtTooShort(t *testing.T) {
	for _, test := range []struct {
		off   float64 // standard deviation of the round trip that is needed
		grows bool
	}{{0.02, true}, {0.005, false}} {
		l := NewQueue(64, 1, 1000)
		q := l.law.(*queue)
		q.quick, q.peak = false, 64
		q.least = estimate{0.95e6, test.off * test.off * 1e12}
		for range 100 {
			q.samples.add(time.Millisecond)
		}
		if next, _ := q.loaded(l, 64); (next > 64) != test.grows || next < 64 {
			t.Errorf("limit 64 becomes %d, the round trip within %v", next, test.off)
		}
	}
}

func TestQueueIsDueAfterInterval(t *testing.T) {
	q := &queue{interval: firstDrain}
	for round := 1; round <= firstDrain; round++ {
		if got, want := q.isDue(estimate{}), round == firstDrain; got != want {
			t.Errorf("round %d of %d: got %t, want %t", round, firstDrain, got, want)
		}
	}
}
