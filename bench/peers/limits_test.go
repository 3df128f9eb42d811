package peers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	failsafebulkhead "github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/ratelimit"
)

var errFull, errLimited = errors.New("full"), errors.New("limited")

// bulkheads returns policies that let this many calls run concurrently and refuse others.
func bulkheads(fn effector, limit int) []side {
	call := func() (int, error) { return fn(ctx) }
	ours := bulkhead.New(bulkhead.Config{Limit: limit})
	permits := semaphore.NewWeighted(int64(limit))
	slots := make(chan struct{}, limit)
	executor := failsafe.With(failsafebulkhead.New[int](uint(limit)))
	twoStep := failsafebulkhead.New[int](uint(limit))
	return []side{
		{"ours", func() error { _, err := bulkhead.Do(ctx, ours, fn); return err }},
		{"ours-two-step", func() error {
			permit, err := ours.Acquire(ctx)
			if err != nil {
				return err
			}
			defer permit.Release()
			_, err = fn(ctx)
			return err
		}},
		{"semaphore", func() error {
			if !permits.TryAcquire(1) {
				return errFull
			}
			defer permits.Release(1)
			_, err := fn(ctx)
			return err
		}},
		{"channel", func() error {
			select {
			case slots <- struct{}{}:
			default:
				return errFull
			}
			defer func() { <-slots }()
			_, err := fn(ctx)
			return err
		}},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
		{"failsafe-two-step", func() error {
			if !twoStep.TryAcquirePermit() {
				return errFull
			}
			defer twoStep.ReleasePermit()
			_, err := fn(ctx)
			return err
		}},
	}
}

func bulkheadsOfOne(fn effector) []side { return bulkheads(fn, 1) }

// queueing returns policies that let this many calls run concurrently. Others wait until one
// returns or their context ends.
func queueing(fn effector, limit int) []side {
	ours := bulkhead.New(bulkhead.Config{Limit: limit, Queue: 1 << 20})
	permits := semaphore.NewWeighted(int64(limit))
	slots := make(chan struct{}, limit)
	call := func() (int, error) { return fn(ctx) }
	executor := failsafe.With(failsafebulkhead.NewBuilder[int](uint(limit)).WithMaxWaitTime(time.Hour).Build())
	twoStep := failsafebulkhead.New[int](uint(limit))
	return []side{
		{"ours", func() error { _, err := bulkhead.Do(ctx, ours, fn); return err }},
		{"semaphore", func() error {
			if err := permits.Acquire(ctx, 1); err != nil {
				return err
			}
			defer permits.Release(1)
			_, err := fn(ctx)
			return err
		}},
		{"channel", func() error {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			defer func() { <-slots }()
			_, err := fn(ctx)
			return err
		}},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
		{"failsafe-two-step", func() error {
			if err := twoStep.AcquirePermit(ctx); err != nil {
				return err
			}
			defer twoStep.ReleasePermit()
			_, err := fn(ctx)
			return err
		}},
	}
}

// full returns sides that admit only one concurrent call. Each one has admitted a call that hangs
// until release is called.
func full(sides func(effector) []side, fn effector) (filled []side, release func()) {
	end, admitted, hang := make(chan struct{}), make(chan struct{}), true
	filled = sides(func(ctx context.Context) (int, error) {
		if !hang {
			return fn(ctx)
		}
		admitted <- struct{}{}
		<-end
		return 0, nil
	})
	var hanging errgroup.Group
	for _, s := range filled {
		if s.name != "ours-two-step" { // it shares the bulkhead of ours
			hanging.Go(s.call)
			<-admitted
		}
	}
	hang = false
	return filled, func() { close(end); hanging.Wait() }
}

const plenty = 1 << 40 // tokens: more than calls take

// limiters returns rate limiters with more tokens than calls take, so no call is refused or waits.
func limiters(fn effector) []side {
	const perSecond = 1e6
	call := func() (int, error) { return fn(ctx) }
	ours := ratelimit.New(ratelimit.Config{Rate: perSecond, Burst: plenty})
	xtime := rate.NewLimiter(perSecond, plenty)
	executor := failsafe.With(ratelimiter.NewBursty[int](plenty, time.Hour))
	twoStep := ratelimiter.NewBursty[int](plenty, time.Hour)
	return []side{
		{"ours", func() error { _, err := ratelimit.Do(ctx, ours, fn); return err }},
		{"ours-allow", func() error {
			if !ours.Allow() {
				return errLimited
			}
			_, err := fn(ctx)
			return err
		}},
		{"x-time", func() error {
			if !xtime.Allow() {
				return errLimited
			}
			_, err := fn(ctx)
			return err
		}},
		{"x-time-wait", func() error {
			if err := xtime.Wait(ctx); err != nil {
				return err
			}
			_, err := fn(ctx)
			return err
		}},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
		{"failsafe-two-step", func() error {
			if !twoStep.TryAcquirePermit() {
				return errLimited
			}
			_, err := fn(ctx)
			return err
		}},
	}
}

// limited returns rate limiters whose only token in an hour has been taken.
func limited(fn effector) []side {
	call := func() (int, error) { return fn(ctx) }
	ours := ratelimit.New(ratelimit.Config{Rate: 1.0 / 3600})
	xtime := rate.NewLimiter(rate.Every(time.Hour), 1)
	executor := failsafe.With(ratelimiter.NewBursty[int](1, time.Hour))
	twoStep := ratelimiter.NewBursty[int](1, time.Hour)
	sides := []side{
		{"ours", func() error { _, err := ratelimit.Do(ctx, ours, fn); return err }},
		{"ours-allow", func() error {
			if !ours.Allow() {
				return errLimited
			}
			_, err := fn(ctx)
			return err
		}},
		{"x-time", func() error {
			if !xtime.Allow() {
				return errLimited
			}
			_, err := fn(ctx)
			return err
		}},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
		{"failsafe-two-step", func() error {
			if !twoStep.TryAcquirePermit() {
				return errLimited
			}
			_, err := fn(ctx)
			return err
		}},
	}
	for _, s := range sides {
		s.call()
	}
	return sides
}

const someCallers = 1000 // more than call concurrently

// BenchmarkBulkhead is a call within the limit.
func BenchmarkBulkhead(b *testing.B) { run(b, bulkheads(succeed, someCallers)) }

// BenchmarkBulkheadFull is a call that is refused.
func BenchmarkBulkheadFull(b *testing.B) {
	sides, release := full(bulkheadsOfOne, fail)
	defer release()
	run(b, sides)
}

// BenchmarkBulkheadQueue is a call that waits if another one is running.
func BenchmarkBulkheadQueue(b *testing.B) { run(b, queueing(succeed, 1)) }

// BenchmarkRateLimit is a call that is admitted immediately.
func BenchmarkRateLimit(b *testing.B) { run(b, limiters(succeed)) }

// BenchmarkRateLimited is a call that is refused.
func BenchmarkRateLimited(b *testing.B) { run(b, limited(fail)) }
