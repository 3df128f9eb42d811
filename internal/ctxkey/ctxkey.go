// Package ctxkey knows the key under which package context looks for contexts of its own kind, and what else contexts of this
// module tell one another.
package ctxkey

import (
	"context"
	"time"
)

// Cancel is that key: [context.Cause] asks a context for it, to find the cause, and a child asks its parent, to join the parent's
// list of children, so that it needs no goroutine. A context that is not of package context's kind must answer it by a context that is, and
// ends with it, or not at all. It is nil if package context has no such key; then children work all the same, with a goroutine each.
var Cancel = func() any {
	var probe keyProbe
	context.Cause(&probe)
	return probe.key
}()

// A keyProbe is an ended context that remembers the key it was asked for.
type keyProbe struct{ key any }

func (*keyProbe) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }
func (*keyProbe) Done() <-chan struct{}                   { return nil }
func (*keyProbe) Err() error                              { return context.Canceled }
func (p *keyProbe) Value(key any) any {
	p.key = key
	return nil
}

// Limited is a context that ends with another, or when its deadline passes, and has the other's values.
type Limited interface {
	context.Context
	Unlimited(Friend) context.Context
}

// A Friend is one of this module's packages: nobody else can name the type, and so call a method that asks for it.
type Friend struct{}

// Unlimited takes the limits off ctx, down to base if that is one of them, and reports whether there were any. ctx ends with
// what is left, or at its deadline: one who keeps that deadline by a timer of his own need not wake all the limits' timers.
func Unlimited(ctx, base context.Context) (left context.Context, limited bool) {
	for {
		limit, ok := ctx.(Limited)
		if !ok || ctx == base {
			return ctx, limited
		}
		ctx, limited = limit.Unlimited(Friend{}), true
	}
}
