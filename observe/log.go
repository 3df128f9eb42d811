package observe

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/effector-go/resilience"
)

// Log returns a listener that logs events of calls and changes of policies' states with l, with these
// attributes in the group "resilience", without those that are empty:
//
//   - of an event: pipeline, layer, policy, name, event, attempt, wait, error
//   - of a change: policy, name, from, to, cause, error
//
// The level is
//
//   - Warn for refusals, for retries that gave up, and when a policy opens or is forced open;
//   - Info for other changes;
//   - Debug for other events.
//
// Of the refusals of one policy in one place, it logs at most one in 10 s, with the attribute count: how
// many there were since the previous one that was logged, including this one. Errors are passed to the
// handler as values, and events with the context of the call. Log panics if l is nil.
func Log(l *slog.Logger) Listener {
	if l == nil {
		panic("observe: Log: l is nil, must be a Logger")
	}
	g := &logger{log: l.WithGroup("resilience"), refusals: map[refusalKey]*refusals{}}
	return Listener{Event: g.event, Changed: g.changed}
}

// A logger is what the listener of Log keeps.
type logger struct {
	log *slog.Logger

	mu       sync.Mutex // guards refusals
	refusals map[refusalKey]*refusals
}

// A refusalKey identifies a policy in one place.
type refusalKey struct {
	pipeline     string
	layer        int
	policy, name string
}

// refusals are those of one policy in one place.
type refusals struct {
	logged time.Time // when the last one was; zero before the first
	count  int       // since then
}

const (
	refusalInterval = 10 * time.Second
	maxRefusalKeys  = 10_000 // then counting starts over, and refusals are logged too often
)

// event logs an event of a call.
func (g *logger) event(ctx context.Context, c *Call, e Event) {
	level := slog.LevelDebug
	if e.Kind == Refusal || e.Kind == GiveUp {
		level = slog.LevelWarn
	}
	if !g.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs, slog.String("pipeline", c.Pipeline), slog.Int("layer", e.Layer), slog.String("policy", e.Policy))
	attrs = appendText(attrs, "name", e.Name)
	attrs = append(attrs, slog.String("event", e.Kind.String()))
	if e.Kind == Retry || e.Kind == Hedge {
		attrs = append(attrs, slog.Int("attempt", e.Attempt), slog.Duration("wait", e.Wait))
	}
	if e.Kind == Refusal {
		count := g.count(refusalKey{c.Pipeline, e.Layer, e.Policy, e.Name}, time.Now())
		if count == 0 {
			return
		}
		attrs = append(attrs, slog.Int("count", count))
	}
	g.log.LogAttrs(ctx, level, messages[e.Kind], appendError(attrs, e.Err)...)
}

// messages are constant, so that lines of one kind can be found by their text.
var messages = [...]string{
	Refusal: "policy refused call",
	Retry:   "policy retried call",
	Hedge:   "policy hedged call",
	Timeout: "policy ended call at its limit",
	GiveUp:  "policy gave up call",
}

// count counts a refusal. It returns how many there were since the last line if this one is to be
// logged, otherwise 0.
func (g *logger) count(key refusalKey, now time.Time) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.refusals[key]
	if r == nil {
		if len(g.refusals) >= maxRefusalKeys {
			clear(g.refusals)
		}
		r = new(refusals)
		g.refusals[key] = r
	}
	r.count++
	if !r.logged.IsZero() && now.Sub(r.logged) < refusalInterval {
		return 0
	}
	count := r.count
	r.logged, r.count = now, 0
	return count
}

// changed logs a change of state.
func (g *logger) changed(c resilience.Change) {
	ctx := context.Background()
	level := slog.LevelInfo
	if c.To == "open" || c.To == "forced open" {
		level = slog.LevelWarn
	}
	if !g.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 6)
	attrs = appendText(append(attrs, slog.String("policy", c.Kind)), "name", c.Name)
	attrs = append(attrs, slog.String("from", c.From), slog.String("to", c.To))
	attrs = appendError(appendText(attrs, "cause", c.Cause), c.Err)
	g.log.LogAttrs(ctx, level, "policy changed state", attrs...)
}

// appendText appends an attribute unless its value is empty.
func appendText(attrs []slog.Attr, key, value string) []slog.Attr {
	if value == "" {
		return attrs
	}
	return append(attrs, slog.String(key, value))
}

// appendError appends the attribute error unless err is nil.
func appendError(attrs []slog.Attr, err error) []slog.Attr {
	if err == nil {
		return attrs
	}
	return append(attrs, slog.Any("error", err))
}
