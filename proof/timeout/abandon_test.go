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

// A call runs concurrently with others under a limit that abandons. No two of its times are equal.
type call struct {
	began    time.Time
	takes    time.Duration // duration of the effector if nothing ends it
	respects bool          // the effector ends with its context
	way      string        // how it ends otherwise: ok, fails, panics, exits
	gone     time.Duration // when the caller leaves; 0: never
	calls    int           // abandoned calls because of which it was refused; negative: it was made

	got atomic.Value // how it ended, a string; none while it runs
}

func (c *call) String() string {
	return fmt.Sprintf("which takes %v, respects its context: %t, %s, caller gone after %v", c.takes, c.respects, c.way, c.gone)
}

// returns returns when the call returns, and whether it ends by itself rather than by the limit or
// its caller.
func (c *call) returns() (after time.Duration, itself bool) {
	ends := limit
	if c.gone > 0 {
		ends = min(ends, c.gone)
	}
	return min(c.takes, ends), c.takes < ends
}

// want is how the call must have ended by now; empty while it runs.
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

// left reports whether the effector is abandoned now.
func (c *call) left() bool {
	after, itself := c.returns()
	running := time.Since(c.began)
	return c.calls < 0 && !itself && !c.respects && running >= after && running < c.takes
}

// An abandoner makes concurrent calls under a timeout that abandons.
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
		began:    time.Now(),
		takes:    time.Duration(rapid.IntRange(1, 300).Draw(t, "takes"))*time.Millisecond + apart,
		respects: rapid.IntRange(0, 3).Draw(t, "respects if 0") == 0,
		way:      rapid.SampledFrom([]string{"ok", "fails", "panics", "exits"}).Draw(t, "way"),
		calls:    -1,
	}
	if rapid.IntRange(0, 2).Draw(t, "gone if 0") == 0 {
		c.gone = time.Duration(rapid.IntRange(1, 150).Draw(t, "gone"))*time.Millisecond + apart + time.Nanosecond
	}
	if _, itself := c.returns(); !itself && c.way == "panics" {
		c.way = "fails" // a panic would crash the program
	}
	if n := a.left(); n >= a.most {
		c.calls = n
	}
	a.calls = append(a.calls, c)
	go a.make(c)
}

// make makes the call and records how it ended.
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
	without := value == nil || c.respects && value == c // a call that ends with its context may be just in time
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
	if !c.respects {
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
			t.Fatalf("call %d, %v: got %q, want %q", i, c, got, want)
		}
	}
	if got, want := a.real.Abandoned(), a.left(); got != want {
		t.Fatalf("got %d abandoned calls, want %d", got, want)
	}
}

// Each call that is made returns when it ends, its caller leaves, or the limit expires. A call is
// refused while too many calls are abandoned.
func TestTimeoutAbandonMatchesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 3).Draw(t, "Abandon")
		rapid.SyncTest(t, func(t *rapid.T) {
			defer time.Sleep(time.Second) // if a check fails: otherwise the calls that still run are reported instead
			a := &abandoner{most: most, real: timeout.New(timeout.Config{Limit: limit, Abandon: most})}
			t.Repeat(map[string]func(*rapid.T){
				"":          a.check,
				"begin":     a.begin,
				"begin too": a.begin,
				"wait": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(0, 60).Draw(t, "ms")) * time.Millisecond)
				},
			})
			time.Sleep(time.Second) // until the abandoned calls have ended
			a.check(t)
			if n := a.real.Abandoned(); n != 0 {
				t.Fatalf("got %d calls abandoned forever, want 0", n)
			}
		})
	})
}
