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
		if queued(base, seen, max(base.variation(), seen.variation())).surely() > 0 {
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
	if s := queued(base, seen, seen.variation()); s.mean < 0.9 || s.surely() > 0 {
		t.Errorf("got a share of %+v, want nothing sure", s)
	}
}

func TestShareFollowsLittlesLaw(t *testing.T) {
	base, seen := tally{100, 80 * 100, 0}, tally{400, 100 * 400, 0}
	s := queued(base, seen, 1)
	if want := math.Sqrt(0.64/100 + 1./400); math.Abs(s.mean-0.2) > 1e-12 || math.Abs(s.deviation-want) > 1e-12 {
		t.Errorf("got %+v, want 0.2 and %v", s, want)
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
	if long.differs(fast, 3) || fast.differs(long, 3) {
		t.Error("a single long call makes a difference")
	}
}
