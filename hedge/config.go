package hedge

import (
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/internal/errtext"
)

// Config says when a [Hedge] starts a call again. Delay or Quantile must be set.
type Config struct {
	// Name stands in events. Default none.
	Name string

	// Delay is the time before each further start, counted from the one before. It may be 0 only with Quantile. Of use is one that few
	// calls take, the 95th percentile say.
	Delay time.Duration

	// Quantile, if set, has a call started again once it is slower than this share of the recent ones, those of the last three to four
	// minutes: with 0.95 one call in twenty, whatever the dependency's pace. It is found to within 5 %, and kept in some 40 kB. From above 0 to below 1.
	Quantile float64

	// MinSamples is how many recent calls Quantile needs. With fewer, Delay counts, and a call is not hedged at all if that is 0. Default 100.
	MinSamples int

	// Max is how many further starts a call may have. Default 1.
	Max int

	// Budget must yield a token for every further start. It is asked last. A call for which it has none, when it is slow, is not started by
	// time any more. Default 5 % of calls: budget.New(budget.Config{Ratio: 0.05, TTL: 5 * time.Minute}), with which the first nineteen calls
	// cannot be hedged. One that retries share gets one deposit a call.
	Budget *budget.Budget

	// HedgeIf, if set, is asked whether a failure has the next start begin at once where it would else. It narrows and never widens, and
	// does not concern starts that begin because those before are slow. It runs on the goroutine of the call.
	HedgeIf func(error) bool

	// OnHedge, if set, is called before each further start, on the goroutine of the call, which waits for it.
	OnHedge func(Event)
}

const (
	defaultMinSamples = 100
	defaultMax        = 1
)

// Validate reports every mistake in the Config, nil if there is none.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(format string, args ...any) {
		mistakes = append(mistakes, errors.New(errtext.Title("hedge", c.Name)+": "+fmt.Sprintf(format, args...)))
	}
	quantileOK := c.Quantile == 0 || c.Quantile > 0 && c.Quantile < 1 // so written, NaN is a mistake
	if !quantileOK {
		mistake("Quantile is %v, must be above 0 and below 1, or 0 for none", c.Quantile)
	}
	switch {
	case c.Delay < 0:
		mistake("Delay is %v, must be positive, or 0 with Quantile", c.Delay)
	case c.Delay == 0 && c.Quantile == 0:
		mistake("Delay and Quantile are both 0, one of them must be positive")
	}
	if c.MinSamples < 0 {
		mistake("MinSamples is %d, must be positive, or 0 for the default %d", c.MinSamples, defaultMinSamples)
	}
	if c.Max < 0 {
		mistake("Max is %d, must be positive, or 0 for the default %d", c.Max, defaultMax)
	}
	return errors.Join(mistakes...)
}

func (c Config) withDefaults() Config {
	if c.MinSamples == 0 {
		c.MinSamples = defaultMinSamples
	}
	if c.Max == 0 {
		c.Max = defaultMax
	}
	if c.Budget == nil {
		c.Budget = budget.New(budget.Config{Ratio: 0.05, TTL: 5 * time.Minute})
	}
	return c
}
