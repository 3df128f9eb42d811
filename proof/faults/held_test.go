package faults

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/breaker"
)

// TestFaultsLeaveCallCollectable checks that everything that belongs to a call is garbage right
// after the call, while the caller's own context, the policies, and their timers live on: no timer,
// no goroutine, and no list of children refers to it.
func TestFaultsLeaveCallCollectable(t *testing.T) {
	for i, order := range orders() {
		// Each scene needs many garbage collections.
		if len(order) > 2 || len(order) == 2 && i%7 != 0 && !*every {
			continue
		}
		t.Run(name(order), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var scenes []*scene
				var held []weak.Pointer[cargo]
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				for _, f := range faults() {
					if endsWithItsCall(f, order) {
						s := newScene(t, order, f)
						scenes, held = append(scenes, s), append(held, callWith(s, ctx))
					}
				}
				// A stopped timer leaves the runtime's list when the next one is due.
				time.Sleep(time.Nanosecond)
				runtime.GC()
				for i, s := range scenes {
					// A goroutine that has ended for synctest may still have its stack.
					for tries := 0; held[i].Value() != nil && tries < 20; tries++ {
						runtime.Gosched()
						runtime.GC()
					}
					if held[i].Value() != nil {
						t.Errorf("%s: the call is still reachable", s.fault.name)
					}
				}
			})
		})
	}
}

func endsWithItsCall(f fault, order []kind) bool {
	if f.leaves || f.dead || f.ctx != nil || f.applies != nil && !f.applies(order) {
		return false
	}
	// Without a timeout, nothing ends the children that an effector creates.
	return !strings.Contains(f.name, "children") || slices.Contains(order, limited) || slices.Contains(order, abandoning)
}

type cargo [64]byte

type cargoKey struct{}

//go:noinline
func callWith(s *scene, ctx context.Context) weak.Pointer[cargo] {
	c := new(cargo)
	s.call(context.WithValue(ctx, cargoKey{}, c), flat)
	synctest.Wait()
	s.contexts = nil
	return weak.Make(c)
}

// TestFaultsWithConcurrentCallers has a hundred concurrent callers with different faults. Each
// breaker must count the calls that passed, and afterwards nothing may be held.
func TestFaultsWithConcurrentCallers(t *testing.T) {
	var all [][]kind
	for i, k := range kinds {
		all = append(all, []kind{k}, slices.Concat(kinds[i:], kinds[:i]))
	}
	for _, order := range all {
		t.Run(name(order), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				goroutines := runtime.NumGoroutine()
				s := newScene(t, order, fault{at: atEffector, effect: func(_ *scene, ctx context.Context, n int) error {
					time.Sleep(time.Duration(n%7) * time.Second)
					switch n % 11 {
					case 0, 1, 2:
						goWrong(func() { panic(n) })
					case 3, 4:
						goWrong(runtime.Goexit)
					case 5, 6:
						ctx.Value(cancelKey{}).(context.CancelFunc)()
						return ctx.Err()
					case 7, 8:
						return errDown
					}
					return nil
				}})
				var g errgroup.Group
				for range 100 {
					g.Go(func() error {
						ctx, cancel := cancelable()
						defer cancel()
						s.call(ctx, flat)
						return nil
					})
				}
				g.Wait()
				synctest.Wait()
				s.checkContexts()
				s.checkGoroutines(goroutines)
				for _, l := range s.ledgers {
					l.checkSums(t)
				}
				for _, g := range s.gates {
					g.check(t)
				}
				s.checkValues(ending{returned: true})
				s.checkHealth(flat, goroutines)
			})
		})
	}
}

// TestFaultsAcrossClockGoingBack uses policies in one bubble after another. Each bubble begins at
// the same instant, so the clock goes back by hours, and the timers of earlier bubbles never run.
func TestFaultsAcrossClockGoingBack(t *testing.T) {
	for _, order := range orders() {
		if len(order) > 2 {
			continue
		}
		t.Run(name(order), func(t *testing.T) {
			for _, f := range faults() {
				if f.name != "effector fails with an error" && f.name != "effector panics with a string" && f.name != "effector exits" {
					continue
				}
				s := newScene(t, order, f)
				wrong := func(t *testing.T, at time.Duration) {
					synctest.Test(t, func(t *testing.T) {
						time.Sleep(at)
						s.t, s.thrown, s.exited = t, nil, false
						ctx, cancel := s.fault.context()
						defer cancel()
						end := s.call(ctx, flat)
						if s.holds(tripping) || s.holds(deciding) {
							return // the calls after the first are refused
						}
						s.checkEnding(ctx, end)
						s.checkContexts()
						s.contexts = nil
					})
				}
				wrong(t, 100*time.Hour)
				wrong(t, 0)
				wrong(t, 50*time.Hour)
				synctest.Test(t, func(t *testing.T) {
					s.t, s.fault.ctx = t, nil
					time.Sleep(200*time.Hour + openFor)
					for _, l := range s.ledgers {
						if got := l.breaker.Snapshot(); got.State == breaker.Open || got.Running != 0 {
							t.Errorf("%s: got %+v, want no running calls and not open", f.name, got)
						}
					}
					s.checkHealth(flat, runtime.NumGoroutine())
				})
			}
		})
	}
}

// TestFaultsWithEndlessDeadlines checks that a deadline so distant that sums overflow limits
// nothing.
func TestFaultsWithEndlessDeadlines(t *testing.T) {
	for _, order := range orders() {
		if len(order) > 1 {
			continue
		}
		t.Run(name(order), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, order, fault{at: atEffector})
				s.healed = true
				ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1<<40, 0))
				defer cancel()
				if end := s.call(ctx, flat); end.err != nil || !end.returned {
					t.Errorf("got %+v, want success", end)
				}
			})
		})
	}
}
