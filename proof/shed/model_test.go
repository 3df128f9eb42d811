// Package shed holds the real shedder against a plain list of calls: one that forgets them as early as the shedder may, one as late.
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

// A list is the calls of a window.
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

// TestShedderMatchesModel: it counts what it should for as long as it should, goes by the published share of that, and refuses as many calls as that
// says, but for what chance gives or takes: six standard deviations.
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
					rt.Fatalf("step %d: %+v, want %d to %d requests and %d to %d accepts", n, now, leastR, mostR, leastA, mostA)
				}
				r, a := float64(now.Requests), float64(now.Accepts)
				share := math.Min(config.MaxShare, math.Max(0, (r-config.K*a)/(r+1)))
				if math.Abs(now.Share-share) > 1e-12 {
					rt.Fatalf("step %d: %+v, want a share of %v", n, now, share)
				}
				expected += share
				variance += share * (1 - share)
				counts, accepted, away := one(rt, s, step, now.Share)
				if away {
					refused++
				}
				if counts {
					early.calls = append(early.calls, call{time.Now(), accepted})
					late.calls = append(late.calls, call{time.Now(), accepted})
				}
			}
			if math.Abs(refused-expected) > 6*math.Sqrt(variance)+1 {
				rt.Fatalf("%v calls were refused, want about %.1f", refused, expected)
			}
		})
	})
}

// one makes a call, and says whether it counts, as what, and whether it was refused.
func one(rt *rapid.T, s *shed.Shedder, step int, share float64) (counts, accepted, refused bool) {
	inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if step == 3 {
			return errDown // turned away further in
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
	var away *shed.Error
	if errors.As(err, &away) {
		if away.Share != share || share == 0 || !errors.Is(err, shed.ErrShed) || !errors.Is(err, resilience.ErrRefused) {
			rt.Fatalf("%v (share %v), where the share is %v", err, away.Share, share)
		}
		return true, false, true
	}
	return step < 3 || step > 5, step < 3, false
}

// TestShedderLosesNoCallByRacing: whatever callers do at one instant, each of their calls counts once.
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
				rt.Fatalf("%+v, want %d accepts of at least %d requests", got, accepts, callers*each)
			}
		})
	})
}

// outage makes calls of a dependency that is down for a time, at so many a second, and gives how long after that it took until half of them passed, and
// until all did; 0 if they do not within an hour.
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

// TestShedderRecoveryTimes: after an outage of ten minutes at 50 calls a second half of the calls pass again within 4 minutes. With -v it tells how long it takes with
// other Ks and MaxShares too, of which docs/shed.md has a table.
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
						t.Errorf("half of the calls passed after %v", half)
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

// TestShedderRecoversFromEveryOutage, however long it was, at any rate of calls that is worth shedding.
func TestShedderRecoversFromEveryOutage(t *testing.T) {
	for _, minutes := range []time.Duration{1, 12} {
		for _, rate := range []int{10, 20} {
			synctest.Test(t, func(t *testing.T) {
				if half, _ := outage(shed.Config{}, minutes*time.Minute, rate); half > 4*time.Minute {
					t.Errorf("after %d minutes at %d a second half of the calls passed after %v", minutes, rate, half)
				}
			})
		}
	}
}
