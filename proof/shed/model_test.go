// Package shed compares the shedder with two plain lists of calls: one forgets calls as early as
// the shedder may, the other as late as it may.
package shed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/proof/internal/cases"
	"github.com/effector-go/resilience/shed"
)

func TestMain(m *testing.M) { cases.Main(m, 1500, 0) }

// A list is the calls in a window.
type list struct {
	lives time.Duration
	calls []call
}

type call struct {
	at       time.Time
	accepted bool
}

func drawConfig(rt *rapid.T) shed.Config {
	config := shed.Config{
		K:        rapid.SampledFrom([]float64{1, 1.1, 2, 5}).Draw(rt, "K"),
		MaxShare: rapid.SampledFrom([]float64{0.1, 0.5, 0.9, 1}).Draw(rt, "MaxShare"),
		Window:   rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 2 * time.Minute}).Draw(rt, "Window"),
	}
	if rapid.Bool().Draw(rt, "Classify") {
		config.Classify = func(ctx context.Context, err error) shed.Outcome {
			switch err {
			case errOdd:
				return shed.Ignored
			case errFault:
				return shed.Rejected // isn't asked about it
			}
			return shed.DefaultClassify(ctx, err)
		}
	}
	return config
}

func (l *list) count() (requests, accepts int) {
	for len(l.calls) > 0 && time.Since(l.calls[0].at) >= l.lives {
		l.calls = l.calls[1:]
	}
	for _, c := range l.calls {
		if c.accepted {
			accepts++
		}
	}
	return len(l.calls), accepts
}

var (
	errDown, errOdd = errors.New("down"), errors.New("odd")
	errFault        = resilience.CallerFault(errDown)
)

// The shedder counts the right calls for the right time, computes the published share from them,
// and refuses that share of calls, within six standard deviations. The Config changes between calls
// and during them.
func TestShedderMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := drawConfig(rt)
		others := []shed.Config{drawConfig(rt), drawConfig(rt), drawConfig(rt)}
		seed := rapid.Uint64().Draw(rt, "seed") // of the steps
		synctest.Test(t, func(*testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			s := shed.New(config)
			early, late := &list{lives: config.Window * 9 / 10}, &list{lives: config.Window}
			set := func(to shed.Config) {
				if err := s.SetConfig(to); err != nil {
					rt.Fatal(err)
				}
				if to.Window != config.Window {
					early, late = &list{lives: to.Window * 9 / 10}, &list{lives: to.Window}
				}
				config = to
			}
			var refused, expected, variance float64
			for n := range 200 {
				if random.IntN(10) == 0 {
					time.Sleep(config.Window * time.Duration(n%23) / 40)
					continue
				}
				if random.IntN(40) == 0 {
					set(others[random.IntN(len(others))])
				}
				if random.IntN(40) == 0 { // the same Window: the counts stay
					to := others[random.IntN(len(others))]
					to.Window = config.Window
					set(to)
				}
				now := s.Snapshot()
				leastR, leastA := early.count()
				mostR, mostA := late.count()
				if now.Requests < leastR || now.Requests > mostR || now.Accepts < leastA || now.Accepts > mostA {
					rt.Fatalf("step %d: got %+v, want %d to %d requests and %d to %d accepts", n, now, leastR, mostR, leastA, mostA)
				}
				r, a := float64(now.Requests), float64(now.Accepts)
				share := math.Min(config.MaxShare, math.Max(0, (r-config.K*a)/(r+1)))
				if math.Abs(now.Share-share) > 1e-12 {
					rt.Fatalf("step %d: got %+v, want a share of %v", n, now, share)
				}
				expected += share
				variance += share * (1 - share)
				kind := kinds[random.IntN(len(kinds))]
				during := func() {}
				if random.IntN(40) == 0 {
					during = func() { set(others[random.IntN(len(others))]) }
				}
				refusedNow := one(rt, s, kind, during, now.Share)
				counts, accepted := kind.counts, kind.accepted
				switch {
				case refusedNow:
					refused++
					counts, accepted = true, false
				case kind.err == errOdd && config.Classify != nil:
					counts = false
				}
				if counts {
					early.calls = append(early.calls, call{time.Now(), accepted})
					late.calls = append(late.calls, call{time.Now(), accepted})
				}
			}
			if math.Abs(refused-expected) > 6*math.Sqrt(variance)+1 {
				rt.Fatalf("got %v refusals, want about %.1f", refused, expected)
			}
		})
	})
}

// A kind of call.
type kind struct {
	err              error // of the effector
	cancels          bool  // the caller leaves during the call
	panics, inner    bool  // with err; inner: refused by an inner policy
	counts, accepted bool  // by the default Classify
}

// Successes appear often, so that not all calls are refused.
var kinds = []kind{
	{counts: true, accepted: true},
	{counts: true, accepted: true},
	{counts: true, accepted: true},
	{counts: true, accepted: true, cancels: true},
	{err: errDown, counts: true},
	{err: errDown, counts: true, panics: true},
	{err: errDown, cancels: true},
	{err: errDown, cancels: true, panics: true},
	{err: errDown, inner: true},
	{err: errOdd, counts: true},
	{err: resilience.NotFailure(errDown), counts: true, accepted: true},
	{err: resilience.NotFailure(errDown), counts: true, accepted: true, cancels: true},
	{err: resilience.NotFailure(errDown), inner: true},
	{err: resilience.NotMade(resilience.Contention(errDown)), counts: true, accepted: true},
	{err: resilience.Contention(resilience.CallerFault(errDown)), counts: true, accepted: true, cancels: true},
	{err: errFault},
	{err: resilience.CallerFault(resilience.NotFailure(errDown)), cancels: true},
	{err: resilience.NotMade(errDown), counts: true},
	{err: resilience.WithRetryAfter(errDown, time.Second), counts: true},
	{err: fmt.Errorf("get: %w", resilience.NotFailure(errDown)), counts: true},
	{err: fmt.Errorf("get: %w", resilience.CallerFault(errDown)), counts: true},
}

// one makes a call and reports whether the shedder refused it.
func one(rt *rapid.T, s *shed.Shedder, k kind, during func(), share float64) (refused bool) {
	inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if k.inner {
			return k.err
		}
		return next.Run(ctx)
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var err error
	func() {
		defer func() {
			if value := recover(); value != nil {
				err = value.(error)
			}
		}()
		_, err = resilience.Do(ctx, resilience.Pipeline{s, inner}, func(context.Context) (int, error) {
			during()
			if k.cancels {
				cancel()
			}
			if k.panics {
				panic(k.err)
			}
			return 1, k.err
		})
	}()
	var refusal *shed.Error
	if !errors.As(err, &refusal) {
		return false
	}
	if refusal.Share != share || share == 0 || !errors.Is(err, shed.ErrShed) || !errors.Is(err, resilience.ErrRefused) {
		rt.Fatalf("got %v with share %v, want share %v", err, refusal.Share, share)
	}
	return true
}

// Whatever callers do in the same instant, each of their calls counts once.
func TestShedderLosesNoCallByRacing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		callers := rapid.IntRange(1, 8).Draw(rt, "callers")
		each := rapid.IntRange(1, 60).Draw(rt, "calls")
		every := rapid.IntRange(1, 10).Draw(rt, "rejected every")
		synctest.Test(t, func(*testing.T) {
			s := shed.New(shed.Config{})
			var g errgroup.Group
			accepts := 0
			for i := range each {
				if i%every > 0 {
					accepts += callers
				}
			}
			for range callers {
				g.Go(func() error {
					for i := range each {
						for { // until it is not refused
							_, err := shed.Do(context.Background(), s, func(context.Context) (int, error) {
								if i%every == 0 {
									return 0, errDown
								}
								return 1, nil
							})
							if !errors.Is(err, shed.ErrShed) {
								break
							}
						}
					}
					return nil
				})
			}
			g.Wait()
			if got := s.Snapshot(); got.Accepts != accepts || got.Requests < callers*each {
				rt.Fatalf("got %+v, want %d accepts of at least %d requests", got, accepts, callers*each)
			}
		})
	})
}

// outage makes rate calls per second to a dependency that is down for a while. It returns how long
// after the outage half of the calls, and all calls, passed again; 0 if they didn't within an hour.
func outage(config shed.Config, lasts time.Duration, rate int) (half, all time.Duration) {
	s := shed.New(config)
	up := time.Now().Add(lasts)
	for all == 0 && time.Since(up) < time.Hour {
		shed.Do(context.Background(), s, func(context.Context) (int, error) {
			if time.Now().Before(up) {
				return 0, errDown
			}
			return 1, nil
		})
		if since := time.Since(up); since >= 0 {
			share := s.Snapshot().Share
			if half == 0 && share <= 0.5 {
				half = since
			}
			if share == 0 {
				all = since
			}
		}
		time.Sleep(time.Second / time.Duration(rate))
	}
	return half, all
}

// After an outage of ten minutes at 50 calls per second, half of the calls pass again within 4
// minutes. With -v, the test also logs the times for other values of K and MaxShare; docs/shed.md
// has a table of them.
func TestShedderRecoveryTimes(t *testing.T) {
	for _, k := range []float64{2, 1.1, 1.5, 3} {
		for _, most := range []float64{0.9, 0.8, 0.95, 0.99, 1} {
			byDefault := k == 2 && most == 0.9
			if !testing.Verbose() && !byDefault {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				var halves, alls []time.Duration
				for range 3 {
					half, all := outage(shed.Config{K: k, MaxShare: most}, 10*time.Minute, 50)
					if byDefault && (half == 0 || half > 4*time.Minute) {
						t.Errorf("half of the calls passed after %v, want at most 4m", half)
					}
					halves, alls = append(halves, half.Round(time.Second)), append(alls, all.Round(time.Second))
				}
				slices.Sort(halves)
				slices.Sort(alls)
				t.Logf("K %v, MaxShare %v: half pass after %v, all after %v (0: not within an hour)", k, most, halves, alls)
			})
		}
	}
}

// The time to recover doesn't depend on the length of the outage, at any rate of calls for which a
// shedder makes sense.
func TestShedderRecoversFromEveryOutage(t *testing.T) {
	for _, minutes := range []time.Duration{1, 12} {
		for _, rate := range []int{10, 20} {
			synctest.Test(t, func(t *testing.T) {
				if half, _ := outage(shed.Config{}, minutes*time.Minute, rate); half > 4*time.Minute {
					t.Errorf("after %d minutes at %d calls per second, half of the calls passed after %v, want at most 4m", minutes, rate, half)
				}
			})
		}
	}
}
