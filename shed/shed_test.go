package shed_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/shed"
)

var errDown = errors.New("down")

// times makes n calls that return err and reports how many were refused.
func times(t *testing.T, s *shed.Shedder, n int, err error) (refused int) {
	t.Helper()
	for range n {
		_, got := shed.Do(t.Context(), s, func(context.Context) (int, error) { return 0, err })
		switch {
		case errors.Is(got, shed.ErrShed):
			refused++
		case got != err:
			t.Fatalf("got %v, want %v", got, err)
		}
	}
	return refused
}

// holds checks the shedder's counts and share.
func holds(t *testing.T, s *shed.Shedder, requests, accepts int, share float64) {
	t.Helper()
	want := shed.Snapshot{Name: s.Name(), Requests: requests, Accepts: accepts, Share: share}
	if got := s.Snapshot(); math.Abs(got.Share-share) > 1e-9 || got.Requests != requests || got.Accepts != accepts || got.Name != s.Name() {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestShedderShareIsAsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			config            shed.Config
			accepts, rejected int
			share             float64
		}{
			{shed.Config{}, 0, 0, 0},
			{shed.Config{}, 0, 1, 1. / 2},
			{shed.Config{}, 100, 0, 0},
			{shed.Config{}, 100, 100, 0}, // half of the calls are accepted
			{shed.Config{}, 100, 101, 1. / 202},
			{shed.Config{K: 1}, 100, 100, 100. / 201},
			{shed.Config{K: 1.5}, 100, 100, 50. / 201},
			{shed.Config{K: 1e300}, 1, 1, 0},
			{shed.Config{MaxShare: 1e-9}, 10, 100, 1e-9},
		} {
			s := shed.New(c.config)
			times(t, s, c.accepts, nil)
			// Sequential calls would be refused in part, so all of these start before the first one
			// ends.
			var calls errgroup.Group
			for range c.rejected {
				calls.Go(func() error {
					_, err := shed.Do(t.Context(), s, resiliencetest.Slow[int](time.Second).Failing(errDown).Do)
					if err != errDown {
						t.Error(err)
					}
					return nil
				})
			}
			calls.Wait()
			holds(t, s, c.accepts+c.rejected, c.accepts, c.share)
		}
	})
}

func TestShedderRefusesNothingWhileHalfIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{})
		for range 1000 {
			if times(t, s, 1, nil)+times(t, s, 1, errDown) > 0 {
				t.Fatalf("a call was refused with %+v, want no refusal", s.Snapshot())
			}
		}
	})
}

// A cold start of many concurrent calls isn't refused although none of them is accepted yet.
func TestShedderCountsCallWhenItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{})
		slow := resiliencetest.Slow[int](time.Second)
		var calls errgroup.Group
		for range 1000 {
			calls.Go(func() error { _, err := shed.Do(t.Context(), s, slow.Do); return err })
		}
		synctest.Wait()
		holds(t, s, 0, 0, 0)
		if err := calls.Wait(); err != nil {
			t.Error(err)
		}
		holds(t, s, 1000, 1000, 0)
	})
}

func TestShedderCountsOwnRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{})
		if refused := times(t, s, 1000, errDown); refused == 0 {
			t.Error("got no refusal, want some")
		}
		holds(t, s, 1000, 0, 0.9)
	})
}

// The dependency accepts nothing, so exactly MaxShare is refused. The bounds are six standard
// deviations away.
func TestShedderRefusesAtMostMaxShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, most := range []float64{0, 0.3, 0.99} {
			s := shed.New(shed.Config{MaxShare: most})
			want := most
			if most == 0 {
				want = 0.9
			}
			times(t, s, 200, errDown)
			const n = 20_000
			refused := float64(times(t, s, n, errDown))
			if slack := 6 * math.Sqrt(n*want*(1-want)); math.Abs(refused-n*want) > slack {
				t.Errorf("MaxShare %v: got %v of %d calls refused, want %v ± %.0f", most, refused, n, n*want, slack)
			}
		}
	})
}

func TestShedderDoesNotCountIgnoredCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{Classify: func(ctx context.Context, err error) shed.Outcome {
			switch {
			case err == nil:
				return shed.Rejected
			case errors.Is(err, errDown):
				return shed.Ignored
			}
			return shed.DefaultClassify(ctx, err)
		}})
		times(t, s, 10, errDown)
		holds(t, s, 0, 0, 0)
		times(t, s, 1, nil) // Classify decides about calls without an error as well
		holds(t, s, 1, 0, 0.5)

		ctx, cancel := context.WithCancel(t.Context())
		_, err := shed.Do(ctx, shed.New(shed.Config{}), func(context.Context) (int, error) { cancel(); return 0, errDown })
		if err != errDown {
			t.Error(err)
		}
		if _, err := shed.Do(ctx, s, resiliencetest.Panic[int]("called").Do); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		holds(t, s, 1, 0, 0.5)
	})
}

func TestShedderIgnoresCanceledCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		shed.Do(ctx, s, func(context.Context) (int, error) { cancel(); return 0, errDown })
		holds(t, s, 0, 0, 0)
		late, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		shed.Do(late, s, resiliencetest.Hang[int]().Do)
		holds(t, s, 1, 0, 0.5)
	})
}

// Neither the error nor a panic of an inner policy counts if the call wasn't made. A call that was
// made and then refused counts.
func TestShedderDoesNotCountInnerRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{})
		refusing := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return errDown })
		panicking := resilience.PolicyFunc(func(context.Context, resilience.Next) error { panic("fault") })
		after := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			next.Run(ctx)
			return resilience.ErrRefused
		})
		call := func(inner resilience.Policy) {
			defer func() { recover() }()
			resilience.Run(t.Context(), resilience.Pipeline{s, inner}, func(context.Context) error { return nil })
		}
		call(refusing)
		call(panicking)
		holds(t, s, 0, 0, 0)
		call(after)
		holds(t, s, 1, 0, 0.5)
	})
}

// The same holds for Goexit, unless the caller has gone.
func TestShedderCountsPanicAsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ways := map[string]func(context.Context, *shed.Shedder, func()){
			"Do": func(ctx context.Context, s *shed.Shedder, end func()) {
				shed.Do(ctx, s, func(context.Context) (int, error) { end(); return 0, nil })
			},
			"Run": func(ctx context.Context, s *shed.Shedder, end func()) {
				resilience.Run(ctx, s, func(context.Context) error { end(); return nil })
			},
		}
		for name, way := range ways {
			for what, end := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
				s := shed.New(shed.Config{})
				ctx, cancel := context.WithCancel(t.Context())
				for _, end := range []func(){end, func() { cancel(); end() }} { // the caller of the second call leaves
					for s.Snapshot().Share > 0 {
						time.Sleep(time.Hour) // until nothing is refused
					}
					var value any
					done := make(chan struct{})
					go func() {
						defer close(done)
						defer func() { value = recover() }()
						way(ctx, s, end)
						t.Errorf("%s: the call returned in spite of %s", name, what)
					}()
					<-done
					if (what == "panic") != (value == "boom") {
						t.Errorf("%s: %s: recovered %v", name, what, value)
					}
					if ctx.Err() == nil {
						holds(t, s, 1, 0, 0.5)
					}
				}
				holds(t, s, 0, 0, 0)
			}
		}
	})
}

func TestShedderCountsClassifyPanicAsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{Classify: func(context.Context, error) shed.Outcome { panic("fault") }})
		for _, call := range []func(){
			func() { shed.Do(t.Context(), s, func(context.Context) (int, error) { return 0, nil }) },
			func() { resilience.Run(t.Context(), s, func(context.Context) error { return nil }) },
		} {
			time.Sleep(time.Hour) // until nothing is refused
			func() {
				defer func() {
					if value := recover(); value != "fault" {
						t.Errorf("panic value is %v, want fault", value)
					}
				}()
				call()
			}()
			holds(t, s, 1, 0, 0.5)
		}
	})
}

// A call is forgotten when its age is between nine tenths of Window and Window.
func TestShedderWindowForgetsOldCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{Window: time.Minute})
		for range 10 { // at different offsets within an epoch
			times(t, s, 1, nil)
			time.Sleep(54 * time.Second)
			holds(t, s, 1, 1, 0)
			time.Sleep(6 * time.Second)
			holds(t, s, 0, 0, 0)
			time.Sleep(700 * time.Millisecond)
		}
		byDefault := shed.New(shed.Config{})
		times(t, byDefault, 1, nil)
		time.Sleep(108 * time.Second)
		holds(t, byDefault, 1, 1, 0)
		time.Sleep(12 * time.Second)
		holds(t, byDefault, 0, 0, 0)
		for range 600 { // one call per second, until the ring has wrapped around six times
			times(t, s, 1, nil)
			time.Sleep(time.Second)
		}
		if n := s.Snapshot().Requests; n < 54 || n > 60 {
			t.Errorf("got %d requests at one call per second, want 54 to 60", n)
		}
	})
}

// outage makes rate calls per second to a dependency that is down for a while. It returns how long
// after the outage half of the calls, and all calls, passed again.
func outage(t *testing.T, config shed.Config, lasts time.Duration, rate int) (half, all time.Duration) {
	s := shed.New(config)
	up := time.Now().Add(lasts)
	for all == 0 {
		_, err := shed.Do(t.Context(), s, func(context.Context) (int, error) {
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
			if since > time.Hour {
				t.Fatalf("%+v: %.0f%% of calls are refused an hour after the outage", config, 100*share)
			}
		} else if err == nil {
			t.Fatal("a call succeeded during the outage, want an error")
		}
		time.Sleep(time.Second / time.Duration(rate))
	}
	return half, all
}

// The outage lasted ten minutes.
func TestShedderRecoversWithinFourMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rate := range []int{50, 20} {
			half, all := outage(t, shed.Config{}, 10*time.Minute, rate)
			if half > 4*time.Minute || all > 5*time.Minute {
				t.Errorf("got %d calls per second: half of them pass after %v and all after %v, want at most 4m and 5m", rate, half, all)
			}
		}
	})
}

// The dependency is overloaded: it accepts 10 calls per second and rejects the others.
func TestShedderMakesKTimesAcceptedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, k := range []float64{1.5, 2, 3} {
			s := shed.New(shed.Config{K: k, Window: 20 * time.Second})
			second, taken, got := time.Now(), 0, 0
			const measured, calls = 3 * time.Minute, 100
			from := time.Now().Add(time.Minute)
			for time.Since(from) < measured {
				shed.Do(t.Context(), s, func(context.Context) (int, error) {
					if time.Since(second) >= time.Second {
						second, taken = time.Now(), 0
					}
					if time.Now().After(from) {
						got++
					}
					if taken++; taken > 10 {
						return 0, errDown
					}
					return 1, nil
				})
				time.Sleep(time.Second / calls)
			}
			if perSecond := float64(got) / measured.Seconds(); math.Abs(perSecond-10*k) > 0.15*10*k {
				t.Errorf("K %v: got %.1f calls per second, want about %.0f", k, perSecond, 10*k)
			}
		}
	})
}

// The clock of a bubble doesn't advance while goroutines run.
func TestShedderCountsEveryConcurrentCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{K: 1000})
		call := resilience.Compose(func(context.Context) (int, error) { return 1, nil }, s)
		times(t, s, 100, nil) // so that nothing is refused
		for round := range 5 {
			var callers errgroup.Group
			for i := range 8 {
				callers.Go(func() error {
					for j := range 1000 {
						err := errDown
						if (i+j)%4 > 0 {
							_, err = call(t.Context())
						} else if _, got := shed.Do(t.Context(), s, func(context.Context) (int, error) { return 0, errDown }); got == errDown {
							err = nil
						}
						if err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := callers.Wait(); err != nil {
				t.Fatal(err)
			}
			holds(t, s, 100+8000*(round+1), 100+6000*(round+1), 0)
		}
	})
}

// A shedder is used outside a bubble and then inside one, decades earlier.
func TestShedderClockGoingBackBlocksNothing(t *testing.T) {
	s := shed.New(shed.Config{})
	use := func(t *testing.T) {
		if refused := times(t, s, 100, nil); refused > 0 {
			t.Errorf("got %d refusals because of counts decades away, want 0", refused)
		}
		times(t, s, 1000, errDown)
		if got := s.Snapshot(); got.Share == 0 || got.Requests != 1100 {
			t.Errorf("got %+v after 1100 calls, want 1100 requests and a share above 0", got)
		}
	}
	use(t)
	synctest.Test(t, func(t *testing.T) {
		use(t)
		time.Sleep(2 * time.Minute)
		holds(t, s, 0, 0, 0)
	})
}

func TestErrorMatchesErrRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{Name: "search"})
		times(t, s, 1000, errDown)
		for {
			value, err := shed.Do(t.Context(), s, func(context.Context) (int, error) { return 1, errDown })
			if value == 1 {
				continue // the call was made
			}
			var refused *shed.Error
			if !errors.As(err, &refused) || !errors.Is(err, shed.ErrShed) || !errors.Is(err, resilience.ErrRefused) {
				t.Fatal(err)
			}
			if _, ok := resilience.RetryAfter(err); ok || refused.Name != "search" || refused.Share != 0.9 {
				t.Errorf("got %+v, want share 0.9 of shedder search without RetryAfter", refused)
			}
			break
		}
		for text, err := range map[string]*shed.Error{
			"shed search: refused, as are 83% of calls":          {Name: "search", Share: 5. / 6},
			"shed: refused, as are 1% of calls":                  {Share: 0.006},
			"shed: refused, as are less than 1% of calls":        {Share: 0.004},
			"shed search: refused, as are 100% of calls":         {Name: "search", Share: 0.9999},
			"shed search: refused, as are less than 1% of calls": {Name: "search", Share: 1e-9},
		} {
			if err.Error() != text {
				t.Errorf("got %q, want %q", err, text)
			}
		}
		if errors.Is(&shed.Error{}, errDown) {
			t.Error("shed.Error matches an unrelated error")
		}
	})
}

func TestDefaultClassify(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want shed.Outcome
	}{
		{t.Context(), nil, shed.Accepted},
		{gone, nil, shed.Accepted},
		{t.Context(), errDown, shed.Rejected},
		{gone, errDown, shed.Ignored},
	} {
		if got := shed.DefaultClassify(c.ctx, c.err); got != c.want {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
	if got := fmt.Sprint(shed.Accepted, shed.Rejected, shed.Ignored, shed.Outcome(7)); got != "accepted rejected ignored Outcome(7)" {
		t.Error(got)
	}
}

func TestConfigValidateReportsAllErrors(t *testing.T) {
	const want = "shed search: K is NaN, must be at least 1, or 0 for 2\n" +
		"shed search: Window is -1ns, must be at least 1ms, or 0 for 2m\n" +
		"shed search: MaxShare is 1.5, must be above 0 and at most 1, or 0 for 0.9"
	bad := shed.Config{Name: "search", K: math.NaN(), Window: -1, MaxShare: 1.5}
	if err := bad.Validate(); err == nil || err.Error() != want {
		t.Error(err)
	}
	for _, c := range []shed.Config{
		{K: 0.99}, {K: -2}, {K: math.Inf(1)}, {Window: time.Millisecond - 1}, {MaxShare: -0.1}, {MaxShare: math.NaN()}, {MaxShare: math.Inf(1)},
	} {
		if c.Validate() == nil {
			t.Errorf("Validate accepts %+v", c)
		}
	}
	for _, c := range []shed.Config{
		{}, {K: 1}, {K: math.MaxFloat64}, {Window: time.Millisecond}, {Window: math.MaxInt64}, {MaxShare: 1}, {MaxShare: math.SmallestNonzeroFloat64},
	} {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
		s := shed.New(c)
		times(t, s, 100, nil)
		times(t, s, 100, errDown)
	}
	for text, mistake := range map[string]func(){
		want: func() { shed.New(bad) },
		"shed: Do: fn is nil, must be a function": func() { shed.Do[int](t.Context(), shed.New(shed.Config{}), nil) },
		"shed: Do: s is nil, must be a Shedder made by New": func() {
			shed.Do(t.Context(), nil, func(context.Context) (int, error) { return 0, nil })
		},
	} {
		func() {
			defer func() {
				if value := recover(); value != text {
					t.Errorf("panic value is %v, want %s", value, text)
				}
			}()
			mistake()
		}()
	}
}

func TestShedderAdmittedCallAllocatesNothing(t *testing.T) {
	s := shed.New(shed.Config{})
	ctx := t.Context()
	one := func(context.Context) (int, error) { return 1, nil }
	if n := testing.AllocsPerRun(1000, func() { shed.Do(ctx, s, one) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkDo(b *testing.B) {
	ctx := b.Context()
	one := func(context.Context) (int, error) { return 1, nil }
	b.Run("accepted", func(b *testing.B) {
		s := shed.New(shed.Config{})
		b.ReportAllocs()
		for b.Loop() {
			shed.Do(ctx, s, one)
		}
	})
	b.Run("refused", func(b *testing.B) { // nine of ten calls
		s := shed.New(shed.Config{})
		b.ReportAllocs()
		for b.Loop() {
			shed.Do(ctx, s, func(context.Context) (int, error) { return 0, errDown })
		}
	})
	b.Run("parallel", func(b *testing.B) {
		s := shed.New(shed.Config{})
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				shed.Do(ctx, s, one)
			}
		})
	})
}
