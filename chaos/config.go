package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/effector-go/resilience/internal/errtext"
	"github.com/effector-go/resilience/internal/mark"
)

// Config configures a [Chaos].
type Config struct {
	// Name appears in error texts and in Injection. Default none.
	Name string

	// Faults are the possible faults. At most one applies to a call, so their shares add up to at
	// most 1.
	Faults []Fault

	// Only, if set, selects the calls that may have a fault. Default: all. It must be safe for
	// concurrent use. If it panics, the call panics.
	Only func(ctx context.Context) bool

	// MaxActive is the largest number of concurrent calls under a fault; additional ones are made
	// without a fault. At least 1; default 100.
	MaxActive int

	// Seed, if not 0, makes experiments repeatable: with the same seed, the same faults, and the
	// same order of calls, the same calls have the same faults. Default 0: at random.
	Seed uint64

	// OnInject, if set, is called before each fault, before its delay, with the call's context. It
	// must be safe for concurrent use. If it panics, the call panics.
	OnInject func(ctx context.Context, i Injection)
}

// A Fault is what happens to a share of the calls: one of Err, Lose, Hang, and Panic, or a Delay
// alone.
type Fault struct {
	// Share is the share of all calls that Only selects: greater than 0, at most 1.
	Share float64

	// Delay is how long the call waits before it is made, or before the fault. At least 0;
	// default 0.
	Delay time.Duration
	// Jitter lengthens the Delay by a random time up to Jitter. At least 0; default 0.
	Jitter time.Duration

	// Err is returned without making the call. The returned error also matches [ErrInjected], and
	// has the marks of Err: one marked with resilience.NotMade counts as a start without an effect.
	Err error

	// Lose makes the call and then loses its answer: the effect happened, but the caller receives
	// Err, or ErrInjected without Err. The value goes to resilience.Discard, never to the caller. A
	// call that failed or was refused keeps its own error.
	Lose bool

	// Hang doesn't make the call, and returns only when the context or the experiment ends.
	Hang bool

	// Panic, if not nil, is the value that the policy panics with instead of making the call.
	Panic any
}

// Validate reports all errors of c together, joined by [errors.Join]. Each names the field, its
// value, and the allowed range. It returns nil if there is none.
func (c Config) Validate() error {
	var errs []error
	mistake := func(field string, value any, must string) {
		errs = append(errs, fmt.Errorf("%s: %s is %v, must be %s", title(c.Name), field, value, must))
	}
	sum := 0.0
	for i, f := range c.Faults {
		at := fmt.Sprintf("Faults[%d].", i)
		if !(f.Share > 0 && f.Share <= 1) { // NaN too
			mistake(at+"Share", f.Share, "greater than 0 and at most 1")
		}
		sum += f.Share
		if f.Delay < 0 {
			mistake(at+"Delay", f.Delay, "0 or more")
		}
		if f.Jitter < 0 {
			mistake(at+"Jitter", f.Jitter, "0 or more")
		}
		if longest := maxDelay - max(0, f.Delay); f.Jitter > longest {
			mistake(at+"Jitter", f.Jitter, fmt.Sprintf("at most %v with this Delay", longest))
		}
		switch kinds := f.kinds(); {
		case len(kinds) > 1:
			errs = append(errs, fmt.Errorf("%s: Faults[%d] has %s, must have only one of them", title(c.Name), i, strings.Join(kinds, " and ")))
		case len(kinds) == 0 && f.Delay <= 0 && f.Jitter <= 0:
			errs = append(errs, fmt.Errorf("%s: Faults[%d] has no fault, must have Err, Lose, Hang, Panic, or a Delay", title(c.Name), i))
		}
	}
	if sum > 1+1e-9 { // shares such as 0.7, 0.2, and 0.1 may add up to slightly more
		mistake("sum of Faults' Share", sum, "at most 1")
	}
	if c.MaxActive < 0 {
		mistake("MaxActive", c.MaxActive, "0 (for the default, 100) or more")
	}
	return errors.Join(errs...)
}

const maxDelay = time.Duration(1<<63 - 1)

// kinds returns the names of the fields that are set of those that exclude one another. The Err of
// a Lose is not a kind.
func (f *Fault) kinds() (kinds []string) {
	for _, kind := range []struct {
		name string
		set  bool
	}{{"Err", f.Err != nil && !f.Lose}, {"Lose", f.Lose}, {"Hang", f.Hang}, {"Panic", f.Panic != nil}} {
		if kind.set {
			kinds = append(kinds, kind.name)
		}
	}
	return kinds
}

// withDefaults returns a copy with the defaults filled in and with the errors that faults return.
func (c Config) withDefaults() Config {
	if c.MaxActive == 0 {
		c.MaxActive = 100
	}
	c.Faults = slices.Clone(c.Faults)
	for i := range c.Faults {
		f := &c.Faults[i]
		if f.Lose && f.Err == nil {
			f.Err = errLost
		}
		if f.Err != nil {
			f.Err = c.injected(f.Err)
		}
	}
	return c
}

// ErrInjected matches every error of a fault under [errors.Is], in addition to the fault's Err.
var ErrInjected = errors.New("chaos: injected")

var (
	errLost  = errors.New("answer lost")
	errEnded = errors.New("hung until the experiment ended")
)

// injected returns err, with its marks, as the error of a fault: "chaos users: injected: EOF".
func (c *Config) injected(err error) error {
	return mark.Also(err, ErrInjected, title(c.Name)+": injected: ")
}

func title(name string) string { return errtext.Title("chaos", name) }
