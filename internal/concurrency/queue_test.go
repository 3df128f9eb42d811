package concurrency

import (
	"testing"
	"time"
)

const unqueued = 10 * time.Millisecond

// newSteadyQueue returns a limit that has seen a queue, and knows how long a call takes that
// doesn't.
func newSteadyQueue(limit int) (*Limit, *queue) {
	l := NewQueue(limit, 1, 1000)
	q := l.law.(*queue)
	q.seeking, q.confirmed, q.interval = false, true, everyDrain
	var times histogram
	for range 10_000 {
		times.add(unqueued)
	}
	q.times = times
	q.rebase()
	return l, q
}

// histogramOf returns a histogram of the times, all in the bucket of their mean.
func histogramOf(t tally) (h histogram) {
	h.add(time.Duration(t.mean()))
	for i := range h {
		if !h[i].empty() {
			h[i] = t
		}
	}
	return h
}

// alike returns a summary of n times that vary, with none above the cap.
func alike(n, mean, variation float64) tally {
	return tally{n, n * mean, n * mean * mean * (1 + variation)}
}

// occupy starts n calls that go on running.
func occupy(l *Limit, n int) (passes []Pass) {
	for range n {
		p, ok := l.Enter(Highest)
		if !ok {
			panic("the limit is below what was to run")
		}
		passes = append(passes, p)
	}
	return passes
}

// call makes n calls, one after the other, each of which takes this long.
func call(l *Limit, n int, took time.Duration, outcome Outcome) {
	for range n {
		leave(l, occupy(l, 1), took, outcome)
	}
}

func leave(l *Limit, passes []Pass, took time.Duration, outcome Outcome) {
	for _, p := range passes {
		l.Leave(p, took, outcome)
	}
}

// round makes as many concurrent calls as the limit admits, until the round has been judged.
func round(l *Limit, took time.Duration, outcome Outcome) {
	began := epoch(l.word.Load())
	var passes []Pass
	for n := 0; epoch(l.word.Load()) == began || n < 1; n++ {
		passes = append(passes, occupy(l, int(l.admits.Load())-l.Running())...)
		l.Leave(passes[0], took, outcome)
		passes = passes[1:]
	}
	leave(l, passes, took, outcome)
}

// TestQueueJudgesRoundWhenLastCallEnds checks that calls of before don't count, and that a
// round is not judged by the calls that end first, which are the short ones.
func TestQueueJudgesRoundWhenLastCallEnds(t *testing.T) {
	l := NewQueue(30, 1, 1000)
	passes := occupy(l, 30)
	leave(l, passes[:29], unqueued, Sample)
	if l.RoundTrip() != 0 {
		t.Errorf("round trip %v before the round's last call has ended, want 0", l.RoundTrip())
	}
	call(l, 100, time.Hour, Sample) // of the next round
	leave(l, passes[29:], 31*unqueued, Sample)
	if l.RoundTrip() != 2*unqueued {
		t.Errorf("round trip %v, want the mean of all 30 calls, %v", l.RoundTrip(), 2*unqueued)
	}
}

// TestQueueDoesNotWaitForHungCall checks that a round ends without a call that lasts for more
// than 128 round trips.
func TestQueueDoesNotWaitForHungCall(t *testing.T) {
	for _, test := range []struct{ limit, patience int }{{5, 128 * 20}, {20, 128 * 20}, {40, 128 * 40}} {
		l := NewQueue(test.limit, 1, 1000)
		hung := occupy(l, 1)
		call(l, max(test.limit, fewestCalls)-1, unqueued, Sample)
		call(l, test.patience, unqueued, Sample)
		if l.RoundTrip() != 0 {
			t.Errorf("%+v: round trip %v after 128 round trips, want 0", test, l.RoundTrip())
		}
		call(l, 1, unqueued, Sample)
		if l.RoundTrip() != unqueued {
			t.Errorf("%+v: round trip %v, want %v", test, l.RoundTrip(), unqueued)
		}
		leave(l, hung, time.Hour, Sample)
		if l.RoundTrip() != unqueued || l.Running() != 0 {
			t.Errorf("%+v: round trip %v with %d running once the call has ended, want %v and 0", test, l.RoundTrip(), l.Running(), unqueued)
		}
	}
}

// TestQueuePlansWhatTheWordCanCount checks the patience of the largest limit, and that calls of the
// open round never end one.
func TestQueuePlansWhatTheWordCanCount(t *testing.T) {
	l := NewQueue(MaxLimit, 1, MaxLimit)
	q := l.law.(*queue)
	q.closing = cohort{active: true, epoch: 1, running: 1}
	if q.plan(MaxLimit); q.next != mostCalls {
		t.Errorf("due after %d calls, want %d", q.next, mostCalls)
	}
	for _, test := range []struct {
		epoch uint32
		want  bool
	}{{0, false}, {2, false}, {1, true}} {
		if over := q.ended(l, Pass{epoch: test.epoch}, unqueued, Sample); over != test.want {
			t.Errorf("a call of epoch %d ends a round: %v, want %v", test.epoch, over, test.want)
		}
	}
}

// TestQueueClosesRoundAtItsCalls checks that a round ends when its calls have begun, as many as the
// limit and twenty at least.
func TestQueueClosesRoundAtItsCalls(t *testing.T) {
	for _, test := range []struct{ limit, calls int }{{5, 20}, {20, 20}, {30, 30}} {
		l := NewQueue(test.limit, 1, 1000)
		q := l.law.(*queue)
		rest := occupy(l, 4)
		call(l, test.calls-5, unqueued, Sample)
		if q.closing.active {
			t.Errorf("%+v: the round ended before its last call began", test)
		}
		call(l, 1, unqueued, Sample)
		if !q.closing.active {
			t.Errorf("%+v: the round didn't end after its last call began", test)
		}
		leave(l, rest, unqueued, Sample)
	}
}

// TestQueueForgetsRoundAtNewBounds checks that nothing of a round that is still to be judged counts
// once the bounds have moved the limit.
func TestQueueForgetsRoundAtNewBounds(t *testing.T) {
	l, q := newSteadyQueue(30)
	q.past, q.peak = q.base, 30
	passes := occupy(l, 30)
	leave(l, passes[:29], unqueued, Sample)
	if !q.closing.active {
		t.Fatal("the round isn't closing")
	}
	l.SetBounds(50, 100)
	if q.closing.active || !q.past.empty() || q.peak != 0 {
		t.Errorf("closing %v, past %v, peak %d; want nothing", q.closing.active, q.past, q.peak)
	}
	leave(l, passes[29:], unqueued, Sample)
}

// TestQueueJudgesRoundWithNextCall checks a round of which no call runs any more when it closes.
func TestQueueJudgesRoundWithNextCall(t *testing.T) {
	l := NewQueue(20, 1, 1000)
	if call(l, 20, unqueued, Sample); l.RoundTrip() != 0 {
		t.Errorf("round trip %v, want 0 until the next call ends", l.RoundTrip())
	}
	if call(l, 1, time.Hour, Sample); l.RoundTrip() != unqueued {
		t.Errorf("round trip %v, want %v", l.RoundTrip(), unqueued)
	}
}

// TestQueueGrowsByOneAtLeast checks a limit of which a step is less than half a call.
func TestQueueGrowsByOneAtLeast(t *testing.T) {
	l, _ := newSteadyQueue(5)
	round(l, unqueued, Sample)
	if l.Limit() != 6 {
		t.Errorf("limit %d, want 6", l.Limit())
	}
}

// limitAfterRounds returns the limit, of 100 before, after a round that took this many times as long
// as calls that don't queue. Many rounds before it took as long as those.
func limitAfterRounds(times float64) int {
	l, q := newSteadyQueue(100)
	before := histogramOf(alike(5000, float64(unqueued), 0))
	q.past = before.sample(q.cap)
	now := histogramOf(alike(100, times*float64(unqueued), 0))
	next, _ := q.loaded(l, &cohort{samples: now, peak: 100}, 100)
	return next
}

// TestQueueSeesSuddenQueueAfterManyRounds checks that a round counts by itself if it shows a queue,
// however many rounds have shown none.
func TestQueueSeesSuddenQueueAfterManyRounds(t *testing.T) {
	if limit := limitAfterRounds(1.2); limit != 95 {
		t.Errorf("limit %d, want 95", limit)
	}
}

// TestQueueForgetsRoundsOfSlowerDependency checks that rounds of before a dependency has become a
// little faster don't look like a queue.
func TestQueueForgetsRoundsOfSlowerDependency(t *testing.T) {
	if limit := limitAfterRounds(0.96); limit != 104 {
		t.Errorf("limit %d, want 104", limit)
	}
}

// TestQueueDrainMakesRoom checks that a queue that is as long as it should be makes room for other
// clients.
func TestQueueDrainMakesRoom(t *testing.T) {
	for _, test := range []struct {
		percent float64 // how long calls took before the drain, compared with those in it
		want    int
	}{{98, 100}, {100, 100}, {104, 97}, {106, 95}} {
		_, q := newSteadyQueue(100)
		drain, before := histogramOf(alike(50, float64(unqueued), 0)), histogramOf(alike(50, test.percent/100*float64(unqueued), 0))
		q.before = before.sample(q.cap)
		if got := q.drained(&cohort{samples: drain}, 100); got != test.want {
			t.Errorf("%v%%: limit %d, want %d", test.percent, got, test.want)
		}
	}
}

// TestQueueKeepsCapWhileItFits checks that the cap isn't changed at each small change of the times.
func TestQueueKeepsCapWhileItFits(t *testing.T) {
	for _, test := range []struct{ before, want int }{{11, 12}, {12, 12}, {13, 13}, {14, 12}} { // the bounds are 2.1, 4.2, 8.4, and 16.8 ms
		q := newQueue()
		q.times = histogramOf(alike(100, 1e6, 0))
		q.cap, q.base = test.before, q.times.sample(test.before)
		if q.rebase(); q.cap != test.want {
			t.Errorf("cap %d: got %d, want %d", test.before, q.cap, test.want)
		}
	}
}

// TestQueueRoundIsLongerIfTimesVary checks that a round is long enough to tell a queue from
// chance.
func TestQueueRoundIsLongerIfTimesVary(t *testing.T) {
	l, q := newSteadyQueue(40)
	q.begin(l, 40, 40)
	if q.open.need != 40 {
		t.Errorf("a round of equal times has %d calls, want 40", q.open.need)
	}
	q.last = sample{capped: alike(1000, 1, 2)}
	q.begin(l, 40, 40)
	if q.open.need != 200 {
		t.Errorf("a round of times with a variation of 2 has %d calls, want 200", q.open.need)
	}
	q.beginDrain(l, 40)
	if q.open.need != 100 {
		t.Errorf("a drain of times with a variation of 2 has %d calls, want 100", q.open.need)
	}
}

// TestQueueSmallLimitHasShortRounds checks that a small limit, at first or after an incident, need
// not wait for calls above the cap, which are a thousand round trips apart.
func TestQueueSmallLimitHasShortRounds(t *testing.T) {
	for _, test := range []struct {
		seeking     bool
		limit, want int
	}{{true, 2, 32}, {false, 2, 128}, {true, 1000, 2000}, {false, 1000, 2000}} {
		l, q := newSteadyQueue(test.limit)
		q.seeking = test.seeking
		q.last = sample{all: alike(1000, 1, 0), capped: alike(1000, 1, 0), above: 1}
		q.begin(l, test.limit, test.limit)
		if q.open.need != test.want {
			t.Errorf("%+v: a round has %d calls", test, q.open.need)
		}
	}
}

// TestQueueDrainHasItsCallsAlone checks that a drain admits half of the limit until it has its
// calls, and that none of the calls counts that ran before.
func TestQueueDrainHasItsCallsAlone(t *testing.T) {
	l, q := newSteadyQueue(100)
	before := occupy(l, 60)
	q.beginDrain(l, 100)
	if l.admits.Load() != 50 || l.Limit() != 100 {
		t.Errorf("a drain admits %d of %d, want 50 of 100", l.admits.Load(), l.Limit())
	}
	leave(l, before, time.Hour, Sample)
	passes := occupy(l, 50)
	leave(l, passes[:1], unqueued/2, Sample)
	if l.admits.Load() != 100 {
		t.Errorf("%d admitted once the drain has its calls, want 100", l.admits.Load())
	}
	leave(l, passes[1:], unqueued/2, Sample)
	if l.RoundTrip() != unqueued/2 {
		t.Errorf("round trip %v, want the drain's %v", l.RoundTrip(), unqueued/2)
	}
}

// TestQueueGrowsOnlyIfLimitIsMet checks that free room is no reason for more.
func TestQueueGrowsOnlyIfLimitIsMet(t *testing.T) {
	l, _ := newSteadyQueue(100)
	busy := occupy(l, 98)
	call(l, 3, unqueued, Sample)
	leave(l, busy, unqueued, Sample)
	if l.Limit() != 100 {
		t.Errorf("limit %d, want 100", l.Limit())
	}
	round(l, unqueued, Sample)
	if l.Limit() != 104 {
		t.Errorf("limit %d, want 104", l.Limit())
	}
}

// TestQueueIgnoresLoadedRoundsForRoundTrip checks that the round trip is not learned under load.
// Otherwise the limit would creep up with the queue that it makes.
func TestQueueIgnoresLoadedRoundsForRoundTrip(t *testing.T) {
	l, _ := newSteadyQueue(100)
	round(l, unqueued*101/100, Sample)
	if l.Limit() == 100 || l.RoundTrip() != unqueued {
		t.Errorf("limit %d, round trip %v; want a larger limit, and %v", l.Limit(), l.RoundTrip(), unqueued)
	}
}

// TestQueueShrinksInStepsUntilDrain checks that a drain follows when the limit has fallen by a
// sixth.
func TestQueueShrinksInStepsUntilDrain(t *testing.T) {
	l, q := newSteadyQueue(100)
	for _, want := range []int{95, 90, 86, 82} {
		round(l, 2*unqueued, Sample)
		if l.Limit() != want {
			t.Errorf("limit %d, want %d", l.Limit(), want)
		}
	}
	if !q.open.drain || l.admits.Load() != 41 {
		t.Errorf("%d admitted, draining %v; want a drain with 41", l.admits.Load(), q.open.drain)
	}
}

// TestQueueDrainsAtFirstQueue checks that the limit isn't held by a base that no drain has
// confirmed, and that the first drain replaces a base whose calls have queued.
func TestQueueDrainsAtFirstQueue(t *testing.T) {
	l, q := newSteadyQueue(100)
	q.seeking, q.confirmed = true, false
	round(l, 2*unqueued, Sample)
	if !q.open.drain {
		t.Error("no drain after the first queue")
	}
	slow := histogramOf(tallyOf(8, 10, 12, 10))
	fast := histogramOf(tallyOf(7, 7, 8, 8))
	for _, confirmed := range []bool{false, true} {
		_, q := newSteadyQueue(100)
		q.times = slow
		q.rebase()
		q.before, q.confirmed = slow.sample(q.cap), confirmed
		q.drained(&cohort{samples: fast}, 100)
		if replaced := q.times == fast; replaced == confirmed || !q.confirmed {
			t.Errorf("a base that a drain has confirmed (%v) is replaced: %v", confirmed, replaced)
		}
	}
}

// TestQueueDrainsIfDependencyIsFaster checks that base is not taken from the round in which the
// dependency has become faster, since that has times of before, and that the limit stays.
func TestQueueDrainsIfDependencyIsFaster(t *testing.T) {
	l, q := newSteadyQueue(100)
	q.before = q.base // of an earlier drain, which this one must not be compared with
	passes := occupy(l, 100)
	leave(l, passes[:50], unqueued, Sample)
	leave(l, passes[50:], unqueued/2, Sample)
	if !q.open.drain || l.RoundTrip() != unqueued || l.Limit() != 100 {
		t.Errorf("after a round with times of before: draining %v, round trip %v, limit %d; want a drain, %v, 100", q.open.drain, l.RoundTrip(), l.Limit(), unqueued)
	}
	round(l, unqueued/2, Sample)
	if l.RoundTrip() != unqueued/2 || l.Limit() != 100 {
		t.Errorf("after the drain: round trip %v, limit %d; want %v, 100", l.RoundTrip(), l.Limit(), unqueued/2)
	}
}

// TestQueueFollowsSlowlyFasterDependencyWithoutDrain checks that a dependency that becomes faster
// little by little isn't drained again and again, since that refuses calls.
func TestQueueFollowsSlowlyFasterDependencyWithoutDrain(t *testing.T) {
	l, q := newSteadyQueue(100)
	took := unqueued
	for range 20 {
		took = took * 97 / 100
		if round(l, took, Sample); q.open.drain {
			t.Fatalf("a drain at %v", took)
		}
	}
	if l.RoundTrip() > took*105/100 {
		t.Errorf("round trip %v, want %v", l.RoundTrip(), took)
	}
}

// TestQueueSeeksUntilDrainShowsQueue checks that a limit that seemed too high by chance goes on in
// large steps, and one that is right doesn't.
func TestQueueSeeksUntilDrainShowsQueue(t *testing.T) {
	for _, test := range []struct {
		seeking bool
		percent time.Duration // how long calls take in the drain, compared with those before
		want    bool
	}{
		{true, 100, true}, {true, 99, true}, {true, 97, false}, {true, 50, false},
		{false, 100, false}, {false, 50, false},
	} {
		l, q := newSteadyQueue(100)
		q.seeking = test.seeking
		same := histogramOf(alike(100, float64(unqueued), 0))
		q.before = same.sample(q.cap)
		q.beginDrain(l, 100)
		round(l, test.percent*unqueued/100, Sample)
		if q.seeking != test.want {
			t.Errorf("%+v: got %v", test, q.seeking)
		}
		if !q.past.empty() {
			t.Errorf("%+v: %v calls of the drain count as calls at the limit, want none", test, q.past.all.n)
		}
	}
}

// TestQueueDrainsIfDoubtIsMostlyBase checks that a limit that may grow doesn't wait for more rounds
// if only a better base can decide.
func TestQueueDrainsIfDoubtIsMostlyBase(t *testing.T) {
	for _, test := range []struct {
		baseCalls   float64
		peak, calls int
		want        bool
	}{{100, 100, 300, true}, {100, 90, 300, false}, {1000, 100, 300, false}, {100, 100, 100, false}} {
		l, q := newSteadyQueue(100)
		q.seeking, q.interval, q.calls = true, firstDrain, test.calls
		q.times = histogramOf(alike(test.baseCalls, float64(unqueued), 2))
		q.rebase()
		longer := histogramOf(alike(300, 1.3*float64(unqueued), 2))
		next, drain := q.loaded(l, &cohort{samples: longer, peak: test.peak}, 100)
		if next != 100 || drain != test.want {
			t.Errorf("%+v: limit %d, drain %v; want 100, %v", test, next, drain, test.want)
		}
		if test.want != (q.interval == 2*firstDrain) {
			t.Errorf("%+v: the interval is %d times as many calls as a drain has", test, q.interval)
		}
	}
}

// TestQueueRarelyDrainsUnmetLimit checks that calls are hardly ever refused where they don't reach
// the limit.
func TestQueueRarelyDrainsUnmetLimit(t *testing.T) {
	_, q := newSteadyQueue(100)
	q.interval = firstDrain
	for _, test := range []struct {
		calls int
		met   bool
		want  bool
	}{{50*firstDrain - 1, true, false}, {50*everyDrain - 1, false, false}, {50 * everyDrain, false, true}, {50 * firstDrain, true, false}, {100 * firstDrain, true, true}} {
		q.calls = test.calls
		if got := q.drainIsDue(100, sample{}, test.met); got != test.want {
			t.Errorf("%+v with an interval of %d: got %v", test, q.interval, got)
		}
	}
}

// TestQueueSeeksAfterFailure checks that what a drain shows after rounds that failed is not taken
// for the first queue: those calls may have waited for anything, and the way back is as at first.
func TestQueueSeeksAfterFailure(t *testing.T) {
	l, q := newSteadyQueue(100)
	for range 100 {
		if round(l, 50*unqueued, Drop); q.open.drain {
			break
		}
	}
	if !q.open.drain {
		t.Fatal("no drain while calls fail, want one")
	}
	round(l, unqueued, Sample)
	if !q.seeking {
		t.Error("the way back is in small steps, want large ones")
	}
	for before, rounds := l.Limit(), 0; l.Limit() < up(before, leap); rounds++ {
		if rounds == 3 || l.Limit() > before {
			t.Fatalf("limit %d after %d and %d rounds, want %d", l.Limit(), before, rounds, up(before, leap))
		}
		round(l, unqueued, Sample)
	}
}

// TestQueueJumpsAfterDrain checks that the limit need not go on in steps when the queue was
// measured.
func TestQueueJumpsAfterDrain(t *testing.T) {
	_, q := newSteadyQueue(100)
	drain := histogramOf(alike(50, float64(unqueued), 0))
	before := histogramOf(alike(50, 2*float64(unqueued), 0))
	q.before = before.sample(q.cap)
	if got := q.drained(&cohort{samples: drain}, 100); got != 52 {
		t.Errorf("limit %d after a drain that shows a queue of a half, want 52", got)
	}
	q.before = drain.sample(q.cap)
	if got := q.drained(&cohort{samples: drain}, 100); got != 100 {
		t.Errorf("limit %d after a drain that shows no queue, want 100", got)
	}
}

// TestQueueShrinksByNoMoreThanIsCertain compares two dependencies whose calls take the same time
// longer than they should. Where times vary much, that may be chance.
func TestQueueShrinksByNoMoreThanIsCertain(t *testing.T) {
	for _, test := range []struct {
		variation float64
		want      int
	}{{0, 95}, {1, 97}, {3, 100}} {
		_, q := newSteadyQueue(100)
		q.times = histogramOf(alike(10_000, float64(unqueued), test.variation))
		q.rebase()
		seen := histogramOf(alike(250, 1.25*float64(unqueued), test.variation))
		l := NewQueue(100, 1, 1000)
		if next, _ := q.loaded(l, &cohort{samples: seen, peak: 90}, 100); next != test.want {
			t.Errorf("variation %v: limit %d, want %d", test.variation, next, test.want)
		}
	}
}

// TestQueueCountsDropsAsLongAsAnswers checks that slow drops are a sign of a queue, and fast ones
// of nothing, not of its absence either.
func TestQueueCountsDropsAsLongAsAnswers(t *testing.T) {
	l, q := newSteadyQueue(20)
	passes := occupy(l, 20)
	leave(l, passes[:10], time.Microsecond, Drop)
	leave(l, passes[10:], 3*unqueued, Drop)
	if l.Limit() != 19 || !q.seeking {
		t.Errorf("limit %d, want 19", l.Limit())
	}
	l, q = newSteadyQueue(20)
	leave(l, occupy(l, 20), time.Microsecond, Drop)
	if l.Limit() != 20 || q.seeking || l.RoundTrip() != unqueued {
		t.Errorf("limit %d, round trip %v; want 20 and %v", l.Limit(), l.RoundTrip(), unqueued)
	}
}

// TestQueueKeepsHalfIfDrainFails checks that the limit is halved if calls fail late even in a
// drain.
func TestQueueKeepsHalfIfDrainFails(t *testing.T) {
	l, q := newSteadyQueue(100)
	q.beginDrain(l, 100)
	leave(l, occupy(l, 50), 3*unqueued, Drop)
	if l.Limit() != 50 || q.open.drain {
		t.Errorf("limit %d, want 50", l.Limit())
	}
}

// TestQueueHalvesIfNoCallWasEverAnswered checks a cold start at which every call times out.
func TestQueueHalvesIfNoCallWasEverAnswered(t *testing.T) {
	l := NewQueue(20, 3, 1000)
	for _, want := range []int{10, 5, 3, 3} {
		for before := epoch(l.word.Load()); epoch(l.word.Load()) < before+2 && l.Limit() != want; {
			call(l, 1, time.Second, Drop)
		}
		if l.Limit() != want {
			t.Errorf("limit %d, want %d", l.Limit(), want)
		}
	}
}

func TestTowardsStepsToTheAim(t *testing.T) {
	for _, c := range []struct {
		limit int
		share float64
		most  float64
		want  int
	}{
		{1000, 0, step, 1042},
		{1000, -0.5, step, 1042}, // faster than was known: no reason to hurry
		{1000, 0.02, step, 1021},
		{1000, 0.06, step, 979},
		{1000, 0.5, step, 950},
		{1000, 0.5, 0.5, 521},
		{1000, 0.9, 0.5, 500},
	} {
		if got := towards(c.limit, share{mean: c.share}, c.most); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
	if up(1, leap) != 2 || up(20, leap) != 25 || up(1000, leap) != 1250 {
		t.Errorf("got %d, %d, %d, want 2, 25, 1250", up(1, leap), up(20, leap), up(1000, leap))
	}
}
