// Package adaptive holds the real limiter against plain ones: for what is admitted and for AIMD call by call, for Queue by what must hold whatever the
// dependency does.
package adaptive

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/proof/internal/cases"
)

func TestMain(m *testing.M) { cases.Main(m, 300, 60) }

// An end is a way in which a call ends.
type end int

const (
	answer end = iota
	failure
	wasCanceled
	wasRefused // further in
	panics
	exits
	ends
)

var errOwn = errors.New("own")

// A plain limiter is AIMD as the page says it.
type plain struct {
	limit, least, most int
	running            map[*held]bool
	falls, changes     int // of the limit so far
	ended              int // calls that began since the limit last changed, or was last judged
	met                bool
}

// A held call is one that runs.
type held struct {
	end            chan end
	falls, changes int // of the limit when it began
}

func (p *plain) admits(priority int) bool {
	level := max(0, min(priority, 4))
	if 10*len(p.running) < p.limit*(6+level) {
		return true
	}
	p.met = true
	return false
}

func (p *plain) begin() *held {
	h := &held{make(chan end), p.falls, p.changes}
	p.running[h] = true
	p.met = p.met || len(p.running) >= p.limit
	return h
}

func (p *plain) finish(h *held, how end) {
	delete(p.running, h)
	switch {
	case how == failure && h.falls == p.falls:
		p.change(min(p.limit-1, p.limit*9/10))
		p.falls++
	case how == answer && h.changes == p.changes:
		if p.ended++; p.ended < p.limit {
			return
		}
		if p.met {
			p.change(p.limit + 1)
		}
	default:
		return
	}
	p.ended = 0
	p.met = len(p.running) >= p.limit
}

func (p *plain) change(limit int) {
	if limit = max(p.least, min(limit, p.most)); limit != p.limit {
		p.limit = limit
		p.changes++
	}
}

// TestAIMDMatchesPlainModel: every call is admitted or refused as by the plain limiter, and the limit is the same after each, however calls end.
func TestAIMDMatchesPlainModel(t *testing.T) {
	type priority struct{}
	rapid.Check(t, func(rt *rapid.T) {
		least := rapid.IntRange(1, 8).Draw(rt, "Min")
		initial := rapid.IntRange(least, 25).Draw(rt, "Initial")
		most := rapid.IntRange(initial, 30).Draw(rt, "Max")
		steps := rapid.SliceOfN(rapid.IntRange(0, 99), 1, 400).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			real := adaptive.New(adaptive.Config{
				Algorithm: adaptive.AIMD, Initial: initial, Min: least, Max: most,
				Priority: func(ctx context.Context) int { return ctx.Value(priority{}).(int) },
			})
			p := &plain{limit: initial, least: least, most: most, running: map[*held]bool{}}
			var order []*held
			var g sync.WaitGroup
			finish := func(i int, how end) {
				h := order[i]
				order = append(order[:i], order[i+1:]...)
				h.end <- how
				synctest.Wait()
				p.finish(h, how)
			}
			defer g.Wait()
			for n, s := range steps {
				if s < 55 || len(order) == 0 {
					ctx := context.WithValue(context.Background(), priority{}, s%7-1)
					admits := p.admits(s%7 - 1)
					var h *held
					if admits {
						h = p.begin()
						order = append(order, h)
					}
					var err error
					g.Go(func() { err = call(ctx, real, h) })
					synctest.Wait()
					if refused := errors.Is(err, adaptive.ErrLimit); refused == admits {
						rt.Fatalf("step %d: priority %d with %d of %d running: refused %v", n, s%7-1, len(p.running), p.limit, refused)
					}
				} else {
					how := answer // mostly
					if s >= 85 {
						how = end(s) % ends
					}
					finish(s*7%len(order), how)
				}
				if got := real.Snapshot(); got.Limit != p.limit || got.Running != len(p.running) {
					rt.Fatalf("step %d: %+v, want a limit of %d with %d running", n, got, p.limit, len(p.running))
				}
			}
			for len(order) > 0 {
				finish(0, exits)
			}
			if s := real.Snapshot(); s.Running != 0 {
				rt.Fatalf("%+v when all have ended", s)
			}
		})
	})
}

// call makes a call that ends when and as it is told. If h is nil it must be refused.
func call(ctx context.Context, l *adaptive.Limiter, h *held) (err error) {
	defer func() {
		if value := recover(); value != nil && value != errOwn {
			panic(value)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if h == nil {
			return next.Run(ctx)
		}
		switch <-h.end {
		case wasRefused:
			return resilience.ErrRefused
		case wasCanceled:
			cancel()
			next.Run(ctx)
			return errOwn
		case failure:
			next.Run(ctx)
			return errOwn
		case panics:
			panic(errOwn)
		case exits:
			runtime.Goexit()
		}
		return next.Run(ctx)
	})
	return resilience.Run(ctx, resilience.Pipeline{l, wait}, func(context.Context) error { return nil })
}

// TestQueueKeepsItsBounds whatever the dependency and the callers do: no more than the limit run, nor more than a priority's share of it; the limit stays
// from Min to Max, and does not grow but where a call met it; and what was admitted leaves.
func TestQueueKeepsItsBounds(t *testing.T) {
	type priority struct{}
	rapid.Check(t, func(rt *rapid.T) {
		least := rapid.IntRange(1, 20).Draw(rt, "Min")
		initial := rapid.IntRange(least, 60).Draw(rt, "Initial")
		most := rapid.IntRange(initial, 100).Draw(rt, "Max")
		callers := rapid.IntRange(1, 60).Draw(rt, "callers")
		type phase struct{ workers, pace, fails int }
		phases := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) phase {
			return phase{
				workers: rapid.IntRange(1, 60).Draw(t, "workers"),
				pace:    rapid.SampledFrom([]int{1, 5, 10, 50}).Draw(t, "pace"),
				fails:   rapid.SampledFrom([]int{0, 0, 1, 10, 60, 100}).Draw(t, "fails"),
			}
		}), 1, 6).Draw(rt, "phases")
		synctest.Test(t, func(t *testing.T) {
			l := adaptive.New(adaptive.Config{Initial: initial, Min: least, Max: most, Priority: func(ctx context.Context) int { return ctx.Value(priority{}).(int) }})
			workers := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1000})
			var now atomic.Pointer[phase]
			now.Store(&phases[0])
			var wrong atomic.Pointer[string]
			complain := func(format string, args ...any) {
				text := fmt.Sprintf(format, args...)
				wrong.CompareAndSwap(nil, &text)
			}
			var refused atomic.Int64
			ctx, cancel := context.WithCancel(context.Background())
			var g errgroup.Group
			for i := range callers {
				g.Go(func() error {
					level := i % 5
					mine := context.WithValue(ctx, priority{}, level)
					for n := 0; ctx.Err() == nil; n++ {
						_, err := adaptive.Do(mine, l, func(ctx context.Context) (int, error) {
							return bulkhead.Do(ctx, workers, func(context.Context) (int, error) {
								p := now.Load()
								if (i*31+n*17)%100 < p.fails {
									time.Sleep(time.Millisecond / 4)
									return 0, errOwn
								}
								time.Sleep(time.Duration(p.pace) * time.Millisecond)
								return 0, nil
							})
						})
						var limit *adaptive.LimitError
						if errors.As(err, &limit) {
							refused.Add(1)
							if limit.Priority != level || limit.Limit < least || limit.Limit > most {
								complain("%+v for %d", limit, level)
							}
							time.Sleep(time.Millisecond)
						}
					}
					return nil
				})
			}
			before := initial
			for _, p := range phases {
				now.Store(&p)
				workers.Resize(p.workers)
				for range 200 {
					had := refused.Load()
					time.Sleep(time.Millisecond / 2)
					s := l.Snapshot()
					if s.Limit < least || s.Limit > most || s.Running > max(initial, most) || s.RoundTrip < 0 {
						complain("%+v from %d to %d", s, least, most)
					}
					if s.Limit > before && callers < before/2 && refused.Load() == had {
						complain("%+v: it was %d, and %d callers cannot meet it", s, before, callers)
					}
					before = s.Limit
				}
			}
			cancel()
			g.Wait()
			if s := l.Snapshot(); s.Running != 0 {
				complain("%+v when all have left", s)
			}
			if text := wrong.Load(); text != nil {
				rt.Fatal(*text)
			}
		})
	})
}
