package hedge

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestHedgeConfigValidateReportsAllErrors(t *testing.T) {
	const want = "hedge users: Quantile is NaN, must be above 0 and below 1, or 0 for none\n" +
		"hedge users: Delay is -1s, must be positive, or 0 with Quantile\n" +
		"hedge users: MinSamples is -1, must be positive, or 0 for the default 100\n" +
		"hedge users: Max is -1, must be positive, or 0 for the default 1"
	err := Config{Name: "users", Delay: -time.Second, Quantile: math.NaN(), MinSamples: -1, Max: -1}.Validate()
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestHedgeConfigValidateQuantileRange(t *testing.T) {
	for quantile, ok := range map[float64]bool{
		0.5: true, math.SmallestNonzeroFloat64: true, math.Nextafter(1, 0): true,
		1: false, -0.1: false, 1.5: false, math.Inf(1): false, math.Inf(-1): false,
	} {
		if err := (Config{Quantile: quantile}).Validate(); (err == nil) != ok {
			t.Errorf("Quantile %v: got %v, want valid %t", quantile, err, ok)
		}
	}
	if err := (Config{Delay: 1}).Validate(); err != nil {
		t.Errorf("Delay 1ns: got %v, want nil", err)
	}
}

func TestHedgeConfigDefaults(t *testing.T) {
	h := New(Config{Delay: 1})
	if c := h.Config(); c.MinSamples != 100 || c.Max != 1 || c.Budget != nil {
		t.Errorf("got defaults %+v, want MinSamples 100, Max 1, and no budget", c)
	}
	if h.settings.Load().budget == nil {
		t.Error("got no default budget in use")
	}
}

func TestHedgeDefaultBudgetKeepsDepositsForFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for wait, want := range map[time.Duration]bool{4 * time.Minute: true, 6 * time.Minute: false} {
			b := newDefaultBudget()
			for range 20 {
				b.Deposit()
			}
			time.Sleep(wait)
			if got := b.Withdraw(); got != want {
				t.Errorf("got a token %t %v after 20 calls, want %t", got, wait, want)
			}
		}
	})
}
