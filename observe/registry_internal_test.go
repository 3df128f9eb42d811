package observe

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
)

func TestNamesRemoveLongestUnused(t *testing.T) {
	n := newNames[string, string](2)
	use := func(key string) *named[string, string] { return n.use(key, func() string { return "value of " + key }) }
	keys := func() (keys []string) {
		for key, e := range n.named {
			if e.value != "value of "+key {
				t.Errorf("got value %q for key %q", e.value, key)
			}
			keys = append(keys, key)
		}
		slices.Sort(keys)
		return keys
	}
	a, b := use("a"), use("b")
	if e := use("c"); e != nil {
		t.Errorf("got %v while all keys are in use, want nil", e)
	}
	n.leave(a)
	n.leave(b)
	n.leave(use("a")) // so that b is the one that has been unused for the longest time
	c := use("c")
	if got, want := keys(), []string{"a", "c"}; !slices.Equal(got, want) {
		t.Errorf("got keys %q, want %q", got, want)
	}
	use("a")
	n.leave(c)
	use("d")
	if got, want := keys(), []string{"a", "d"}; !slices.Equal(got, want) {
		t.Errorf("got keys %q, want %q", got, want)
	}
}

// A setting is a policy that isn't a pointer, with a state.
type setting struct{ state string }

func (s setting) Run(ctx context.Context, next resilience.Next) error { return next.Run(ctx) }
func (s setting) Report() resilience.Report {
	return resilience.Report{Kind: "setting", State: s.state}
}

// waitUntilEmpty waits until o has retired all pipelines and policies, without a snapshot, which would
// do so too.
func waitUntilEmpty(t *testing.T, o *Observer) {
	t.Helper()
	var left int
	for range 1000 {
		runtime.GC()
		o.mu.Lock()
		left = len(o.members) + len(o.boxes)
		for _, e := range o.pipelines.named {
			left += len(e.value.live)
		}
		o.mu.Unlock()
		if left == 0 {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("got %d pipelines, policies, and boxes, want none after they were collected", left)
}

func TestObserverRetiresWhatIsCollected(t *testing.T) { // rule 9
	o := New(Config{})
	o.Pipeline("p", setting{"on"}, &setting{"off"})
	waitUntilEmpty(t, o)
}

func TestObserverRetiresBeforeCleanupIfRoomIsNeeded(t *testing.T) { // rule 8
	o := New(Config{MaxNames: 1})
	o.Pipeline("p", &setting{"on"})
	o.mu.Lock() // cleanups wait for it
	defer o.mu.Unlock()
	members, pipelines := false, false
	for range 1000 {
		runtime.GC()
		members = members || o.retireSomeMembers(time.Now())
		pipelines = pipelines || o.retireSomePipelines()
		if members && pipelines {
			break
		}
	}
	if !members || !pipelines || len(o.members) != 0 || o.pipelines.unused.Len() != 1 || o.policies.unused.Len() != 1 {
		t.Errorf("got %v, %v, %d members, want both retired, with names that can be replaced", members, pipelines, len(o.members))
	}
}

func TestObserverCountsTimeOfCollectedPolicyByItsClock(t *testing.T) { // rule 9
	synctest.Test(t, func(t *testing.T) {
		o := New(Config{})
		o.Pipeline("p", &setting{"on"})
		time.Sleep(10 * time.Second)
		waitUntilEmpty(t, o) // by the goroutine that runs cleanups, whose clock isn't the bubble's
		if got := o.Snapshot().Policies[0].InState["on"]; got != 10*time.Second {
			t.Errorf("got %v, want 10s", got)
		}
	})
}
