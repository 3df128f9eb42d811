package breaker

import (
	"context"
	"testing"

	"github.com/effector-go/resilience/internal/clock"
)

// TestRacingCallersGetNoMorePlacesThanProbes: several may have seen a free place when the last one is taken.
func TestRacingCallersGetNoMorePlacesThanProbes(t *testing.T) {
	b := New(Config{Probes: 2})
	b.HalfOpen()
	p := b.phase.Load()
	for i, want := range []bool{true, true, false} {
		if trial, ok := p.admitTrial(); !ok || (trial != nil) != want {
			t.Errorf("caller %d: place %v, ok %v", i+1, trial != nil, ok)
		}
	}
}

// TestTrialWhosePhaseEndsMeanwhileDecidesNothing: it found its phase the present one, and waits for the lock.
func TestTrialWhosePhaseEndsMeanwhileDecidesNothing(t *testing.T) {
	for _, outcome := range []Outcome{Success, Failure} {
		b := New(Config{})
		b.HalfOpen()
		p := b.phase.Load()
		trial, _ := p.admitTrial()
		b.ForceOpen()
		p.bookTrial(trial, outcome, 0, clock.Now())
		if s := b.State(); s != ForcedOpen {
			t.Errorf("%v: %v, want forced open", outcome, s)
		}
	}
}

func TestTrialAfterTheFirstAllocatesNoTimer(t *testing.T) {
	b := New(Config{})
	b.HalfOpen()
	// The trial and its place in the list.
	if n := testing.AllocsPerRun(100, func() {
		p, _ := b.Acquire(context.Background())
		p.Cancel()
	}); n > 2 {
		t.Errorf("%v allocations", n)
	}
}
