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
	otherPolicy  struct{}
)

func init() { Prompt[promptPolicy]() }

// TestOneReadingOfTheClockDoes for a limit within another, as long as nobody says that time may have passed: here it has, which
// shows that the clock was not read.
func TestOneReadingOfTheClockDoes(t *testing.T) {
	for name, row := range map[string]struct {
		between func(ctx *Ctx)
		want    time.Duration
	}{
		"nothing":         {func(*Ctx) {}, 0},
		"a prompt policy": {func(ctx *Ctx) { ctx.HandedTo(promptPolicy{}) }, 0},
		"another limit":   {func(ctx *Ctx) { within(ctx, time.Hour) }, 0},
		"time":            {func(ctx *Ctx) { Forget(ctx) }, time.Second},
		"a policy":        {func(ctx *Ctx) { ctx.HandedTo(otherPolicy{}) }, time.Second},
		"the effector":    {func(ctx *Ctx) { ctx.HandedTo(nil) }, time.Second},
		"a limit, then time": {func(ctx *Ctx) {
			within(ctx, time.Minute)
			Forget(ctx)
		}, time.Second},
		"a limit that took it": {func(ctx *Ctx) { within(ctx, time.Minute) }, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				outer := within(context.Background(), time.Hour)
				at := time.Now()
				row.between(outer)
				time.Sleep(time.Second)
				inner := within(outer, time.Minute)
				if deadline, _ := inner.Deadline(); deadline.Sub(at) != time.Minute+row.want {
					t.Errorf("the inner limit passes after %v, want %v", deadline.Sub(at), time.Minute+row.want)
				}
			})
		})
	}
}

// TestOneReadingDoesForAnyNumberOfLimits, one within the other.
func TestOneReadingDoesForAnyNumberOfLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now()
		c := within(context.Background(), time.Hour)
		for limit := 30 * time.Minute; limit > time.Minute; limit /= 2 {
			time.Sleep(time.Second)
			c = within(c, limit)
			if deadline, _ := c.Deadline(); deadline.Sub(at) != limit {
				t.Errorf("the limit passes after %v, want %v", deadline.Sub(at), limit)
			}
		}
	})
}

// TestTheClockIsReadAtTheEndForThoseWhoMayAsk: others, who got the context, or the limit's own policy.
func TestTheClockIsReadAtTheEndForThoseWhoMayAsk(t *testing.T) {
	for name, row := range map[string]struct {
		meanwhile func(outer *Ctx)
		want      uint32
	}{
		"an inner limit":          {func(outer *Ctx) { end(within(outer, time.Second)) }, canceled},
		"no inner limit":          {func(*Ctx) {}, expired},
		"a policy":                {func(outer *Ctx) { outer.HandedTo(otherPolicy{}) }, expired},
		"an inner limit and time": {func(outer *Ctx) { end(within(outer, time.Second)); Forget(outer) }, expired},
		"time and an inner limit": {func(outer *Ctx) { Forget(outer); end(within(outer, time.Second)) }, expired},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				outer := within(context.Background(), time.Minute)
				row.meanwhile(outer)
				time.Sleep(time.Minute)
				end(outer)
				if state := outer.state.Load(); state != row.want {
					t.Errorf("state %d, want %d", state, row.want)
				}
				outer = within(context.Background(), time.Minute)
				row.meanwhile(outer)
				time.Sleep(time.Minute)
				if !new(Limit).Passed(outer) {
					t.Error("its own deadline has not passed")
				}
			})
		})
	}
}

// TestWhatIsForgottenIsOnlyRead by those who have the context, of whom there may be any number. The race detector looks on.
func TestWhatIsForgottenIsOnlyRead(t *testing.T) {
	c := within(context.Background(), time.Hour)
	Forget(c)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			Forget(c)
			c.HandedTo(otherPolicy{})
			end(within(c, time.Minute))
			return nil
		})
	}
	g.Wait()
	if end(c); c.moment != seen {
		t.Errorf("moment %d", c.moment)
	}
}

// TestTheEndReleasesWhatWasArmed by somebody who has the inner limit's context.
func TestTheEndReleasesWhatWasArmed(t *testing.T) {
	parent := &counting{Context: context.Background(), asked: func() {}}
	outer := within(parent, time.Hour)
	inner := within(outer, time.Minute)
	done := inner.Done()
	end(inner)
	if end(outer); parent.made == 0 || parent.children != 0 {
		t.Errorf("%d made, %d of them left, want some and none", parent.made, parent.children)
	}
	<-done
}
