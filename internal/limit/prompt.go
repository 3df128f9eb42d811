package limit

import (
	"context"
	"reflect"
	"sync/atomic"
)

// A timeout reads the clock twice, for its deadline and at its end, and that is the most of what it costs. Where one stands within
// another and nothing between them takes time, the two begin at the same moment but for some nanoseconds, and one reading does
// for both. And whether the outer deadline had passed when the call ended nobody asks who does not have the outer context, but the
// outer timeout, where the call failed.
//
// So a context keeps the moment at which it was made for as long as nothing has it but the call's goroutine, in code that is
// prompt: that takes no time but its own, runs no function of the user's, and gives the context to nobody else. (The methods of the
// caller's ctx are thought to take none.) A policy whose type is prompt calls Forget before it does anything of the kind; for all
// other policies, and for the effector, the context does as it is handed to them: the root package calls HandedTo. As nobody but
// the call's goroutine can write the moment then, no lock is needed.

// What a context has in place of its moment.
const (
	seen  = 0  // others may have it, or time may have passed
	taken = -1 // an inner one was made at that moment, and time may have passed since; but others do not have it
)

// Forget says that from here on time may pass, or others have ctx.
func Forget(ctx context.Context) {
	if c, ok := ctx.(*Ctx); ok && c.moment != seen {
		c.moment = seen
	}
}

// HandedTo is Forget for a context that goes to a policy, unless that is prompt, or to the effector if policy is nil. It reports
// whether it is to be called again where a context goes there.
func (c *Ctx) HandedTo(policy any) (again bool) {
	if c.moment == seen {
		return true
	}
	if isPrompt(policy) {
		return false
	}
	c.moment = seen
	return true
}

// prompt are the types of prompt policies. What tells them is the type and not a method, which a policy would have that embeds a
// prompt one and does more. A list is never changed: a plugin may add to it while the program runs.
var prompt atomic.Pointer[[]reflect.Type]

// Prompt says that policies of type P are prompt. It is for functions named init.
func Prompt[P any]() {
	for {
		old := prompt.Load()
		list := []reflect.Type{reflect.TypeFor[P]()}
		if old != nil {
			list = append(list, *old...)
		}
		if prompt.CompareAndSwap(old, &list) {
			return
		}
	}
}

func isPrompt(policy any) bool {
	t := reflect.TypeOf(policy)
	for _, p := range *prompt.Load() {
		if t == p {
			return true
		}
	}
	return false
}
