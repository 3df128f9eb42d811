// Package shed compares the shedder with two plain lists of calls: one forgets calls as early as
// the shedder may, the other as late as it may.
package shed

import (
	"context"
	"errors"
	"math"
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

var errDown, errOdd = errors.New("down"), errors.New("odd")

// The shedder counts the right calls for the right time, computes the published share from them,
// and refuses that share of calls, within six standard deviations.
func TestShedderMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := shed.Config{
			K:        rapid.SampledFrom([]float64{1, 1.1, 2, 5}).Draw(rt, "K"),
			MaxShare: rapid.SampledFrom([]float64{0.1, 0.5, 0.9, 1}).Draw(rt, "MaxShare"),
			Window:   rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 2 * time.Minute}).Draw(rt, "Window"),
			Classify: func(ctx context.Context, err error) shed.Outcome {
				if err == errOdd {
					return shed.Ignored
				}
				return shed.DefaultClassify(ctx, err)
			},
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 400).Draw(rt, "steps")
		synctest.Test(t, func(*testing.T) {
			s := shed.New(config)
			early, late := &list{lives: config.Window * 9 / 10}, &list{lives: config.Window}
			var refused, expected, variance float64
			for n, step := range steps {
				if step == 9 {
					time.Sleep(config.Window * time.Duration(n%23) / 40)
					continue
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
				counts, accepted, refusedNow := one(rt, s, step, now.Share)
				if refusedNow {
					refused++
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

// one makes a call. It returns whether the call counts, whether as accepted, and whether it was
// refused.
func one(rt *rapid.T, s *shed.Shedder, step int, share float64) (counts, accepted, refused bool) {
	inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if step == 3 {
			return errDown // refused by an inner policy
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
			switch step {
			case 0, 1, 2:
				return 1, nil
			case 4:
				return 0, errOdd
			case 5:
				cancel()
				return 0, errDown
			case 6:
				panic(errDown)
			}
			return 0, errDown
		})
	}()
	var refusal *shed.Error
	if errors.As(err, &refusal) {
		if refusal.Share != share || share == 0 || !errors.Is(err, shed.ErrShed) || !errors.Is(err, resilience.ErrRefused) {
			rt.Fatalf("got %v with share %v, want share %v", err, refusal.Share, share)
		}
		return true, false, true
	}
	return step < 3 || step > 5, step < 3, false
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
