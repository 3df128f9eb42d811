package breaker

import (
	"context"
	"testing"

	"github.com/effector-go/resilience/internal/clock"
)

// Several callers may have seen that a probe may start when the last one starts.
func TestAdmitProbeNeverExceedsProbes(t *testing.T) {
	b := New(Config{Probes: 2})
	b.HalfOpen()
	p := b.phase.Load()
	for i, want := range []bool{true, true, false} {
		if probe, ok := p.admitProbe(); !ok || (probe != nil) != want {
			t.Errorf("caller %d: got probe %v, ok %v, want %v, true", i+1, probe != nil, ok, want)
		}
	}
}

// The probe's call has seen that its phase is the current one, and waits for the lock.
func TestBookProbeIgnoresEndedPhase(t *testing.T) {
	for _, outcome := range []Outcome{Success, Failure} {
		b := New(Config{})
		b.HalfOpen()
		p := b.phase.Load()
		probe, _ := p.admitProbe()
		b.ForceOpen()
		p.bookProbe(probe, outcome, nil, 0, clock.Now())
		if s := b.State(); s != ForcedOpen {
			t.Errorf("%v: got %v, want forced open", outcome, s)
		}
	}
}

func TestProbeAllocatesNoSecondTimer(t *testing.T) {
	b := New(Config{})
	b.HalfOpen()
	// Two allocations: the probe and its place in the list.
	if n := testing.AllocsPerRun(100, func() {
		p, _ := b.Acquire(context.Background())
		p.Cancel()
	}); n > 2 {
		t.Errorf("got %v allocations, want at most 2", n)
	}
}
