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
		if probe, ok := p.admitProbe(); !ok || (probe != nil) != want {
			t.Errorf("caller %d: place %v, ok %v", i+1, probe != nil, ok)
		}
	}
}

// TestProbeWhosePhaseEndsMeanwhileDecidesNothing: it found its phase the present one, and waits for the lock.
func TestProbeWhosePhaseEndsMeanwhileDecidesNothing(t *testing.T) {
	for _, outcome := range []Outcome{Success, Failure} {
		b := New(Config{})
		b.HalfOpen()
		p := b.phase.Load()
		probe, _ := p.admitProbe()
		b.ForceOpen()
		p.bookProbe(probe, outcome, 0, clock.Now())
		if s := b.State(); s != ForcedOpen {
			t.Errorf("%v: %v, want forced open", outcome, s)
		}
	}
}

func TestProbeAfterTheFirstAllocatesNoTimer(t *testing.T) {
	b := New(Config{})
	b.HalfOpen()
	// The probe and its place in the list.
	if n := testing.AllocsPerRun(100, func() {
		p, _ := b.Acquire(context.Background())
		p.Cancel()
	}); n > 2 {
		t.Errorf("%v allocations", n)
	}
}
