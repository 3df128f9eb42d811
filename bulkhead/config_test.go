package bulkhead_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/resiliencetest"
)

func TestBulkheadConfigReturnsWhatWasSet(t *testing.T) {
	first := bulkhead.Config{Name: "reports", Limit: 3, Queue: 5, MaxWait: time.Second}
	b := bulkhead.New(first)
	if b.Config() != first || b.Name() != "reports" {
		t.Errorf("got %+v, %q; want %+v", b.Config(), b.Name(), first)
	}
	b.Resize(7)
	first.Limit = 7
	if b.Config() != first {
		t.Errorf("got %+v after Resize(7), want %+v", b.Config(), first)
	}
	second := bulkhead.Config{Name: "mail", Limit: 2}
	if err := b.SetConfig(second); err != nil || b.Config() != second || b.Name() != "mail" {
		t.Errorf("got %v, %+v, %q; want %+v", err, b.Config(), b.Name(), second)
	}
	if s := b.Snapshot(); s != (bulkhead.Snapshot{Name: "mail", Limit: 2}) {
		t.Errorf("got %+v, want limit 2 and no queue", s)
	}
}

func TestBulkheadSetConfigRejectsInvalidConfig(t *testing.T) {
	before := bulkhead.Config{Name: "reports", Limit: 3, Queue: 5, MaxWait: time.Second}
	b := bulkhead.New(before)
	invalid := bulkhead.Config{Name: "other", Limit: 0, Queue: -1, MaxWait: time.Minute}
	if err := b.SetConfig(invalid); err == nil || err.Error() != invalid.Validate().Error() {
		t.Errorf("got %v, want %v", err, invalid.Validate())
	}
	if b.Config() != before {
		t.Errorf("the Config is %+v after an error, want %+v", b.Config(), before)
	}
}

// queue starts n calls that wait in order. Each appends its number to order when it is admitted,
// and holds its place until the channel is closed.
func queue(t *testing.T, g *errgroup.Group, b *bulkhead.Bulkhead, n int, end <-chan struct{}) (order func() []int) {
	t.Helper()
	var mu sync.Mutex
	var admitted []int
	for i := range n {
		g.Go(func() error {
			_, err := bulkhead.Do(t.Context(), b, func(context.Context) (int, error) {
				mu.Lock()
				admitted = append(admitted, i)
				mu.Unlock()
				<-end
				return 0, nil
			})
			return err
		})
		synctest.Wait()
	}
	return func() []int {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(admitted)
	}
}

// Running and waiting calls exceed the new Limit and the new Queue. The newcomer is refused by the
// new Config.
func TestBulkheadSetConfigKeepsPlacesAndWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Name: "old", Limit: 3, Queue: 4})
		held := []*bulkhead.Permit{take(t, b), take(t, b), take(t, b)}
		end := make(chan struct{})
		close(end)
		var g errgroup.Group
		order := queue(t, &g, b, 4, end)
		if err := b.SetConfig(bulkhead.Config{Name: "new", Limit: 1, Queue: 2}); err != nil {
			t.Fatal(err)
		}
		check(t, b, 3, 4)
		_, err := b.Acquire(t.Context())
		var full *bulkhead.FullError
		if !errors.As(err, &full) || *full != (bulkhead.FullError{Name: "new", Limit: 1, Queue: 2}) {
			t.Errorf("got %#v for a newcomer, want a *FullError of the new Config", err)
		}
		held[0].Release()
		held[1].Release()
		synctest.Wait()
		check(t, b, 1, 4)
		held[2].Release()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if got := order(); !slices.Equal(got, []int{0, 1, 2, 3}) {
			t.Errorf("waiting calls were admitted in the order %v, want 0 to 3", got)
		}
		check(t, b, 0, 0)
	})
}

func TestBulkheadSetConfigAdmitsWaitersIntoNewRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 5})
		held := take(t, b)
		end := make(chan struct{})
		var g errgroup.Group
		order := queue(t, &g, b, 5, end)
		for limit := 2; limit <= 4; limit++ {
			if err := b.SetConfig(bulkhead.Config{Limit: limit, Queue: 5}); err != nil {
				t.Fatal(err)
			}
			if got := order(); !slices.Equal(got, []int{0, 1, 2, 3, 4}[:limit-1]) {
				t.Errorf("limit %d: calls %v were admitted, want the first %d", limit, got, limit-1)
			}
			check(t, b, limit, 6-limit)
		}
		close(end)
		held.Release()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		check(t, b, 0, 0)
	})
}

func TestBulkheadSetConfigQueueAppliesToNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1})
		held := take(t, b)
		if _, err := b.Acquire(t.Context()); !errors.Is(err, bulkhead.ErrFull) {
			t.Errorf("without a queue: got %v, want ErrFull", err)
		}
		if err := b.SetConfig(bulkhead.Config{Limit: 1, Queue: 2}); err != nil {
			t.Fatal(err)
		}
		end := make(chan struct{})
		close(end)
		var g errgroup.Group
		queue(t, &g, b, 2, end)
		check(t, b, 1, 2)
		if _, err := b.Acquire(t.Context()); !errors.Is(err, bulkhead.ErrFull) {
			t.Errorf("with two waiting: got %v, want ErrFull", err)
		}
		held.Release()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// Calls wait under MaxWaits of 5 s, none, and 1 s.
func TestBulkheadSetConfigWaitersKeepMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 3})
		held := take(t, b)
		began := time.Now()
		var g errgroup.Group
		for i, maxWait := range []time.Duration{5 * time.Second, 0, time.Second} {
			if err := b.SetConfig(bulkhead.Config{Limit: 1, Queue: 3, MaxWait: maxWait}); err != nil {
				t.Fatal(err)
			}
			g.Go(func() error {
				permit, err := b.Acquire(t.Context())
				defer permit.Release()
				if maxWait == 0 {
					if time.Since(began) != time.Minute {
						t.Errorf("waiter %d: got %v after %v, want a place after 1m", i, err, time.Since(began))
					}
					return err
				}
				var full *bulkhead.FullError
				if !errors.As(err, &full) || full.Waited != maxWait || time.Since(began) != maxWait {
					t.Errorf("waiter %d: got %v after %v, want a refusal after %v", i, err, time.Since(began), maxWait)
				}
				return nil
			})
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		held.Release()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		check(t, b, 0, 0)
	})
}

// Nothing changes while calls run and wait, and a call allocates no more than before.
func TestBulkheadSetConfigOfOwnConfigChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Name: "reports", Limit: 1, Queue: 2, MaxWait: time.Hour})
		held := take(t, b)
		end := make(chan struct{})
		close(end)
		var g errgroup.Group
		order := queue(t, &g, b, 2, end)
		config, state := b.Config(), b.Snapshot()
		if err := b.SetConfig(b.Config()); err != nil || b.Config() != config || b.Snapshot() != state {
			t.Errorf("got %v, %+v, %+v, want %+v and %+v", err, b.Config(), b.Snapshot(), config, state)
		}
		held.Release()
		if err := g.Wait(); err != nil || !slices.Equal(order(), []int{0, 1}) {
			t.Errorf("got %v in order %v, want 0 and 1", err, order())
		}
		one := func(context.Context) (int, error) { return 1, nil }
		ctx := t.Context()
		if n := testing.AllocsPerRun(1000, func() { bulkhead.Do(ctx, b, one) }); n != 0 {
			t.Errorf("got %v allocations per call, want 0", n)
		}
	})
}

// Every place is returned, no call is lost in the queue, and no more calls run than the largest
// limit allows.
func TestBulkheadSetConfigIsSafeForConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 2, Queue: 8})
		slow := resiliencetest.Slow[int](10 * time.Microsecond)
		var g errgroup.Group
		for worker := range 8 {
			g.Go(func() error {
				for i := range 200 {
					switch worker {
					case 0:
						if err := b.SetConfig(bulkhead.Config{Limit: 1 + i%3, Queue: i % 9}); err != nil {
							return err
						}
					case 1:
						b.Resize(1 + i%3)
					case 2:
						if c := b.Config(); c.Limit < 1 || c.Limit > 3 || c.Queue > 8 || b.Name() != "" {
							t.Errorf("got %+v, want a Config that was set", c)
						}
					}
					if _, err := bulkhead.Do(t.Context(), b, slow.Do); err != nil && !errors.Is(err, bulkhead.ErrFull) {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		check(t, b, 0, 0)
		if n := slow.MaxConcurrent(); n > 3 {
			t.Errorf("%d calls ran concurrently, want at most 3", n)
		}
	})
}

// A running call shrinks its own bulkhead, and then makes room for the call that waits.
func TestBulkheadSetConfigMayBeCalledByRunningCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1})
		end := make(chan struct{})
		close(end)
		var g errgroup.Group
		_, err := bulkhead.Do(t.Context(), b, func(context.Context) (int, error) {
			order := queue(t, &g, b, 1, end)
			if err := b.SetConfig(bulkhead.Config{Limit: 1}); err != nil || len(order()) != 0 {
				t.Errorf("got %v with %v admitted, want none", err, order())
			}
			if err := b.SetConfig(bulkhead.Config{Limit: 2}); err != nil || len(order()) != 1 {
				t.Errorf("got %v with %v admitted, want one", err, order())
			}
			return 0, nil
		})
		if err := errors.Join(err, g.Wait()); err != nil {
			t.Error(err)
		}
		check(t, b, 0, 0)
	})
}

// Two goroutines set different Configs. Config and Snapshot never mix them.
func TestBulkheadConfigIsOfOneInstant(t *testing.T) {
	configs := []bulkhead.Config{{Name: "a", Limit: 1, Queue: 1, MaxWait: 1}, {Name: "b", Limit: 2, Queue: 2, MaxWait: 2}}
	b := bulkhead.New(configs[0])
	var g errgroup.Group
	for _, config := range configs {
		g.Go(func() error {
			for range 1000 {
				if err := b.SetConfig(config); err != nil {
					return err
				}
				if got := b.Config(); !slices.Contains(configs, got) {
					t.Errorf("got %+v, want one of %+v", got, configs)
				}
				if s := b.Snapshot(); s.Limit != s.Queue || (s.Limit == 1) != (s.Name == "a") {
					t.Errorf("got %+v, want one of %+v", s, configs)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
