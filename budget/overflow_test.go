package budget

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// The counters hold all that was ever deposited and spent. Here they start wherever such a sum
// could overflow.

func TestBudgetKeepsRatioAtAnyCount(t *testing.T) {
	for _, start := range []uint64{1e9 * token, 1 << 62, 1<<63 - 3*token, 1 << 63, math.MaxUint64 - 3*token, math.MaxUint64} {
		synctest.Test(t, func(t *testing.T) {
			b := New(Config{Ratio: 0.1})
			b.deposited.Store(start)
			b.spent.Store(start)
			for i := range b.settings.Load().epochs.marks {
				b.settings.Load().epochs.marks[i].Store(start)
			}
			for range 30 { // each epoch three times
				var g errgroup.Group
				for range 4 {
					g.Go(func() error {
						for range 25 {
							b.Deposit()
						}
						return nil
					})
				}
				g.Wait()
				withdrawn := 0
				for b.Withdraw() {
					withdrawn++
				}
				if withdrawn != 10 {
					t.Fatalf("from %d: got %d tokens for 100 calls at ratio 0.1, want 10", start, withdrawn)
				}
				time.Sleep(time.Second)
			}
		})
	}
}

func TestDepositsExpireAtAnyCount(t *testing.T) {
	for _, start := range []uint64{1<<63 - 3*token, math.MaxUint64 - 3*token} {
		synctest.Test(t, func(t *testing.T) {
			b := New(Config{Ratio: 1})
			b.deposited.Store(start)
			b.spent.Store(start)
			for i := range b.settings.Load().epochs.marks {
				b.settings.Load().epochs.marks[i].Store(start)
			}
			for range 10 {
				b.Deposit()
			}
			time.Sleep(10 * time.Second)
			if b.Withdraw() {
				t.Errorf("from %d: got a token from an expired deposit", start)
			}
		})
	}
}

// At the latest possible time, the reserve's sums don't overflow and it stays bounded.
func TestReserveIsBoundedAtLatestTime(t *testing.T) {
	b := New(Config{MinPerSecond: 1, TTL: 3 * time.Second})
	r := b.settings.Load().reserve
	const end = math.MaxInt64 - int64(time.Minute)
	taken := 0
	for range 10 {
		if b.withdrawReserve(r, end) {
			taken++
		}
	}
	if taken != 3 || r.full.Load() != end+3*int64(time.Second) {
		t.Errorf("got %d tokens, want 3; full at %d", taken, r.full.Load())
	}
}
