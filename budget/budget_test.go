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

func TestBudgetStartsEmptyWithoutReserve(t *testing.T) {
	if budget.New(budget.Config{Ratio: 1}).Withdraw() {
		t.Fatal("got a token without a deposit")
	}
}

func TestDepositsOfRatioAddUpToWholeToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for n := 1; n <= 300; n++ {
			b := budget.New(budget.Config{Ratio: 1 / float64(n)})
			deposit(b, n-1)
			if b.Withdraw() {
				t.Fatalf("ratio 1/%d: got a token after %d deposits, want none", n, n-1)
			}
			b.Deposit()
			if !b.Withdraw() || b.Withdraw() {
				t.Fatalf("ratio 1/%d: want exactly one token after %d deposits", n, n)
			}
		}
	})
}

func TestRatioAboveOneDepositsSeveralTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 2.5})
		deposit(b, 2)
		if got := withdrawAll(b); got != 5 {
			t.Fatalf("got %d tokens, want 5", got)
		}
	})
}

func TestDepositExpiresBetweenNineTenthsOfTTLAndTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 10 * time.Second
		for offset := time.Duration(0); offset < 3*time.Second; offset += 137 * time.Millisecond {
			time.Sleep(offset)
			live, gone := budget.New(budget.Config{Ratio: 1, TTL: ttl}), budget.New(budget.Config{Ratio: 1, TTL: ttl})
			deposit(live, 3)
			deposit(gone, 3)
			time.Sleep(ttl * 9 / 10)
			if got := withdrawAll(live); got != 3 {
				t.Fatalf("offset %v: got %d tokens after 0.9 TTL, want 3", offset, got)
			}
			time.Sleep(ttl / 10)
			if got := withdrawAll(gone); got != 0 {
				t.Fatalf("offset %v: got %d tokens after TTL, want 0", offset, got)
			}
		}
	})
}

func TestWithdrawTakesOldestDepositFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1})
		deposit(b, 2)
		time.Sleep(6 * time.Second)
		deposit(b, 2)
		if !b.Withdraw() {
			t.Fatal("got no token from four deposits")
		}
		time.Sleep(5 * time.Second) // the first two deposits expire; one of them was withdrawn
		if got := withdrawAll(b); got != 2 {
			t.Fatalf("got %d tokens, want the 2 of the second deposits", got)
		}
	})
}

func TestReserveStartsFullAndRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{MinPerSecond: 3})
		if got := withdrawAll(b); got != 30 {
			t.Fatalf("full reserve: got %d tokens, want 30", got)
		}
		time.Sleep(time.Second)
		if got := withdrawAll(b); got != 3 {
			t.Fatalf("after a second: got %d tokens, want 3", got)
		}
		time.Sleep(time.Hour)
		if got := withdrawAll(b); got != 30 {
			t.Fatalf("after an hour: got %d tokens, want 30", got)
		}
	})
}

func TestWithdrawUsesDepositsBeforeReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1, MinPerSecond: 1})
		deposit(b, 5)
		for range 5 {
			b.Withdraw()
		}
		time.Sleep(5 * time.Second) // enough to refill five tokens of the reserve; five deposits still live
		if got := withdrawAll(b); got != 10 {
			t.Fatalf("got %d tokens, want 10 of the reserve", got)
		}
	})
}

func TestBudgetNeverOverspendsUnderConcurrency(t *testing.T) {
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
			t.Errorf("ratio %v: got %d tokens for %d deposits, want %d", ratio, total, goroutines*each, want)
		}
	}
}

// Each goroutine withdraws after its own deposit, so there is always a token.
func TestWithdrawFindsOwnDepositUnderConcurrency(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) { // the clock doesn't advance while goroutines run
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

func TestBudgetNeverOverspendsWhileEpochsPass(t *testing.T) {
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
						t.Errorf("got %d tokens of fewer deposits", n)
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
		t.Errorf("got %d tokens after TTL, want 0", got)
	}
}

// In a bubble it is the year 2000. For a budget created outside, the clock goes back by decades.
func TestBudgetSurvivesClockSetBack(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 1, MinPerSecond: 1})
	b.Deposit()
	withdrawAll(b)
	synctest.Test(t, func(t *testing.T) {
		withdrawAll(b)
		b.Deposit()
		if !b.Withdraw() {
			t.Error("got no token for a deposit after the jump")
		}
		time.Sleep(10 * time.Second)
		if got := withdrawAll(b); got != 10 {
			t.Errorf("got %d tokens of the reserve after TTL, want 10", got)
		}
		deposit(b, 3)
		time.Sleep(10 * time.Second)
		for range 10 {
			b.Withdraw()
		}
		if b.Withdraw() {
			t.Error("got a deposit older than TTL after the jump")
		}
	})
}

func TestBudgetAllocatesNothing(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 0.5, MinPerSecond: 1})
	if got := testing.AllocsPerRun(1000, func() { b.Deposit(); b.Withdraw() }); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func TestBudgetConfigValidateReportsAllErrors(t *testing.T) {
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
			t.Errorf("%+v: got no error", test.config)
			continue
		}
		for _, want := range test.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: got %q, want %q in it", test.config, err, want)
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

func TestBudgetConfigValidateAcceptsEndsOfRanges(t *testing.T) {
	for _, config := range []budget.Config{
		{Ratio: 1e-6},
		{Ratio: 1000},
		{MinPerSecond: 0.1}, // one token in the default TTL
		{MinPerSecond: 1e6},
		{Ratio: 1, TTL: time.Millisecond},
		{Ratio: 1, TTL: 8760 * time.Hour},
	} {
		if err := config.Validate(); err != nil {
			t.Errorf("%+v: got %v, want nil", config, err)
		}
	}
}

func TestReserveRoundsToWholeTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{MinPerSecond: 0.29, TTL: 100 * time.Second}) // 28.999999999999996 in binary
		if got := withdrawAll(b); got != 29 {
			t.Errorf("got %d tokens, want 29", got)
		}
	})
}

func FuzzBudget(f *testing.F) {
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
			t.Fatalf("%+v: got no token from the full reserve", config)
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
