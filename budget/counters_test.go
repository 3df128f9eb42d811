package budget

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// The model is a list of every deposit's epoch, the oldest first.
func TestBudgetMatchesPlainListOfDeposits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = time.Second
		pauses := []time.Duration{1, 3 * time.Millisecond, 40 * time.Millisecond, 110 * time.Millisecond, 650 * time.Millisecond, 1700 * time.Millisecond, time.Hour}
		for seed := range uint64(20) {
			b := New(Config{Ratio: 1, TTL: ttl})
			rng := rand.New(rand.NewPCG(seed, 0))
			var deposits []int64
			for i := range 5000 {
				if rng.IntN(4) == 0 {
					time.Sleep(1 + time.Duration(rng.Int64N(int64(pauses[rng.IntN(len(pauses))]))))
				}
				epoch := clock.Now() / b.settings.Load().epochs.width
				if rng.IntN(3) > 0 {
					b.Deposit()
					deposits = append(deposits, epoch)
					continue
				}
				for len(deposits) > 0 && deposits[0] <= epoch-lifetime {
					deposits = deposits[1:]
				}
				if got, want := b.Withdraw(), len(deposits) > 0; got != want {
					t.Fatalf("seed %d, step %d: got %v with %d deposits, want %v", seed, i, got, len(deposits), want)
				}
				if len(deposits) > 0 {
					deposits = deposits[1:]
				}
			}
		}
	})
}

func TestBudgetSurvivesCounterWraparound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Ratio: 1})
		const near = ^uint64(0) - 3*token // the fourth deposit wraps
		b.deposited.Store(near)
		b.spent.Store(near)
		for i := range b.settings.Load().epochs.marks {
			b.settings.Load().epochs.marks[i].Store(near)
		}
		for range 3 {
			for range 10 {
				b.Deposit()
			}
			for i := range 10 {
				if !b.Withdraw() {
					t.Fatalf("got %d tokens, want 10", i)
				}
			}
			if b.Withdraw() {
				t.Fatal("got more tokens than were deposited")
			}
			time.Sleep(3 * time.Second)
		}
	})
}

func TestBudgetSetConfigKeepsCountsPastHalfOfRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Ratio: 1})
		const half = 1<<63 + 5*token // from here on, 0 counts as later
		b.deposited.Store(half)
		b.spent.Store(half)
		for i := range b.settings.Load().epochs.marks {
			b.settings.Load().epochs.marks[i].Store(half)
		}
		if err := b.SetConfig(Config{Ratio: 1, TTL: 20 * time.Second}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		b.Deposit()
		if !b.Withdraw() || b.Withdraw() {
			t.Error("want exactly one token for a deposit after SetConfig")
		}
	})
}

func TestDepositsExpireWithoutWithdrawals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Ratio: 1})
		b.deposited.Add(crowded)
		if b.Deposit(); b.deposited.Load() != crowded {
			t.Error("a deposit above the bound was counted")
		}
		time.Sleep(10 * time.Second)
		if b.Deposit(); !b.Withdraw() || b.Withdraw() {
			t.Error("want exactly one token after a long time without a withdrawal")
		}
	})
}

func TestRatioIsExactToMillionth(t *testing.T) {
	for ratio, want := range map[float64]uint64{
		0.000123: 123, // slightly more in binary
		0.07:     70_000,
		1. / 3:   333_334, // rounded up: three of these make a token
		1e-6:     1,
		1000:     1_000_000_000,
	} {
		if b := New(Config{Ratio: ratio}); b.settings.Load().share != want {
			t.Errorf("ratio %v: got %d millionths, want %d", ratio, b.settings.Load().share, want)
		}
	}
}

// The goroutine that moved the epochs hasn't yet spent what expires.
func TestWithdrawNeverTakesExpiredDeposit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Ratio: 1})
		b.Deposit()
		time.Sleep(10 * time.Second)
		e := b.settings.Load().epochs
		for target := clock.Now() / e.width; e.latest.Load() < target; {
			b.step(e, e.latest.Load(), target)
		}
		if b.Withdraw() {
			t.Error("got a token from an expired deposit")
		}
	})
}

// While a withdrawal runs, another call deposits and withdraws. There is a token at every moment.
func TestWithdrawSucceedsDespiteConcurrentDepositAndWithdraw(t *testing.T) {
	b := New(Config{Ratio: 1, TTL: time.Hour})
	b.Deposit()
	b.between = func() {
		b.between = nil
		b.Deposit()
		if !b.Withdraw() {
			t.Error("got no token for the other call")
		}
	}
	if !b.Withdraw() {
		t.Error("got no token")
	}
	if b.Withdraw() {
		t.Error("got three tokens for two deposits")
	}
}

// Two goroutines withdraw concurrently. The deposits, or the reserve, hold one token.
func TestWithdrawGrantsLastTokenOnce(t *testing.T) {
	for name, config := range map[string]Config{
		"deposits": {Ratio: 1, TTL: time.Hour},
		"reserve":  {MinPerSecond: 1, TTL: time.Second},
	} {
		synctest.Test(t, func(t *testing.T) { // so that the reserve isn't refilled meanwhile
			b := New(config)
			b.Deposit()
			other := false
			b.between = func() {
				b.between = nil
				other = b.Withdraw()
			}
			if own := b.Withdraw(); own || !other {
				t.Errorf("%s: got %t for the call that looked first, %t for the one that swapped first", name, own, other)
			}
			if b.Withdraw() {
				t.Errorf("%s: got a second token", name)
			}
		})
	}
}

func TestReserveGrantsTokenDespiteConcurrentWithdraw(t *testing.T) {
	b := New(Config{MinPerSecond: 2, TTL: time.Hour})
	b.between = func() {
		b.between = nil
		if !b.Withdraw() {
			t.Error("got no token for the other call")
		}
	}
	if !b.Withdraw() {
		t.Error("got no token for the call whose swap fails once")
	}
}

func TestBudgetRestartsEpochsOnlyIfClockWentBackFar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Ratio: 1})
		e := b.settings.Load().epochs
		now := clock.Now()
		fresh := now / e.width
		for _, c := range []struct{ ahead, delayed, want int64 }{
			{15, 0, 15}, {16, 0, 0}, {17, 0, 0}, // the clock went back
			{0, 20, 0}, {5, 20, 5}, // the caller was delayed after it had read the clock
		} {
			e.latest.Store(fresh + c.ahead)
			b.advance(e, now-c.delayed*e.width)
			if got := e.latest.Load() - fresh; got != c.want {
				t.Errorf("%d epochs ahead, caller delayed by %d: got epoch %+d, want %+d", c.ahead, c.delayed, got, c.want)
			}
		}
	})
}

func TestReserveRestartsEmptyOnlyIfClockWentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{MinPerSecond: 1, TTL: 3 * time.Second})
		r, now := b.settings.Load().reserve, clock.Now()
		r.full.Store(now + 10*r.burst)
		if b.withdrawReserve(r, now) || r.full.Load() != now+r.burst {
			t.Errorf("after the clock went back: full in %v, want no token and %v", r.full.Load()-now, r.burst)
		}
		r.full.Store(now)
		if !b.withdrawReserve(r, now-10*r.burst) || r.full.Load() != now+r.interval {
			t.Errorf("caller that was delayed: full in %v, want a token and %v", r.full.Load()-now, r.interval)
		}
	})
}

// The goroutine that moved the epochs hasn't yet spent what expires.
func TestBudgetSetConfigKeepsNoExpiredDeposit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Ratio: 1})
		b.Deposit()
		time.Sleep(10 * time.Second)
		e := b.settings.Load().epochs
		for target := clock.Now() / e.width; e.latest.Load() < target; {
			b.step(e, e.latest.Load(), target)
		}
		b.SetConfig(Config{Ratio: 1, TTL: time.Hour})
		if b.Withdraw() {
			t.Error("got a token from an expired deposit")
		}
	})
}

// A call that began before SetConfig expires nothing by the old TTL, however long it was delayed.
func TestBudgetSetConfigEndsOldTTLForDelayedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Ratio: 1})
		old := b.settings.Load().epochs
		b.Deposit()
		b.SetConfig(Config{Ratio: 1, TTL: time.Hour})
		for range 5 {
			time.Sleep(5 * time.Second)
			if expired := b.advance(old, clock.Now()); expired != 0 {
				t.Errorf("got %d millionths expired, want none", expired)
			}
		}
		if !b.withdrawDeposit(old, clock.Now()) {
			t.Error("got no token")
		}
	})
}

// While a withdrawal has looked at the reserve, SetConfig changes it.
func TestBudgetSetConfigGrantsReserveTokenOnce(t *testing.T) {
	for _, c := range []struct {
		then Config
		all  bool // the other call takes all tokens
		want bool
	}{
		{Config{MinPerSecond: 2}, true, false},
		{Config{MinPerSecond: 2}, false, true},
		{Config{MinPerSecond: 1, TTL: 5 * time.Second}, true, false},
		{Config{Ratio: 1}, false, true}, // taken at the moment before
	} {
		synctest.Test(t, func(t *testing.T) {
			b := New(Config{MinPerSecond: 1})
			others := 0
			b.between = func() {
				b.between = nil
				b.SetConfig(c.then)
				for c.all && b.Withdraw() {
					others++
				}
			}
			if got := b.Withdraw(); got != c.want {
				t.Errorf("%+v: got %t after %d tokens of another call, want %t", c.then, got, others, c.want)
			}
		})
	}
}
