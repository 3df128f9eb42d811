// Package ctxkey knows the key under which package context looks for contexts of its own kind.
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
