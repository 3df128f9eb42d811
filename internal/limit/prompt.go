package limit

import (
	"context"
)

// A timeout reads the clock twice, for its deadline and at its end, and that is the most of what it costs. Where one stands within
// another and nothing between them takes time, the two begin at the same moment but for some nanoseconds, and one reading does
// for both. And whether the outer deadline had passed when the call ended nobody asks who does not have the outer context, but the
// outer timeout, where the call failed.
//
// So a context keeps the moment at which it was made for as long as nothing has it but the call's goroutine, in code that is
// prompt: that takes no time but its own, runs no function of the user's, and gives the context to nobody else. (The methods of the
// caller's ctx are thought to take none.) A prompt policy calls Forget before it does anything of the kind; for all
// other policies, and for the effector, the context does as it is handed to them: the root package calls HandedTo. As nobody but the call's goroutine can write the moment then, no
// lock is needed.

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

// HandedTo is Forget for a context that goes to a policy, unless that is prompt, or to the effector if policy is nil.
func (c *Ctx) HandedTo(policy any) {
	if c.moment != seen && !isPrompt(policy) {
		c.moment = seen
	}
}

// Prompt says of policies of type P, which have it embedded, that they are prompt.
type Prompt[P any] struct{}

// PromptAs reports whether policy is a P. A policy that has a P embedded, and so this method, and does more, is none.
func (Prompt[P]) PromptAs(policy any) bool {
	_, ok := policy.(P)
	return ok
}

func isPrompt(policy any) bool {
	p, ok := policy.(interface{ PromptAs(policy any) bool })
	return ok && p.PromptAs(policy)
}
