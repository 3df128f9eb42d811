package concurrency

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func tallyOf(times ...time.Duration) (t tally) {
	for _, took := range times {
		t.add(took)
	}
	return t
}

func TestTallyReportsMeanAndVariation(t *testing.T) {
	same := tallyOf(time.Hour, time.Hour, time.Hour)
	if same.mean() != float64(time.Hour) || same.variation() != 0 {
		t.Errorf("equal times: got a mean of %v and a variation of %v, want an hour and 0", same.mean(), same.variation())
	}
	two := tallyOf(1, 3)
	if two.mean() != 2 || two.variation() != 0.5 {
		t.Errorf("1 and 3: got a mean of %v and a variation of %v, want 2 and 0.5", two.mean(), two.variation())
	}
	if got := two.scaled(10); got != tallyOf(10, 30) {
		t.Errorf("scaled: got %v, want %v", got, tallyOf(10, 30))
	}
	if got := two.plus(two, 1).atMost(2); got != two {
		t.Errorf("half of twice the times: got %v, want %v", got, two)
	}
	if got := two.atMost(5); got != two {
		t.Errorf("at most 5 of 2 times: got %v, want %v", got, two)
	}
	if (tally{}).variation() != 0 || tallyOf(7).variation() != 0 {
		t.Error("fewer than two times show a variation")
	}
}

// TestShareIsRarelySureOfQueueThatIsNone checks the confidence interval: of two samples of the same
// exponential times, one in 44 has a mean that is two standard deviations larger.
func TestShareIsRarelySureOfQueueThatIsNone(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	const pairs = 5000
	sure := 0
	for range pairs {
		var base, seen tally
		for range 200 {
			base.add(time.Duration(1e6 * random.ExpFloat64()))
			seen.add(time.Duration(1e6 * random.ExpFloat64()))
		}
		if waiting(base, seen, base.mean(), max(base.variation(), seen.variation())).surely() > 0 {
			sure++
		}
	}
	if part := float64(sure) / pairs; part < 0.01 || part > 0.035 {
		t.Errorf("sure of a queue in %.4f of the pairs, want about 0.023", part)
	}
}

// TestShareIsNotSureByOneLongCall checks the case in which one call of a sample took a thousand
// times as long as all others: however much longer the mean is, it proves nothing.
func TestShareIsNotSureByOneLongCall(t *testing.T) {
	var base, seen tally
	for range 100 {
		base.add(time.Millisecond)
		seen.add(time.Millisecond)
	}
	seen.add(time.Second)
	if s := waiting(base, seen, base.mean(), seen.variation()); s.mean < 0.9 || s.surely() > 0 {
		t.Errorf("got a share of %+v, want nothing sure", s)
	}
}

func TestShareFollowsLittlesLaw(t *testing.T) {
	base, seen := tally{100, 80 * 100, 0}, tally{400, 100 * 400, 0}
	s := waiting(base, seen, 80, 1)
	if want := math.Sqrt(1./100 + 1./400); math.Abs(s.mean-0.2) > 1e-12 || math.Abs(s.deviation-want) > 1e-12 {
		t.Errorf("got %+v, want 0.2 and %v", s, want)
	}
}

// TestQueuedIgnoresHowManyLongCallsThereAre compares samples in which 0 to 30 of 1000 calls take a
// hundred times as long. Each shows a queue only if the other calls take longer as well.
func TestQueuedIgnoresHowManyLongCallsThereAre(t *testing.T) {
	times := func(wait time.Duration, long int) sample {
		var h histogram
		for i := range 1000 {
			took := time.Millisecond
			if i < long {
				took *= 100
			}
			h.add(took + wait)
		}
		return h.sample(12) // 4.2 ms
	}
	base := times(0, 10)
	for long := range 30 {
		if s := queued(base, times(0, long), base.capped.variation()); s.surely() > shortest {
			t.Errorf("%d of 1000 calls take long: got %+v, want nothing sure", long, s)
		}
		if s := queued(base, times(time.Millisecond/2, long), base.capped.variation()); s.surely() < 0.1 {
			t.Errorf("%d of 1000 calls take long, and all wait: got %+v, want at least 0.1 surely", long, s)
		}
	}
}

// TestQueuedSeesQueueOfLongCallsOnly checks that the cap doesn't hide that the calls above it wait.
func TestQueuedSeesQueueOfLongCallsOnly(t *testing.T) {
	times := func(long time.Duration) sample {
		var h histogram
		for i := range 10_000 {
			if i%100 == 0 {
				h.add(long)
			} else {
				h.add(time.Millisecond)
			}
		}
		return h.sample(12)
	}
	base := times(100 * time.Millisecond)
	if s := queued(base, times(120*time.Millisecond), 0.1); s.surely() > 0 {
		t.Errorf("long calls take 1.2 times as long: got %+v, want nothing sure", s)
	}
	if s := queued(base, times(400*time.Millisecond), 0.1); s.surely() < longest {
		t.Errorf("long calls take 4 times as long: got %+v, want more than %v surely", s, longest)
	}
}

func TestHistogramCapsTimes(t *testing.T) {
	var h histogram
	for _, took := range []time.Duration{0, 1023, 1024, 2047, 2048, 5000, time.Hour, math.MaxInt64, -1} {
		h.add(took)
	}
	s := h.sample(1)
	if want := tallyOf(1, 1023, 1024, 2047, 2048, 2048, 2048, 2048, 1); s.capped != want || s.above != 4 || s.all.n != 9 {
		t.Errorf("got %v, %v above, want %v, 4 above", s.capped, s.above, want)
	}
	got := h
	got.mix(0.5, &h)
	if n := got.sample(1); n.all.n != 13.5 || n.above != 6 || n.capped.mean() != s.capped.mean() {
		t.Errorf("one and a half times the times: got %v", n)
	}
	var empty histogram
	if empty.mix(1, &h); empty != h {
		t.Errorf("added to nothing: got %v, want %v", empty, h)
	}
}

// TestHistogramCapLeavesRoomForQueue checks that the cap is above nearly all times, and at least
// three times their capped mean.
func TestHistogramCapLeavesRoomForQueue(t *testing.T) {
	for _, test := range []struct {
		long int // of 1000 calls, that take 100 ms; the others take 1 ms
		want float64
	}{
		{0, 4_194_304}, {15, 4_194_304}, {16, math.Ldexp(1, 27)}, {600, math.Ldexp(1, 28)},
	} {
		var h histogram
		for i := range 1000 {
			if i < test.long {
				h.add(100 * time.Millisecond)
			} else {
				h.add(time.Millisecond)
			}
		}
		if got := bound(h.lowestCap(fewAbove)); got != test.want {
			t.Errorf("%d of 1000 calls take long: got a cap of %v, want %v", test.long, time.Duration(got), time.Duration(test.want))
		}
	}
}

func TestHistogramLowestCapOfLongestTimes(t *testing.T) {
	var h histogram
	h.add(math.MaxInt64)
	if got := h.lowestCap(fewAbove); got != len(h)-1 {
		t.Errorf("got bucket %d, want the last one, %d", got, len(h)-1)
	}
	if s := (sample{all: tally{n: 3}, capped: tallyOf(341, 341, 342)}); !s.fits(0, 0) {
		t.Error("a cap of three times the mean doesn't fit")
	}
}

func TestTallyDiffersBySignificance(t *testing.T) {
	var fast, slow, long tally
	for range 50 {
		fast.add(100)
		slow.add(120)
		long.add(100)
	}
	long.add(10_000)
	if !slow.differs(fast, 5) || !fast.differs(slow, 5) {
		t.Error("times of 100 and 120 don't differ")
	}
	if fast.differs(fast, 5) {
		t.Error("times differ from themselves")
	}
	if long.differs(fast, 3) || fast.differs(long, 3) {
		t.Error("a single long call makes a difference")
	}
}
