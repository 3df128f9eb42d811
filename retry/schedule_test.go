package retry_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience/retry"
)

const sec = time.Second

func TestSchedulesFollowFormulas(t *testing.T) {
	for name, test := range map[string]struct {
		make      func() backoff.BackOff
		low, high []time.Duration
	}{
		"Constant":    {make: retry.Constant(sec), high: []time.Duration{sec, sec, sec}},
		"Linear":      {make: retry.Linear(2*sec, 5*sec), high: []time.Duration{2 * sec, 4 * sec, 5 * sec, 5 * sec}},
		"Exponential": {make: retry.Exponential(sec, 10*sec), high: []time.Duration{sec, 2 * sec, 4 * sec, 8 * sec, 10 * sec, 10 * sec}},
		"Fibonacci":   {make: retry.Fibonacci(sec, 7*sec), high: []time.Duration{sec, sec, 2 * sec, 3 * sec, 5 * sec, 7 * sec, 7 * sec}},
		"FullJitter":  {retry.FullJitter(sec, 3*sec), []time.Duration{0, 0, 0, 0}, []time.Duration{sec, 2 * sec, 3 * sec, 3 * sec}},
		"EqualJitter": {retry.EqualJitter(sec, 3*sec), []time.Duration{sec / 2, sec, 3 * sec / 2}, []time.Duration{sec, 2 * sec, 3 * sec}},
	} {
		t.Run(name, func(t *testing.T) {
			schedule := test.make()
			for range 200 { // each starts the schedule again
				schedule.Reset()
				for i, high := range test.high {
					low := high
					if test.low != nil {
						low = test.low[i]
					}
					if got := schedule.NextBackOff(); got < low || got > high {
						t.Fatalf("delay %d: got %v, want %v to %v", i, got, low, high)
					}
				}
			}
		})
	}
}

func TestDecorrelatedStaysWithinThreeTimesLastDelay(t *testing.T) {
	schedule := retry.Decorrelated(sec, 20*sec)()
	longest, shorter := time.Duration(0), 0
	for range 200 {
		schedule.Reset()
		last := sec
		for range 20 {
			got := schedule.NextBackOff()
			if got < sec || got > min(20*sec, 3*last) {
				t.Fatalf("got %v after %v, want 1s to three times the last delay, at most 20s", got, last)
			}
			if got < last {
				shorter++
			}
			last, longest = got, max(longest, got)
		}
	}
	if longest < 15*sec {
		t.Errorf("got a longest delay of %v among 4000, want at least 15s", longest)
	}
	if shorter < 1000 {
		t.Errorf("got %d of 4000 delays shorter than the previous one, want at least 1000", shorter)
	}
}

func TestSchedulesJitterSpreadsDelays(t *testing.T) {
	for name, schedule := range map[string]backoff.BackOff{
		"FullJitter": retry.FullJitter(sec, 10*sec)(), "EqualJitter": retry.EqualJitter(sec, 10*sec)(), "Decorrelated": retry.Decorrelated(sec, 10*sec)(),
	} {
		seen := make(map[time.Duration]bool)
		for range 100 {
			schedule.Reset()
			seen[schedule.NextBackOff()] = true
		}
		if len(seen) < 98 {
			t.Errorf("%s: got %d distinct values among 100 first delays, want at least 98", name, len(seen))
		}
	}
}

func TestSchedulesJitterReachesBothBounds(t *testing.T) {
	for name, test := range map[string]struct {
		schedule  backoff.BackOff
		low, high time.Duration
	}{
		"FullJitter":              {retry.FullJitter(1, 1)(), 0, 1},
		"EqualJitter":             {retry.EqualJitter(2, 2)(), 1, 2},
		"EqualJitter, half of 1":  {retry.EqualJitter(1, 1)(), 1, 1}, // half is rounded up
		"Decorrelated":            {retry.Decorrelated(1, 2)(), 1, 2},
		"Decorrelated, no choice": {retry.Decorrelated(1, 1)(), 1, 1},
	} {
		shortest, longest := test.schedule.NextBackOff(), time.Duration(0)
		for range 1000 {
			got := test.schedule.NextBackOff()
			shortest, longest = min(shortest, got), max(longest, got)
		}
		if shortest != test.low || longest != test.high {
			t.Errorf("%s: got %v to %v, want %v to %v", name, shortest, longest, test.low, test.high)
		}
	}
}

func TestSchedulesAreIndependent(t *testing.T) {
	factory := retry.Exponential(sec, time.Hour)
	one, two := factory(), factory()
	one.NextBackOff()
	one.NextBackOff()
	if got := two.NextBackOff(); got != sec {
		t.Errorf("got %v as the second schedule's first delay, want 1s", got)
	}
}

func TestSchedulesPanicOnArgumentOutOfRange(t *testing.T) {
	for want, make := range map[string]func(){
		"retry: Constant: d is -1ns, must not be negative":             func() { retry.Constant(-1) },
		"retry: Linear: step is 0s, must be positive":                  func() { retry.Linear(0, 1) },
		"retry: Exponential: initial is -1s, must be positive":         func() { retry.Exponential(-sec, 1) },
		"retry: FullJitter: max is 1s, must be at least initial, 2s":   func() { retry.FullJitter(2*sec, sec) },
		"retry: EqualJitter: initial is 0s, must be positive":          func() { retry.EqualJitter(0, 0) },
		"retry: Decorrelated: max is 0s, must be at least initial, 1s": func() { retry.Decorrelated(sec, 0) },
		"retry: Fibonacci: initial is 0s, must be positive":            func() { retry.Fibonacci(0, sec) },
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("got panic %v, want %q", got, want)
				}
			}()
			make()
		}()
	}
}

func FuzzSchedulesStayInRange(f *testing.F) {
	f.Add(int64(1), int64(math.MaxInt64), uint16(200))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), uint16(10))
	f.Add(int64(math.MaxInt64/2), int64(math.MaxInt64-1), uint16(10))
	f.Add(int64(100*time.Millisecond), int64(10*sec), uint16(50))
	f.Fuzz(func(t *testing.T, low, high int64, calls uint16) {
		if low <= 0 || high < low {
			return
		}
		initial, max := time.Duration(low), time.Duration(high)
		for name, make := range map[string]func() backoff.BackOff{
			"Constant": retry.Constant(max), "Linear": retry.Linear(initial, max), "Exponential": retry.Exponential(initial, max),
			"FullJitter": retry.FullJitter(initial, max), "EqualJitter": retry.EqualJitter(initial, max),
			"Decorrelated": retry.Decorrelated(initial, max), "Fibonacci": retry.Fibonacci(initial, max),
		} {
			schedule := make()
			for i := range int(calls) {
				if got := schedule.NextBackOff(); got < 0 || got > max {
					t.Fatalf("%s(%v, %v): got %v as delay %d", name, initial, max, got, i)
				}
			}
			if name == "Linear" && calls > 0 && schedule.NextBackOff() < initial || strings.HasSuffix(name, "related") && schedule.NextBackOff() < initial {
				t.Fatalf("%s(%v, %v): got a delay below the minimum", name, initial, max)
			}
		}
	})
}
