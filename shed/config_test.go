package shed_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/shed"
)

// settings returns the fields of a Config that can be compared.
func settings(c shed.Config) string { return fmt.Sprint(c.Name, c.K, c.Window, c.MaxShare) }

func TestShedderConfigReturnsWhatWasSet(t *testing.T) {
	s := shed.New(shed.Config{Name: "search"})
	want := shed.Config{Name: "search", K: 2, Window: 2 * time.Minute, MaxShare: 0.9}
	if got := s.Config(); settings(got) != settings(want) || got.Classify != nil || s.Name() != "search" {
		t.Errorf("got %+v, %q, want %+v", got, s.Name(), want)
	}
	want = shed.Config{Name: "mail", K: 3, Window: time.Second, MaxShare: 0.5}
	want.Classify = func(context.Context, error) shed.Outcome { return shed.Ignored }
	if err := s.SetConfig(want); err != nil {
		t.Fatal(err)
	}
	if got := s.Config(); settings(got) != settings(want) || got.Classify == nil || s.Name() != "mail" {
		t.Errorf("got %+v, %q, want %+v", got, s.Name(), want)
	}
	if err := s.SetConfig(shed.Config{}); err != nil || s.Config().Classify != nil || s.Config().K != 2 {
		t.Errorf("got %v with %+v, want the defaults and no Classify", err, s.Config())
	}
}

func TestShedderSetConfigRejectsInvalidConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{Name: "search"})
		times(t, s, 1, errDown)
		before := s.Config()
		invalid := shed.Config{Name: "other", K: -1, Window: time.Second, MaxShare: 2}
		if err := s.SetConfig(invalid); err == nil || err.Error() != invalid.Validate().Error() {
			t.Errorf("got %v, want %v", err, invalid.Validate())
		}
		if settings(s.Config()) != settings(before) {
			t.Errorf("the Config is %+v after an error, want %+v", s.Config(), before)
		}
		holds(t, s, 1, 0, 0.5)
	})
}

// The kept counts are judged by the new K and MaxShare.
func TestShedderSetConfigKeepsCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{})
		times(t, s, 40, nil)
		for range 60 {
			shed.Do(t.Context(), s, func(context.Context) (int, error) { return 0, errDown })
		}
		requests := s.Snapshot().Requests
		for _, step := range []struct{ k, most, share float64 }{
			{1, 0, (float64(requests) - 40) / (float64(requests) + 1)}, {1, 0.25, 0.25}, {100, 0, 0},
		} {
			if err := s.SetConfig(shed.Config{K: step.k, MaxShare: step.most}); err != nil {
				t.Fatal(err)
			}
			holds(t, s, requests, 40, step.share)
		}
		if err := s.SetConfig(shed.Config{Window: 2 * time.Minute}); err != nil { // the default
			t.Fatal(err)
		}
		time.Sleep(108 * time.Second)
		if got := s.Snapshot(); got.Requests != requests || got.Accepts != 40 {
			t.Errorf("got %+v, want %d requests and 40 accepts", got, requests)
		}
		time.Sleep(12 * time.Second)
		holds(t, s, 0, 0, 0)
	})
}

func TestShedderSetConfigOfNewWindowBeginsWithoutCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{Window: time.Minute})
		times(t, s, 1, errDown)
		if err := s.SetConfig(shed.Config{Window: 10 * time.Second}); err != nil {
			t.Fatal(err)
		}
		holds(t, s, 0, 0, 0)
		times(t, s, 1, errDown)
		holds(t, s, 1, 0, 0.5)
		time.Sleep(10 * time.Second)
		holds(t, s, 0, 0, 0)
	})
}

// A call that began under the old Config is counted by the new Classify and in the new window, in
// Do and in Run.
func TestShedderSetConfigCountsCallByConfigAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, window := range []time.Duration{time.Hour, time.Minute} { // the same, and a new one
			s := shed.New(shed.Config{Window: time.Hour, Classify: func(context.Context, error) shed.Outcome {
				t.Error("the old Classify was called")
				return shed.Rejected
			}})
			calls := 0
			change := func(context.Context) (int, error) {
				err := s.SetConfig(shed.Config{Window: window, Classify: func(context.Context, error) shed.Outcome {
					calls++
					return shed.Accepted
				}})
				if err != nil {
					t.Error(err)
				}
				return 0, errDown
			}
			if _, err := shed.Do(t.Context(), s, change); err != errDown {
				t.Error(err)
			}
			holds(t, s, 1, 1, 0)
			if err := s.SetConfig(shed.Config{Window: time.Hour, Classify: s.Config().Classify}); err != nil {
				t.Fatal(err)
			}
			before := s.Snapshot().Requests
			if _, err := resilience.Do(t.Context(), s, change); err != errDown || calls != 2 {
				t.Errorf("got %v with %d calls of Classify, want 2", err, calls)
			}
			if window != time.Hour {
				before = 0
			}
			holds(t, s, before+1, before+1, 0)
		}
	})
}

// A panic during the call is counted in the window at that time as well.
func TestShedderSetConfigCountsPanicByConfigAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{})
		for _, call := range []func(fn func(context.Context) (int, error)){
			func(fn func(context.Context) (int, error)) { shed.Do(t.Context(), s, fn) },
			func(fn func(context.Context) (int, error)) { resilience.Do(t.Context(), s, fn) },
		} {
			func() {
				defer func() { recover() }()
				call(func(context.Context) (int, error) {
					s.SetConfig(shed.Config{Window: s.Config().Window + time.Second})
					panic("boom")
				})
			}()
			holds(t, s, 1, 0, 0.5)
			s.SetConfig(shed.Config{})
		}
	})
}

func TestShedderSetConfigNameAppearsInErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{Name: "old", MaxShare: 1})
		for range 1000 {
			shed.Do(t.Context(), s, func(context.Context) (int, error) { return 0, errDown })
		}
		if err := s.SetConfig(shed.Config{Name: "new", MaxShare: 0.99}); err != nil {
			t.Fatal(err)
		}
		for {
			_, err := shed.Do(t.Context(), s, func(context.Context) (int, error) { return 0, errDown })
			var refused *shed.Error
			if errors.As(err, &refused) {
				if refused.Name != "new" || refused.Share != 0.99 {
					t.Errorf("got %+v, want the new name and share", refused)
				}
				return
			}
		}
	})
}

func TestShedderSetConfigOfOwnConfigChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{Name: "search", K: 3})
		times(t, s, 3, nil)
		times(t, s, 1, errDown)
		before := s.Config()
		if err := s.SetConfig(s.Config()); err != nil || settings(s.Config()) != settings(before) || s.Config().Classify != nil {
			t.Errorf("got %v, %+v, want %+v", err, s.Config(), before)
		}
		holds(t, s, 4, 3, 0)
		one := func(context.Context) (int, error) { return 1, nil }
		ctx := t.Context()
		if n := testing.AllocsPerRun(1000, func() { shed.Do(ctx, s, one) }); n != 0 {
			t.Errorf("got %v allocations per call, want 0", n)
		}
	})
}

// The Window stays, so that no count may be lost.
func TestShedderSetConfigIsSafeForConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers, calls = 8, 400
		s := shed.New(shed.Config{K: 1000})
		var g errgroup.Group
		for worker := range workers {
			g.Go(func() error {
				for i := range calls {
					if worker < 2 {
						if err := s.SetConfig(shed.Config{Name: []string{"a", "b"}[i%2], K: 1000 + float64(i%2)}); err != nil {
							return err
						}
					}
					if c := s.Config(); c.Name == "a" && c.K != 1000 || c.Name == "b" && c.K != 1001 {
						t.Errorf("got %+v, a mixture of two", c)
					}
					if _, err := shed.Do(t.Context(), s, func(context.Context) (int, error) { return 1, nil }); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		holds(t, s, workers*calls, workers*calls, 0)
	})
}

// Goroutines change the Window while calls end. The counts of the last window are those of calls
// after it, at most.
func TestShedderSetConfigOfWindowIsSafeForConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{})
		var g errgroup.Group
		for worker := range 4 {
			g.Go(func() error {
				for i := range 300 {
					if worker < 2 {
						s.SetConfig(shed.Config{Window: time.Duration(1+i%2) * time.Minute})
					}
					if _, err := shed.Do(t.Context(), s, func(context.Context) (int, error) { return 1, nil }); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if got := s.Snapshot(); got.Requests > 1200 || got.Requests != got.Accepts {
			t.Errorf("got %+v, want at most 1200 requests, all accepted", got)
		}
		s.SetConfig(shed.Config{Window: time.Hour})
		holds(t, s, 0, 0, 0)
		times(t, s, 1, nil)
		holds(t, s, 1, 1, 0)
	})
}

// Each mark is counted as its table says, in Do, in a pipeline, and by a caller that has left.
func TestShedderCountsMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrapped := func(err error) error { return fmt.Errorf("get user: %w", err) }
		for _, c := range []struct {
			name              string
			err               error
			requests, accepts int
			gone              int // requests of a caller that has left
		}{
			{"none", errDown, 1, 0, 0},
			{"NotFailure", resilience.NotFailure(errDown), 1, 1, 1},
			{"Contention", resilience.Contention(errDown), 1, 1, 1},
			{"CallerFault", resilience.CallerFault(errDown), 0, 0, 0},
			{"NotMade", resilience.NotMade(errDown), 1, 0, 0},
			{"WithRetryAfter", resilience.WithRetryAfter(errDown, time.Second), 1, 0, 0},
			{"NotMade of Contention", resilience.NotMade(resilience.Contention(errDown)), 1, 1, 1},
			{"Contention of NotMade", resilience.Contention(resilience.NotMade(errDown)), 1, 1, 1},
			{"CallerFault of NotFailure", resilience.CallerFault(resilience.NotFailure(errDown)), 0, 0, 0},
			{"NotFailure of CallerFault", resilience.NotFailure(resilience.CallerFault(errDown)), 1, 1, 1},
			{"NotMade of CallerFault", resilience.NotMade(resilience.CallerFault(errDown)), 0, 0, 0},
			{"wrapped NotFailure", wrapped(resilience.NotFailure(errDown)), 1, 0, 0},
			{"wrapped CallerFault", wrapped(resilience.CallerFault(errDown)), 1, 0, 0},
			{"joined CallerFault", errors.Join(resilience.CallerFault(errDown)), 1, 0, 0},
		} {
			for way, call := range map[string]func(ctx context.Context, s *shed.Shedder, fn func(context.Context) (int, error)) (int, error){
				"Do": shed.Do[int],
				"in pipeline": func(ctx context.Context, s *shed.Shedder, fn func(context.Context) (int, error)) (int, error) {
					return resilience.Do(ctx, s, fn)
				},
			} {
				s := shed.New(shed.Config{})
				_, err := call(t.Context(), s, func(context.Context) (int, error) { return 0, c.err })
				if !errors.Is(err, errDown) || err.Error() != c.err.Error() {
					t.Errorf("%s, %s: got %v, want %v", c.name, way, err, c.err)
				}
				if got := s.Snapshot(); got.Requests != c.requests || got.Accepts != c.accepts {
					t.Errorf("%s, %s: got %+v, want %d requests and %d accepts", c.name, way, got, c.requests, c.accepts)
				}
				s = shed.New(shed.Config{})
				ctx, cancel := context.WithCancel(t.Context())
				call(ctx, s, func(context.Context) (int, error) { cancel(); return 0, c.err })
				if got := s.Snapshot(); got.Requests != c.gone {
					t.Errorf("%s, %s, caller has left: got %+v, want %d requests", c.name, way, got, c.gone)
				}
			}
		}
	})
}

// A custom Classify is called with the marked error and decides alone, except for a CallerFault:
// that call counts as never made.
func TestShedderClassifyReceivesMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []error
		s := shed.New(shed.Config{Classify: func(_ context.Context, err error) shed.Outcome {
			got = append(got, err)
			return shed.Rejected
		}})
		marked := []error{resilience.NotFailure(errDown), resilience.NotMade(resilience.Contention(errDown)), fmt.Errorf("%w", resilience.CallerFault(errDown))}
		for i, err := range marked {
			shed.Do(t.Context(), s, func(context.Context) (int, error) { return 0, err })
			if len(got) != i+1 || got[i] != err {
				t.Errorf("Classify was called with %v, want %v", got, err)
			}
			holds(t, s, 1, 0, 0.5)
			time.Sleep(time.Hour) // until nothing is refused
		}
		fault := resilience.NotMade(resilience.CallerFault(errDown))
		for range 3 {
			if _, err := shed.Do(t.Context(), s, func(context.Context) (int, error) { return 0, fault }); err != fault {
				t.Errorf("got %v, want %v", err, fault)
			}
			resilience.Do(t.Context(), s, func(context.Context) (int, error) { return 0, fault })
		}
		if len(got) != len(marked) {
			t.Errorf("Classify was called with %v, want no caller's fault", got[len(marked):])
		}
		holds(t, s, 0, 0, 0)
	})
}

// What an inner policy refused wasn't made, whatever marks its error has.
func TestShedderDoesNotCountMarkedInnerRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shed.New(shed.Config{})
		for _, err := range []error{resilience.NotFailure(errDown), resilience.Contention(errDown), resilience.CallerFault(errDown)} {
			refusing := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return err })
			resilience.Do(t.Context(), resilience.Pipeline{s, refusing}, resiliencetest.FailFirst[int](0).Do)
			holds(t, s, 0, 0, 0)
		}
	})
}

func TestOutcomeMarshalTextEqualsString(t *testing.T) {
	for o, want := range map[shed.Outcome]string{shed.Accepted: "accepted", shed.Rejected: "rejected", shed.Ignored: "ignored", 7: "Outcome(7)"} {
		text, err := o.MarshalText()
		if err != nil || string(text) != want || o.String() != want {
			t.Errorf("got %s, %v, and %v, want %s", text, err, o, want)
		}
	}
	got, err := json.Marshal(map[string]shed.Outcome{"outcome": shed.Rejected})
	if err != nil || string(got) != `{"outcome":"rejected"}` {
		t.Errorf("got %s, %v, want the name", got, err)
	}
}
