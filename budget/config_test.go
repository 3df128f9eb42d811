package budget_test

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/budget"
)

func TestBudgetConfigReturnsDefaultsAndWhatWasSet(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 0.1})
	if want := (budget.Config{Ratio: 0.1, TTL: 10 * time.Second}); b.Config() != want || b.Name() != "" {
		t.Errorf("got %+v, want %+v", b.Config(), want)
	}
	full := budget.Config{Name: "users", Ratio: 0.2, MinPerSecond: 3, TTL: time.Minute}
	if err := b.SetConfig(full); err != nil || b.Config() != full || b.Name() != "users" {
		t.Errorf("got %v, %+v, %q, want %+v", err, b.Config(), b.Name(), full)
	}
}

func TestBudgetSetConfigRejectsInvalidConfig(t *testing.T) {
	b := budget.New(budget.Config{Name: "users", Ratio: 1})
	b.Deposit()
	before := b.Config()
	invalid := budget.Config{Name: "users", Ratio: -1, TTL: -1}
	err := b.SetConfig(invalid)
	if err == nil || err.Error() != invalid.Validate().Error() {
		t.Errorf("got %v, want %v", err, invalid.Validate())
	}
	if b.Config() != before || withdrawAll(b) != 1 {
		t.Errorf("got %+v after an error, want %+v and the token", b.Config(), before)
	}
}

func TestBudgetConfigValidateErrorsContainName(t *testing.T) {
	const want = "budget users: Ratio is -1, must be 0 or from 1e-06 to 1000"
	if err := (budget.Config{Name: "users", Ratio: -1, MinPerSecond: 1}).Validate(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestBudgetSetConfigKeepsTokens: for any new Config, also without a Ratio.
func TestBudgetSetConfigKeepsTokens(t *testing.T) {
	for _, config := range []budget.Config{{Ratio: 2}, {Ratio: 0.5, TTL: time.Minute}, {Ratio: 1, TTL: time.Second}, {MinPerSecond: 1, TTL: time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			b := budget.New(budget.Config{Ratio: 1})
			deposit(b, 5)
			b.Withdraw()
			if err := b.SetConfig(config); err != nil {
				t.Fatal(err)
			}
			want := 4 + int(config.MinPerSecond)
			if got := withdrawAll(b); got != want {
				t.Errorf("%+v: got %d tokens, want %d", config, got, want)
			}
			deposit(b, 10)
			if got, want := withdrawAll(b), int(10*config.Ratio); got != want {
				t.Errorf("%+v: got %d tokens of ten calls, want %d", config, got, want)
			}
		})
	}
}

// TestBudgetSetConfigCountsNewTTLFromNow: a token that was deposited before lasts between 0.9 and 1
// times the new TTL from now.
func TestBudgetSetConfigCountsNewTTLFromNow(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 11 * time.Second, time.Hour} {
		for _, c := range []struct {
			wait  time.Duration
			lasts bool
		}{{ttl*9/10 - 1, true}, {ttl, false}} {
			synctest.Test(t, func(t *testing.T) {
				b := budget.New(budget.Config{Ratio: 1})
				b.Deposit()
				time.Sleep(8 * time.Second)
				b.Deposit()
				if err := b.SetConfig(budget.Config{Ratio: 1, TTL: ttl}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(c.wait)
				want := 0
				if c.lasts {
					want = 2
				}
				if got := withdrawAll(b); got != want {
					t.Errorf("TTL %v, after %v: got %d tokens, want %d", ttl, c.wait, got, want)
				}
			})
		}
	}
}

// TestBudgetSetConfigRevivesNoExpiredToken: a longer TTL applies only to tokens that haven't expired.
func TestBudgetSetConfigRevivesNoExpiredToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1})
		deposit(b, 3)
		time.Sleep(10 * time.Second)
		b.SetConfig(budget.Config{Ratio: 1, TTL: time.Hour})
		if got := withdrawAll(b); got != 0 {
			t.Errorf("got %d tokens that had expired, want 0", got)
		}
	})
}

// TestBudgetSetConfigOfOwnConfigChangesNothing: a token keeps its age.
func TestBudgetSetConfigOfOwnConfigChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1, MinPerSecond: 1})
		deposit(b, 2)
		time.Sleep(5 * time.Second)
		if err := b.SetConfig(b.Config()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if got := withdrawAll(b); got != 10 {
			t.Errorf("got %d tokens, want the 10 of the reserve", got)
		}
		b.SetConfig(b.Config())
		time.Sleep(3 * time.Second)
		b.SetConfig(b.Config())
		if got := withdrawAll(b); got != 3 {
			t.Errorf("got %d tokens, want 3", got)
		}
		if n := testing.AllocsPerRun(100, func() { b.Deposit(); b.Withdraw() }); n != 0 {
			t.Errorf("got %v allocations, want 0", n)
		}
	})
}

// TestBudgetSetConfigKeepsWhatReserveLacks: what was taken from the reserve stays taken.
func TestBudgetSetConfigKeepsWhatReserveLacks(t *testing.T) {
	for _, c := range []struct {
		name  string
		taken int
		then  []budget.Config
		left  int
		later int // more tokens, two seconds later
	}{
		{"the same", 3, []budget.Config{{MinPerSecond: 1}}, 7, 2},
		{"larger", 3, []budget.Config{{MinPerSecond: 2}}, 17, 4},
		{"larger by TTL", 3, []budget.Config{{MinPerSecond: 1, TTL: 20 * time.Second}}, 17, 2},
		{"smaller", 3, []budget.Config{{MinPerSecond: 0.5}}, 2, 1},
		{"smaller than what was taken", 8, []budget.Config{{MinPerSecond: 0.5}}, 0, 1},
		{"all taken", 10, []budget.Config{{MinPerSecond: 3}}, 20, 6},
		{"none taken", 0, []budget.Config{{MinPerSecond: 3}}, 30, 6},
		{"off and on", 4, []budget.Config{{Ratio: 1}, {MinPerSecond: 1}}, 6, 2},
		{"off and larger", 4, []budget.Config{{Ratio: 1}, {MinPerSecond: 2}}, 16, 4},
		{"there and back", 4, []budget.Config{{MinPerSecond: 5}, {MinPerSecond: 0.7, TTL: time.Minute}, {MinPerSecond: 1}}, 6, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := budget.New(budget.Config{MinPerSecond: 1})
			for range c.taken {
				b.Withdraw()
			}
			for _, config := range c.then {
				if err := b.SetConfig(config); err != nil {
					t.Fatal(err)
				}
			}
			if got := withdrawAll(b); got != c.left {
				t.Errorf("%s: got %d tokens, want %d", c.name, got, c.left)
			}
			time.Sleep(2 * time.Second)
			if got := withdrawAll(b); got != c.later {
				t.Errorf("%s: got %d tokens after two seconds, want %d", c.name, got, c.later)
			}
		})
	}
}

// TestBudgetSetConfigReserveLacksAtMostAll: a reserve that became smaller than what was taken refills
// from empty.
func TestBudgetSetConfigReserveLacksAtMostAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{MinPerSecond: 1})
		withdrawAll(b)
		b.SetConfig(budget.Config{MinPerSecond: 0.5})
		time.Sleep(4 * time.Second)
		if got := withdrawAll(b); got != 2 {
			t.Errorf("got %d tokens after four seconds, want 2", got)
		}
	})
}

func TestBudgetSetConfigKeepsUnusedReserveFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{MinPerSecond: 1e6})
		time.Sleep(time.Hour)
		b.SetConfig(budget.Config{MinPerSecond: 1})
		if got := withdrawAll(b); got != 10 {
			t.Errorf("got %d tokens, want 10", got)
		}
	})
}

func TestBudgetSetConfigStartsNewReserveFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1})
		b.SetConfig(budget.Config{Ratio: 1, MinPerSecond: 2})
		if got := withdrawAll(b); got != 20 {
			t.Errorf("got %d tokens, want 20", got)
		}
	})
}

// TestBudgetSetConfigOffReserveRefills: while MinPerSecond is 0, at the rate before.
func TestBudgetSetConfigOffReserveRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{MinPerSecond: 1})
		withdrawAll(b)
		b.SetConfig(budget.Config{Ratio: 1})
		time.Sleep(4 * time.Second)
		if b.Withdraw() {
			t.Error("got a token of a reserve that is off")
		}
		b.SetConfig(budget.Config{MinPerSecond: 2})
		if got := withdrawAll(b); got != 14 {
			t.Errorf("got %d tokens, want the 20 of the new reserve minus the 6 that the old one lacked", got)
		}
	})
}

// TestBudgetSetConfigLosesNoTokenUnderConcurrency: virtual time stands still, so whatever was
// deposited can be withdrawn, and the reserve supplies exactly its tokens.
func TestBudgetSetConfigLosesNoTokenUnderConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(5) {
			const tokens = 1000
			configs := []budget.Config{ // the reserves hold as many tokens, so the changes lose none
				{Ratio: 1, MinPerSecond: tokens / 10}, {Ratio: 1, MinPerSecond: tokens / 20, TTL: 20 * time.Second},
				{Ratio: 1, MinPerSecond: tokens, TTL: time.Second}, {Ratio: 1, MinPerSecond: tokens / 40, TTL: 40 * time.Second},
			}
			b := budget.New(configs[0])
			var withdrawn atomic.Int64
			var group errgroup.Group
			for range 3 {
				group.Go(func() error {
					for range tokens {
						b.Deposit()
						for range 2 {
							if b.Withdraw() {
								withdrawn.Add(1)
							}
						}
					}
					return nil
				})
			}
			for i := range uint64(2) {
				random := rand.New(rand.NewPCG(seed, i))
				group.Go(func() error {
					for range 300 {
						if err := b.SetConfig(configs[random.IntN(len(configs))]); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			if got := int(withdrawn.Load()) + withdrawAll(b); got != 4*tokens {
				t.Errorf("got %d tokens, want %d deposited and %d of the reserve", got, 3*tokens, tokens)
			}
		}
	})
}
