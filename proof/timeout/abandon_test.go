package timeout

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/timeout"
)

const limit = 100 * time.Millisecond

// A call is one under a limit that abandons, beside others. No two times of it are equal.
type call struct {
	began time.Time
	takes time.Duration // the effector, if nothing ends it
	heeds bool          // it ends with its ctx
	way   string        // in which it ends then: ok, fails, panics, exits
	gone  time.Duration // when the caller goes; 0: it stays
	calls int           // that were left when it began; negative: it was made

	got atomic.Value // a string, none while it runs
}

func (c *call) String() string {
	return fmt.Sprintf("which takes %v, heeds its ctx: %t, %s, caller gone after %v", c.takes, c.heeds, c.way, c.gone)
}

// returns is when the call returns. What it does then it does by itself, or leaves to its effector.
func (c *call) returns() (after time.Duration, itself bool) {
	ends := limit
	if c.gone > 0 {
		ends = min(ends, c.gone)
	}
	return min(c.takes, ends), c.takes < ends
}

// want is what the call has come to by now.
func (c *call) want() string {
	after, itself := c.returns()
	switch {
	case c.calls >= 0:
		return fmt.Sprintf("refused after 0s, %d left", c.calls)
	case time.Since(c.began) < after:
		return ""
	case itself:
		return fmt.Sprintf("%s after %v", c.way, after)
	case after == limit:
		return fmt.Sprintf("limit after %v", after)
	}
	return fmt.Sprintf("gone after %v", after)
}

// left reports whether the effector is left behind now.
func (c *call) left() bool {
	after, itself := c.returns()
	running := time.Since(c.began)
	return c.calls < 0 && !itself && !c.heeds && running >= after && running < c.takes
}

// An abandoner drives a timeout that abandons with calls that run beside each other.
type abandoner struct {
	most  int
	real  *timeout.Timeout
	calls []*call
}

func (a *abandoner) left() (n int) {
	for _, c := range a.calls {
		if c.left() {
			n++
		}
	}
	return n
}

func (a *abandoner) begin(t *rapid.T) {
	apart := time.Duration(1+len(a.calls)) * time.Microsecond
	c := &call{
		began: time.Now(),
		takes: time.Duration(rapid.IntRange(1, 300).Draw(t, "takes"))*time.Millisecond + apart,
		heeds: rapid.IntRange(0, 3).Draw(t, "heeds if 0") == 0,
		way:   rapid.SampledFrom([]string{"ok", "fails", "panics", "exits"}).Draw(t, "way"),
		calls: -1,
	}
	if rapid.IntRange(0, 2).Draw(t, "gone if 0") == 0 {
		c.gone = time.Duration(rapid.IntRange(1, 150).Draw(t, "gone"))*time.Millisecond + apart + time.Nanosecond
	}
	if _, itself := c.returns(); !itself && c.way == "panics" {
		c.way = "fails" // else it is the program's panic
	}
	if n := a.left(); n >= a.most {
		c.calls = n
	}
	a.calls = append(a.calls, c)
	go a.make(c)
}

// make makes the call and notes what it came to.
func (a *abandoner) make(c *call) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.gone > 0 {
		timer := time.AfterFunc(c.gone, cancel)
		defer timer.Stop()
	}
	what := "exits"
	defer func() {
		if value := recover(); value != nil {
			what = "panics"
			if e, ok := value.(*resilience.PanicError); !ok || e.Value != c {
				what = fmt.Sprintf("panics with %v", value)
			}
		}
		what += fmt.Sprintf(" after %v", time.Since(c.began))
		if c.calls >= 0 {
			what += fmt.Sprintf(", %d left", c.calls)
		}
		c.got.Store(what)
	}()
	value, err := resilience.Do(ctx, a.real, c.effect)
	without := value == nil || c.heeds && value == c // one that ends with its ctx may be just in time
	var refused *timeout.AbandonedError
	switch {
	case err == nil && value == c:
		what = "ok"
	case errors.As(err, &refused) && refused.Abandoned == c.calls && errors.Is(err, resilience.ErrRefused):
		what = "refused"
	case errors.Is(err, timeout.ErrTimeout) && without:
		what = "limit"
	case err == errOwn && value == c:
		what = "fails"
	case errors.Is(err, context.Canceled) && without:
		what = "gone"
	default:
		what = fmt.Sprintf("%v, %v", value, err)
	}
}

func (c *call) effect(ctx context.Context) (*call, error) {
	done := ctx.Done()
	if !c.heeds {
		done = nil
	}
	select {
	case <-time.After(c.takes):
	case <-done:
		return c, ctx.Err()
	}
	switch c.way {
	case "fails":
		return c, errOwn
	case "panics":
		panic(c)
	case "exits":
		runtime.Goexit()
	}
	return c, nil
}

func (a *abandoner) check(t *rapid.T) {
	synctest.Wait()
	for i, c := range a.calls {
		got, _ := c.got.Load().(string)
		if want := c.want(); got != want {
			t.Fatalf("call %d, %v, came to %q, want %q", i, c, got, want)
		}
	}
	if got, want := a.real.Abandoned(), a.left(); got != want {
		t.Fatalf("%d are said to be left behind, want %d", got, want)
	}
}

// TestTimeoutAbandonMatchesModel: every call that is made returns at its end, its caller's or the limit, and is refused while so many are
// left behind.
func TestTimeoutAbandonMatchesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 3).Draw(t, "Abandon")
		rapid.SyncTest(t, func(t *rapid.T) {
			defer time.Sleep(time.Second) // where a check fails: else the calls that still run are what is told
			a := &abandoner{most: most, real: timeout.New(timeout.Config{Limit: limit, Abandon: most})}
			t.Repeat(map[string]func(*rapid.T){
				"":          a.check,
				"begin":     a.begin,
				"begin too": a.begin,
				"wait": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(0, 60).Draw(t, "ms")) * time.Millisecond)
				},
			})
			time.Sleep(time.Second) // whatever was left behind ends
			a.check(t)
			if n := a.real.Abandoned(); n != 0 {
				t.Fatalf("%d are left behind for ever", n)
			}
		})
	})
}
