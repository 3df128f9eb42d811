package hedge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/internal/errtext"
)

// Config configures when a [Hedge] starts a call again. Delay or Quantile must be set.
type Config struct {
	// Name appears in events and snapshots. Default none.
	Name string

	// Delay is the time before each additional start, counted from the previous start. It may be 0
	// only if Quantile is set. Choose a delay that few calls exceed, for example the 95th
	// percentile.
	Delay time.Duration

	// Quantile, if set, starts a call again once it is slower than this share of the recent calls,
	// which are those of the last three to four minutes. With 0.95, one call in twenty is hedged,
	// whatever the dependency's pace. A call that ends with a NotFailure counts like one that
	// succeeds. The quantile is exact to within 5% and takes about 40 kB of memory. Range: above 0,
	// below 1.
	Quantile float64

	// MinSamples is how many recent calls Quantile needs. With fewer, Delay applies; if Delay is 0,
	// calls aren't hedged until then. Default 100.
	MinSamples int

	// Max is the maximum number of additional starts of a call. Default 1.
	Max int

	// Budget must have a token for every additional start. It is checked last. If it has no token
	// when a call is slow, that call gets no more starts for slowness. Default 5% of calls:
	// budget.New(budget.Config{Ratio: 0.05, TTL: 5 * time.Minute}), with which the first nineteen
	// calls can't be hedged. A budget shared with retries gets one deposit per call. If all starts
	// of a call end with a CallerFault, the call deposits nothing, unless it was hedged while it
	// was slow and the budget had no token without its deposit.
	Budget *budget.Budget

	// HedgeIf, if set, reports whether a failure starts the next start immediately, where it
	// otherwise would. It narrows and never widens: it isn't called with an error marked as
	// NotFailure or CallerFault, with a permanent one, or with one that specifies a RetryAfter. It
	// has no effect on starts that are triggered by slowness. It runs on the call's goroutine.
	HedgeIf func(error) bool

	// OnHedge, if set, is called before each additional start, on the call's goroutine, with the
	// policy's context. The start waits until it returns. If the context ends while OnHedge runs,
	// the start doesn't follow.
	OnHedge func(ctx context.Context, e Event)
}

const (
	defaultMinSamples = 100
	defaultMax        = 1
)

// Validate reports all errors in the Config together. It returns nil if there are none.
func (c Config) Validate() error {
	var errs []error
	invalid := func(format string, args ...any) {
		errs = append(errs, errors.New(errtext.Title("hedge", c.Name)+": "+fmt.Sprintf(format, args...)))
	}
	quantileOK := c.Quantile >= 0 && c.Quantile < 1 // false for NaN
	if !quantileOK {
		invalid("Quantile is %v, must be above 0 and below 1, or 0 for none", c.Quantile)
	}
	switch {
	case c.Delay < 0:
		invalid("Delay is %v, must be positive, or 0 with Quantile", c.Delay)
	case c.Delay == 0 && c.Quantile == 0:
		invalid("Delay and Quantile are both 0, one of them must be positive")
	}
	if c.MinSamples < 0 {
		invalid("MinSamples is %d, must be positive, or 0 for the default %d", c.MinSamples, defaultMinSamples)
	}
	if c.Max < 0 {
		invalid("Max is %d, must be positive, or 0 for the default %d", c.Max, defaultMax)
	}
	return errors.Join(errs...)
}

// withDefaults fills in the defaults, except that of Budget: see Hedge.SetConfig.
func (c Config) withDefaults() Config {
	if c.MinSamples == 0 {
		c.MinSamples = defaultMinSamples
	}
	if c.Max == 0 {
		c.Max = defaultMax
	}
	return c
}

func newDefaultBudget() *budget.Budget {
	return budget.New(budget.Config{Ratio: 0.05, TTL: 5 * time.Minute})
}
