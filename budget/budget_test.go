package budget_test

import (
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/budget"
)

func deposit(b *budget.Budget, n int) {
	for range n {
		b.Deposit()
	}
}

func withdrawAll(b *budget.Budget) (n int) {
	for b.Withdraw() {
		n++
	}
	return n
}

func TestEmptyAtFirstWithoutReserve(t *testing.T) {
	if budget.New(budget.Config{Ratio: 1}).Withdraw() {
		t.Fatal("a token without a deposit")
	}
}

func TestNDepositsOfOneNthMakeAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for n := 1; n <= 300; n++ {
			b := budget.New(budget.Config{Ratio: 1 / float64(n)})
			deposit(b, n-1)
			if b.Withdraw() {
				t.Fatalf("ratio 1/%d: a token after %d deposits", n, n-1)
			}
			b.Deposit()
			if !b.Withdraw() || b.Withdraw() {
				t.Fatalf("ratio 1/%d: not one token after %d deposits", n, n)
			}
		}
	})
}

func TestRatioAboveOneGivesSeveralTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 2.5})
		deposit(b, 2)
		if got := withdrawAll(b); got != 5 {
			t.Fatalf("got %d tokens, want 5", got)
		}
	})
}

func TestDepositLivesNineTenthsOfTTLAndNotLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 10 * time.Second
		for offset := time.Duration(0); offset < 3*time.Second; offset += 137 * time.Millisecond {
			time.Sleep(offset)
			live, gone := budget.New(budget.Config{Ratio: 1, TTL: ttl}), budget.New(budget.Config{Ratio: 1, TTL: ttl})
			deposit(live, 3)
			deposit(gone, 3)
			time.Sleep(ttl * 9 / 10)
			if got := withdrawAll(live); got != 3 {
				t.Fatalf("offset %v: %d of 3 tokens after 0.9 TTL", offset, got)
			}
			time.Sleep(ttl / 10)
			if got := withdrawAll(gone); got != 0 {
				t.Fatalf("offset %v: %d tokens after TTL", offset, got)
			}
		}
	})
}

func TestOldestTokensGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1})
		deposit(b, 2)
		time.Sleep(6 * time.Second)
		deposit(b, 2)
		if !b.Withdraw() {
			t.Fatal("no token")
		}
		time.Sleep(5 * time.Second) // the first two expire, one of which was withdrawn
		if got := withdrawAll(b); got != 2 {
			t.Fatalf("got %d tokens, want the 2 of the second deposits", got)
		}
	})
}

func TestReserveStartsFullAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{MinPerSecond: 3})
		if got := withdrawAll(b); got != 30 {
			t.Fatalf("full reserve: %d tokens, want 30", got)
		}
		time.Sleep(time.Second)
		if got := withdrawAll(b); got != 3 {
			t.Fatalf("after a second: %d tokens, want 3", got)
		}
		time.Sleep(time.Hour)
		if got := withdrawAll(b); got != 30 {
			t.Fatalf("after an hour: %d tokens, want 30", got)
		}
	})
}

func TestDepositsAreUsedBeforeTheReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1, MinPerSecond: 1})
		deposit(b, 5)
		for range 5 {
			b.Withdraw()
		}
		time.Sleep(5 * time.Second) // a reserve from which five were taken is full again, and five deposits still live
		if got := withdrawAll(b); got != 10 {
			t.Fatalf("%d tokens, want the reserve's 10", got)
		}
	})
}

func TestNeverOverspendsUnderConcurrency(t *testing.T) {
	const goroutines, each = 16, 4000
	for _, ratio := range []float64{0.1, 1. / 3, 1, 1.7} {
		b := budget.New(budget.Config{Ratio: ratio, TTL: time.Hour})
		var taken atomic.Int64
		var group errgroup.Group
		for range goroutines {
			group.Go(func() error {
				for range each {
					b.Deposit()
					for range 2 {
						if b.Withdraw() {
							taken.Add(1)
						}
					}
				}
				return nil
			})
		}
		_ = group.Wait()
		total := int(taken.Load()) + withdrawAll(b)
		want := int(math.Ceil(ratio*1e6-1e-6)) * goroutines * each / 1e6
		if total != want {
			t.Errorf("ratio %v: %d tokens for %d deposits, want %d", ratio, total, goroutines*each, want)
		}
	}
}

// TestADepositIsWorthAWithdrawalUnderConcurrency: whoever withdraws after his own deposit finds a token, since all others do the same.
func TestADepositIsWorthAWithdrawalUnderConcurrency(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 1, TTL: time.Hour})
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			for i := range 50_000 {
				if b.Deposit(); !b.Withdraw() {
					return fmt.Errorf("withdrawal %d: no token", i)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestReserveIsExactUnderConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock stands still while goroutines run
		for range 6 {
			b := budget.New(budget.Config{MinPerSecond: 20_000})
			var taken atomic.Int64
			var group errgroup.Group
			for range 16 {
				group.Go(func() error {
					for range 20_000 {
						if b.Withdraw() {
							taken.Add(1)
						}
					}
					return nil
				})
			}
			_ = group.Wait()
			if got := taken.Load(); got != 200_000 {
				t.Fatalf("got %d tokens, want 200000", got)
			}
		}
	})
}

func TestNeverOverspendsWhileEpochsPass(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 1, TTL: time.Millisecond}) // an epoch is 100 µs of real time
	var deposited, taken atomic.Int64
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			for range 20000 {
				deposited.Add(1)
				b.Deposit()
				if b.Withdraw() {
					if n := taken.Add(1); n > deposited.Load() {
						t.Errorf("%d tokens of fewer deposits", n)
						return nil
					}
				}
			}
			return nil
		})
	}
	_ = group.Wait()
	time.Sleep(2 * time.Millisecond)
	if got := withdrawAll(b); got != 0 {
		t.Errorf("%d tokens after TTL", got)
	}
}

// A bubble's clock stands in the year 2000: for a budget made outside, the clock jumps back by decades.
func TestClockThatJumpsBackDoesNotBlockForEver(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 1, MinPerSecond: 1})
	b.Deposit()
	withdrawAll(b)
	synctest.Test(t, func(t *testing.T) {
		withdrawAll(b)
		b.Deposit()
		if !b.Withdraw() {
			t.Error("no token for a deposit after the jump")
		}
		time.Sleep(10 * time.Second)
		if got := withdrawAll(b); got != 10 {
			t.Errorf("reserve gave %d tokens after TTL, want 10", got)
		}
		deposit(b, 3)
		time.Sleep(10 * time.Second)
		for range 10 {
			b.Withdraw()
		}
		if b.Withdraw() {
			t.Error("deposits outlived TTL after the jump")
		}
	})
}

func TestAllocatesNothing(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 0.5, MinPerSecond: 1})
	if got := testing.AllocsPerRun(1000, func() { b.Deposit(); b.Withdraw() }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestValidateNamesEveryMistake(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, test := range []struct {
		config budget.Config
		wants  []string
	}{
		{budget.Config{}, []string{"Ratio and MinPerSecond are both 0"}},
		{budget.Config{Ratio: -1}, []string{"Ratio is -1", "from 1e-06 to 1000"}},
		{budget.Config{Ratio: nan}, []string{"Ratio is NaN"}},
		{budget.Config{Ratio: inf}, []string{"Ratio is +Inf"}},
		{budget.Config{Ratio: 1001}, []string{"Ratio is 1001"}},
		{budget.Config{MinPerSecond: nan}, []string{"MinPerSecond is NaN"}},
		{budget.Config{MinPerSecond: inf}, []string{"MinPerSecond is +Inf"}},
		{budget.Config{MinPerSecond: -inf}, []string{"MinPerSecond is -Inf"}},
		{budget.Config{MinPerSecond: 0.05}, []string{"MinPerSecond is 0.05, with TTL 10s must be 0 or at least 0.1"}},
		{budget.Config{Ratio: 1, TTL: -1}, []string{"TTL is -1ns", "from 1ms to 8760h"}},
		{budget.Config{Ratio: -2, MinPerSecond: -3, TTL: -4}, []string{"Ratio is -2", "MinPerSecond is -3", "TTL is -4ns"}},
	} {
		err := test.config.Validate()
		if err == nil {
			t.Errorf("%+v: no mistake found", test.config)
			continue
		}
		for _, want := range test.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %q does not say %q", test.config, err, want)
			}
		}
		func() {
			defer func() {
				if got := recover(); got != err.Error() {
					t.Errorf("%+v: New panicked with %v, want %q", test.config, got, err)
				}
			}()
			budget.New(test.config)
		}()
	}
}

func TestValidateAcceptsTheEndsOfItsRanges(t *testing.T) {
	for _, config := range []budget.Config{
		{Ratio: 1e-6},
		{Ratio: 1000},
		{MinPerSecond: 0.1}, // one token in the default TTL
		{MinPerSecond: 1e6},
		{Ratio: 1, TTL: time.Millisecond},
		{Ratio: 1, TTL: 8760 * time.Hour},
	} {
		if err := config.Validate(); err != nil {
			t.Errorf("%+v: %v", config, err)
		}
	}
}

func TestReserveHoldsWholeTokensThoughBinaryDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{MinPerSecond: 0.29, TTL: 100 * time.Second}) // 28.999999999999996 in binary
		if got := withdrawAll(b); got != 29 {
			t.Errorf("%d tokens, want 29", got)
		}
	})
}

func FuzzWhatValidateAcceptsRuns(f *testing.F) {
	f.Add(0.1, 0.0, int64(0))
	f.Add(1e-6, 1e6, int64(time.Millisecond))
	f.Add(1000.0, 1.0, int64(8760*time.Hour))
	f.Fuzz(func(t *testing.T, ratio, perSecond float64, ttl int64) {
		config := budget.Config{Ratio: ratio, MinPerSecond: perSecond, TTL: time.Duration(ttl)}
		if config.Validate() != nil {
			return
		}
		b := budget.New(config)
		if perSecond > 0 && !b.Withdraw() {
			t.Fatalf("%+v: the full reserve holds nothing", config)
		}
		deposit(b, 3)
		b.Withdraw()
	})
}

func BenchmarkDeposit(b *testing.B) {
	extra := budget.New(budget.Config{Ratio: 0.1})
	b.ReportAllocs()
	for b.Loop() {
		extra.Deposit()
	}
}

func BenchmarkDepositParallel(b *testing.B) {
	extra := budget.New(budget.Config{Ratio: 0.1})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			extra.Deposit()
		}
	})
}

func BenchmarkWithdraw(b *testing.B) {
	extra := budget.New(budget.Config{Ratio: 1})
	b.ReportAllocs()
	for b.Loop() {
		extra.Deposit()
		extra.Withdraw()
	}
}

func BenchmarkWithdrawEmpty(b *testing.B) {
	extra := budget.New(budget.Config{Ratio: 1})
	b.ReportAllocs()
	for b.Loop() {
		extra.Withdraw()
	}
}
