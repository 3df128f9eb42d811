package limit

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

type (
	promptPolicy struct{}
	otherPolicy  struct{ promptPolicy }
)

func init() { Prompt[promptPolicy]() }

// TestOneReadingOfTheClockDoes for a limit within another, as long as nobody says that time may have passed: here it has, which
// shows that the clock was not read.
func TestOneReadingOfTheClockDoes(t *testing.T) {
	for name, row := range map[string]struct {
		between func(ctx context.Context)
		want    time.Duration
	}{
		"nothing":         {func(context.Context) {}, 0},
		"a prompt policy": {func(ctx context.Context) { Enter(ctx, promptPolicy{}) }, 0},
		"another limit":   {func(ctx context.Context) { Within(ctx, time.Hour) }, 0},
		"time":            {func(ctx context.Context) { Forget(ctx) }, time.Second},
		"a policy":        {func(ctx context.Context) { Enter(ctx, otherPolicy{}) }, time.Second},
		"a limit, then time": {func(ctx context.Context) {
			Within(ctx, time.Minute)
			Forget(ctx)
		}, time.Second},
		"a limit that took it": {func(ctx context.Context) { Within(ctx, time.Minute) }, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				outer := Within(context.Background(), time.Hour)
				at := time.Now()
				row.between(outer)
				time.Sleep(time.Second)
				inner := Within(outer, time.Minute)
				if deadline, _ := inner.Deadline(); deadline.Sub(at) != time.Minute+row.want {
					t.Errorf("the inner limit passes after %v, want %v", deadline.Sub(at), time.Minute+row.want)
				}
			})
		})
	}
}

// TestTheClockIsReadAtTheEndForThoseWhoMayAsk.
func TestTheClockIsReadAtTheEndForThoseWhoMayAsk(t *testing.T) {
	for name, row := range map[string]struct {
		meanwhile func(outer *Ctx)
		want      uint32
	}{
		"an inner limit":          {func(outer *Ctx) { Within(outer, time.Second).End() }, canceled},
		"no inner limit":          {func(*Ctx) {}, expired},
		"a policy":                {func(outer *Ctx) { Enter(outer, otherPolicy{}) }, expired},
		"an inner limit and time": {func(outer *Ctx) { Within(outer, time.Second).End(); Forget(outer) }, expired},
		"time and an inner limit": {func(outer *Ctx) { Forget(outer); Within(outer, time.Second).End() }, expired},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				outer := Within(context.Background(), time.Minute)
				row.meanwhile(outer)
				time.Sleep(time.Minute)
				outer.Succeed()
				outer.End()
				if state := outer.state.Load(); state != row.want {
					t.Errorf("state %d, want %d", state, row.want)
				}
			})
		})
	}
}

// TestWhatIsForgottenIsOnlyRead by those who have the context, of whom there may be any number. The race detector looks on.
func TestWhatIsForgottenIsOnlyRead(t *testing.T) {
	c := Within(context.Background(), time.Hour)
	Forget(c)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			Forget(c)
			Enter(c, otherPolicy{})
			inner := Within(c, time.Minute)
			inner.Succeed()
			inner.End()
			return nil
		})
	}
	g.Wait()
	if c.End(); c.moment != seen {
		t.Errorf("moment %d", c.moment)
	}
}

// TestSuccessReleasesWhatWasArmed by somebody who has the inner limit's context.
func TestSuccessReleasesWhatWasArmed(t *testing.T) {
	parent := &counting{Context: context.Background(), asked: func() {}}
	outer := Within(parent, time.Hour)
	inner := Within(outer, time.Minute)
	done := inner.Done()
	inner.Succeed()
	inner.End()
	outer.Succeed()
	if outer.End(); parent.made == 0 || parent.children != 0 {
		t.Errorf("%d made, %d of them left, want some and none", parent.made, parent.children)
	}
	<-done
}
