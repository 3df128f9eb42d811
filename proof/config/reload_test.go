package config

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resilienceconfig"
)

const (
	callers = 200
	changes = 100
	places  = 50 // of the bulkhead that all calls share
)

// version returns a file that differs from the previous ones in numbers, order, and policies. The
// bulkhead and the breaker called down stay.
func version(r *rand.Rand) string {
	extra := []string{"    - timeout: {limit: 10m}\n", "    - retry: {maxAttempts: 2, budget: extra}\n", "    - breaker: {consecutive: 1000}\n", "    - hedge: {delay: 1h}\n", ""}
	r.Shuffle(len(extra), func(i, j int) { extra[i], extra[j] = extra[j], extra[i] })
	return fmt.Sprintf(`budgets:
  extra: {ratio: %.2f}
policies:
  places: {bulkhead: {limit: %d, queue: %d}}
  down: {breaker: {consecutive: 1, openFor: %dh, maxOpenFor: 1000h}}
pipelines:
  outage: [use: down]
  users:
%s%s    - use: places
  hosts:
%s    - use: users
`, 0.1+r.Float64(), places, callers+r.IntN(50), 100+r.IntN(9), extra[0], extra[1], extra[2])
}

// spoil damages a file in one of the ways that happen.
func spoil(r *rand.Rand, path, text string) error {
	switch r.IntN(6) {
	case 0:
		return os.WriteFile(path, []byte(text[:len(text)/2]+"["), 0o600) // half-written
	case 1:
		return os.WriteFile(path, []byte(strings.Replace(text, "10m", "10", 1)+"  : :"), 0o600)
	case 2:
		return os.WriteFile(path, []byte(strings.Replace(text, "limit", "limmit", 1)), 0o600)
	case 3:
		return os.WriteFile(path, nil, 0o600)
	case 4:
		return os.Remove(path)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Mkdir(path, 0o700)
}

// TestReloadUnderLoad changes a file 100 times, half of them to something broken, while 200 callers
// make calls. No call fails, no state is lost, and nothing is left at the end: a bubble must be empty.
func TestReloadUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipelines.yaml")
	r := rand.New(rand.NewPCG(1, 2))
	if err := os.WriteFile(path, []byte(version(r)), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		set, err := resilienceconfig.Load(path, resilienceconfig.Options{Interval: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		down := errors.New("down")
		if err := resilience.Run(t.Context(), set.Pipeline("outage"), func(context.Context) error { return down }); !errors.Is(err, down) {
			t.Fatalf("got %v, want the failure that opens the breaker", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var updates, faults int
		watched := make(chan error)
		go func() {
			watched <- set.Watch(ctx, path, func(d resilienceconfig.Diff, err error) {
				if err != nil {
					faults++
				} else {
					updates++
				}
			})
		}()

		var running, most, calls atomic.Int64
		fetch := func(ctx context.Context) (int64, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(300 * time.Millisecond)
			return calls.Add(1), ctx.Err()
		}
		load, loadCtx := errgroup.WithContext(t.Context())
		done := make(chan struct{})
		for i := range callers {
			load.Go(func() error {
				policy := set.Pipeline("users")
				if i%2 == 0 {
					policy = set.Make("hosts")
				}
				for n := 0; ; n++ {
					select {
					case <-done:
						return nil
					default:
					}
					if _, err := resilience.Do(loadCtx, policy, fetch); err != nil {
						return fmt.Errorf("caller %d, call %d: %w", i, n, err)
					}
				}
			})
		}
		for n := range changes {
			text := version(r)
			if n%2 == 0 {
				err = spoil(r, path, text)
			} else {
				if err = os.RemoveAll(path); err == nil { // it may be a directory
					err = os.WriteFile(path, []byte(text), 0o600)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(2000+r.IntN(1000)) * time.Millisecond)
		}
		close(done)
		if err := load.Wait(); err != nil {
			t.Errorf("got %v, want no failure", err)
		}
		if updates != changes/2 || faults != changes/2 {
			t.Errorf("got %d updates and %d errors, want %d of each", updates, faults, changes/2)
		}
		if got := most.Load(); got != places {
			t.Errorf("got %d concurrent calls, want the %d places of one bulkhead", got, places)
		}
		var open *breaker.OpenError
		if err := resilience.Run(t.Context(), set.Pipeline("outage"), func(context.Context) error { return nil }); !errors.As(err, &open) {
			t.Errorf("got %v, want the breaker to be open still", err)
		}
		if calls.Load() < callers*10 {
			t.Errorf("got %d calls, want load", calls.Load())
		}
		stop()
		if err := <-watched; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v from Watch, want context.Canceled", err)
		}
	})
}
