package share_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/share"
)

// errorLog collects what OnError is called with.
type errorLog struct {
	mu   sync.Mutex
	errs []string
}

func (l *errorLog) onError(ctx context.Context, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var p *resilience.PanicError
	if errors.As(err, &p) {
		err = fmt.Errorf("panic: %v", p.Value)
	}
	l.errs = append(l.errs, fmt.Sprint(ctx.Value(key{}), ": ", err))
}

// check compares the errors since the last check.
func (l *errorLog) check(t *testing.T, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if fmt.Sprint(l.errs) != fmt.Sprint(want) {
		t.Errorf("OnError was called with %v, want %v", l.errs, want)
	}
	l.errs = nil
}

func TestRevalidateReturnsOldValueDuringOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Script(
			resiliencetest.Step[int]{Value: 1, Delay: time.Second},
			resiliencetest.Step[int]{Value: 2, Delay: time.Second},
			resiliencetest.Step[int]{Value: 3, Delay: time.Second},
		)
		rates := share.New(share.Config{Fresh: time.Minute, Revalidate: time.Hour}, slow.Do)
		for _, step := range []struct {
			after, takes time.Duration
			want, runs   int
		}{
			{0, time.Second, 1, 1},     // the first caller waits
			{time.Minute - 1, 0, 1, 1}, // the value is fresh
			{1, 0, 1, 2},               // no longer: a run begins in the background
			{time.Second - 1, 0, 1, 2}, // which is still under way
			{2, 0, 2, 2},               // its value is fresh
			{time.Minute + time.Hour - 2, 0, 2, 3},
			{time.Second + 1, 0, 3, 3},
			{time.Minute + time.Hour, time.Second, 3, 4}, // too old: the caller waits
		} {
			time.Sleep(step.after)
			began := time.Now()
			value, err := rates(t.Context())
			took := time.Since(began)
			synctest.Wait()
			if value != step.want || err != nil || took != step.takes || slow.Calls() != step.runs {
				t.Errorf("got %d, %v in %v with %d runs, want %+v", value, err, took, slow.Calls(), step)
			}
		}
	})
}

func TestRevalidateKeepsValueAndReportsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log errorLog
		down := errors.New("down")
		script := resiliencetest.Script(resiliencetest.Step[int]{Value: 1}, resiliencetest.Step[int]{Err: down})
		rates := share.New(share.Config{Fresh: time.Minute, Revalidate: time.Minute, Stale: time.Hour, OnError: log.onError}, script.Do)
		ask := func(name, want string, runs int, reported ...string) {
			t.Helper()
			value, err := rates(context.WithValue(t.Context(), key{}, name))
			synctest.Wait()
			if got := fmt.Sprint(value, " ", err); got != want || script.Calls() != runs {
				t.Errorf("%s: got %s with %d runs, want %s with %d", name, got, script.Calls(), want, runs)
			}
			log.check(t, reported...)
		}
		ask("first", "1 <nil>", 1)
		time.Sleep(time.Minute)
		ask("background", "1 <nil>", 2, "background: down")
		ask("again", "1 <nil>", 3, "again: down") // one run per caller while runs fail, one at a time
		time.Sleep(time.Minute)
		ask("stale", "1 <nil>", 4, "stale: down") // this caller has waited, and gets the value instead of the error
		time.Sleep(time.Hour)
		ask("late", "0 down", 5) // this caller gets the error itself
	})
}

// An error in the time of Revalidate never reaches a caller, with or without Stale.
func TestRevalidateLongerThanStaleKeepsValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := resiliencetest.Script(resiliencetest.Step[int]{Value: 1}, resiliencetest.Step[int]{Err: errors.New("down")})
		g := share.NewGroup(share.Config{Fresh: time.Minute, Revalidate: time.Hour, Stale: time.Second}, func(ctx context.Context, _ string) (int, error) {
			return script.Do(ctx)
		})
		for _, after := range []time.Duration{0, time.Minute, time.Hour - 1} {
			time.Sleep(after)
			if value, err := g.Do(t.Context(), "a"); value != 1 || err != nil || g.Len() != 1 {
				t.Errorf("got %d, %v with %d keys, want 1 with 1 key", value, err, g.Len())
			}
			synctest.Wait()
		}
		time.Sleep(time.Minute + time.Hour)
		if _, err := g.Do(t.Context(), "a"); err == nil || g.Len() != 0 {
			t.Errorf("got %v with %d keys, want the error with 0 keys", err, g.Len())
		}
	})
}

func TestRevalidateRunHasCallerValuesAndNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		rates := share.New(share.Config{Fresh: time.Minute, Revalidate: time.Hour}, func(ctx context.Context) (string, error) {
			runs++
			time.Sleep(time.Second)
			if _, ok := ctx.Deadline(); ok || ctx.Err() != nil {
				t.Errorf("run %d: the context has a deadline or has ended: %v", runs, ctx.Err())
			}
			return fmt.Sprint(ctx.Value(key{})), nil
		})
		rates(t.Context())
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "second"), time.Hour)
		if value, err := rates(ctx); value != "<nil>" || err != nil {
			t.Errorf("got %q, %v, want the old value", value, err)
		}
		cancel() // the caller has gone, and has nothing to do with the run
		time.Sleep(time.Second)
		synctest.Wait()
		if value, err := rates(t.Context()); value != "second" || err != nil || runs != 2 {
			t.Errorf("got %q, %v after %d runs, want second after 2", value, err, runs)
		}
	})
}

// After a run in the background has panicked, callers wait for a run, which panics in their
// goroutine, until a run returns.
func TestRevalidatePanicReachesNextCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log errorLog
		end := func() {}
		rates := share.New(share.Config{Fresh: time.Minute, Revalidate: time.Hour, OnError: log.onError}, func(context.Context) (int, error) {
			end()
			return 1, nil
		})
		ask := func() (value int, how any) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				how = "Goexit"
				defer func() {
					if p, ok := recover().(*resilience.PanicError); ok {
						how = p.Value
					}
				}()
				value, _ = rates(t.Context())
				how = nil
			}()
			<-done
			synctest.Wait()
			return value, how
		}
		for name, failure := range map[string]func(){"boom": func() { panic("boom") }, "Goexit": runtime.Goexit} {
			end = func() {}
			ask()
			time.Sleep(time.Minute)
			end = failure
			if value, how := ask(); value != 1 || how != nil {
				t.Errorf("%s: got %d, %v, want the kept value", name, value, how)
			}
			if name == "boom" {
				log.check(t, "<nil>: panic: boom")
			} else {
				log.check(t)
			}
			if _, how := ask(); how != name {
				t.Errorf("%s: the next caller got %v", name, how)
			}
			log.check(t)
			end = func() {}
			if value, how := ask(); value != 1 || how != nil {
				t.Errorf("%s: got %d, %v after the repair, want 1", name, value, how)
			}
		}
	})
}

func TestForgetDuringRevalidationDropsItsResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Script(
			resiliencetest.Step[int]{Value: 1},
			resiliencetest.Step[int]{Value: 2, Delay: time.Second}, // in the background
			resiliencetest.Step[int]{Value: 3, Delay: time.Minute},
			resiliencetest.Step[int]{Value: 4},
		)
		g := share.NewGroup(share.Config{Fresh: time.Hour, Revalidate: time.Hour}, func(ctx context.Context, _ string) (int, error) { return slow.Do(ctx) })
		g.Do(t.Context(), "a")
		time.Sleep(time.Hour)
		if value, err := g.Do(t.Context(), "a"); value != 1 || err != nil {
			t.Errorf("got %d, %v, want the old value", value, err)
		}
		synctest.Wait() // the run has begun
		if g.Forget("a"); g.Len() != 0 {
			t.Errorf("got %d keys, want 0", g.Len())
		}
		for range 2 {
			if value, err := g.Do(t.Context(), "a"); value != 3 || err != nil || g.Len() != 1 {
				t.Errorf("got %d, %v with %d keys, want 3 with 1 key", value, err, g.Len())
			}
		}
	})
}

// A key is in use while its value is refreshed, so that no second run of it begins.
func TestGroupKeepsKeyDuringRevalidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := map[string]int{}
		var mu sync.Mutex
		g := share.NewGroup(share.Config{Fresh: time.Minute, Revalidate: time.Hour, MaxKeys: 1}, func(_ context.Context, key string) (int, error) {
			mu.Lock()
			runs[key]++
			n := runs[key]
			mu.Unlock()
			if key == "a" && n == 2 {
				time.Sleep(time.Second)
			}
			return n, nil
		})
		g.Do(t.Context(), "a")
		time.Sleep(time.Minute)
		g.Do(t.Context(), "a") // the run begins
		for _, other := range []string{"b", "c"} {
			g.Do(t.Context(), other)
		}
		if g.Len() != 1 {
			t.Errorf("got %d keys during the run, want a's", g.Len())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if value, err := g.Do(t.Context(), "a"); value != 2 || err != nil || runs["a"] != 2 {
			t.Errorf("got %d, %v after %d runs, want 2 after 2", value, err, runs["a"])
		}
		if g.Do(t.Context(), "b"); g.Len() != 1 {
			t.Errorf("got %d keys after the run, want 1", g.Len())
		}
	})
}

// Callers whose value has become too old join the run in the background, and may leave it.
func TestRevalidationIsJoinedWhenValueIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Script(
			resiliencetest.Step[int]{Value: 1},
			resiliencetest.Step[int]{Value: 2, Delay: time.Hour},
		)
		rates := share.New(share.Config{Fresh: time.Minute, Revalidate: time.Minute}, slow.Do)
		rates(t.Context())
		time.Sleep(time.Minute)
		rates(t.Context())
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := rates(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want context.DeadlineExceeded", err)
		}
		if value, err := rates(t.Context()); value != 2 || err != nil || slow.Calls() != 2 {
			t.Errorf("got %d, %v after %d runs, want 2 after 2", value, err, slow.Calls())
		}
	})
}

func TestRevalidateServesConcurrentCallers(t *testing.T) {
	var mu sync.Mutex
	running := map[int]int{}
	g := share.NewGroup(share.Config{Fresh: time.Nanosecond, Revalidate: time.Hour, MaxKeys: 2}, func(_ context.Context, key int) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		running[key]++
		return key, nil
	})
	var callers errgroup.Group
	for i := range 8 {
		callers.Go(func() error {
			for j := range 500 {
				key := (i + j) % 4
				if value, err := g.Do(t.Context(), key); value != key || err != nil {
					return fmt.Errorf("got %d, %v, want %d", value, err, key)
				}
				if j%50 == 0 {
					g.Forget(key)
				}
			}
			return nil
		})
	}
	if err := callers.Wait(); err != nil {
		t.Error(err)
	}
}

func BenchmarkRevalidate(b *testing.B) {
	ctx := b.Context()
	b.Run("refresh", func(b *testing.B) { // every call finds an old value; at most one run at a time
		e := share.New(share.Config{Fresh: 1, Revalidate: time.Hour}, func(context.Context) (int, error) { return 1, nil })
		b.ReportAllocs()
		for b.Loop() {
			e(ctx)
		}
	})
	b.Run("during", func(b *testing.B) { // the value is old, and a run is under way
		block := make(chan struct{})
		runs := 0
		e := share.New(share.Config{Fresh: 1, Revalidate: time.Hour}, func(context.Context) (int, error) {
			if runs++; runs == 2 {
				<-block
			}
			return 1, nil
		})
		defer close(block)
		e(ctx)
		b.ReportAllocs()
		for b.Loop() {
			e(ctx)
		}
	})
}

func BenchmarkNested(b *testing.B) { // a run that waits for another run
	inner := share.Calls(func(context.Context) (int, error) { return 1, nil })
	outer := share.Calls(inner)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		outer(ctx)
	}
}
