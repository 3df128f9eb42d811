// Package ctxkey provides the key with which package context looks for contexts of its own kind,
// and the interface through which this module's contexts expose their limits to each other.
package ctxkey

import (
	"context"
	"time"
)

// Cancel is the key that package context passes to Value:
//
//   - [context.Cause] does to find the cause of a context's end;
//   - a new child does to join its parent's list of children, which saves it a goroutine.
//
// A context of another kind must answer with a context of package context's kind that ends at the
// same time, or with nil. Cancel is nil if package context has no such key; children then still
// work, with one goroutine each.
var Cancel = func() any {
	var probe keyProbe
	context.Cause(&probe)
	return probe.key
}()

// A keyProbe is an ended context that records the key that Value is called with.
type keyProbe struct{ key any }

func (*keyProbe) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }
func (*keyProbe) Done() <-chan struct{}                   { return nil }
func (*keyProbe) Err() error                              { return context.Canceled }
func (p *keyProbe) Value(key any) any {
	p.key = key
	return nil
}

// Limited is a context that wraps another one: it has that context's values, and ends with it or
// when its own deadline passes.
type Limited interface {
	context.Context
	Unlimited(Friend) context.Context // returns the wrapped context
}

// Friend restricts a method to this module: other modules can't name the type, so they can't call a
// method that takes it.
type Friend struct{}

// Unlimited removes the limits around ctx, down to base if base is one of them, and reports whether
// there were any. ctx ends with the context that is left, or at ctx's deadline. So a caller that
// watches that deadline with its own timer doesn't have to arm the timers of all the limits.
func Unlimited(ctx, base context.Context) (left context.Context, limited bool) {
	for {
		limit, ok := ctx.(Limited)
		if !ok || ctx == base {
			return ctx, limited
		}
		ctx, limited = limit.Unlimited(Friend{}), true
	}
}
