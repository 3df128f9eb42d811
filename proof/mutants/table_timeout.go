package main

var timeoutTable = table{"timeout/timeout.go", []fault{
	{
		what: "a timeout around it shares no reading of the clock",
		old:  "limit.Prompt[*Timeout]()",
		new:  "_ = limit.Prompt[*Timeout]",
	},
	{
		what: "the ctx lives on after a successful call in a pipeline",
		old:  "defer t.limit.End(limited) // panics and Goexit too\n\terr := next.Run(limited)",
		new:  "err := next.Run(limited)",
	},
	{
		what: "a late success in a pipeline is an error",
		old:  "err := next.Run(limited)\n\tif err != nil {",
		new:  "err := next.Run(limited)\n\tif true {",
	},
	{
		what: "Do makes a call whose ctx is done",
		old:  "if ctx.Err() != nil {\n\t\tvar zero T",
		new:  "if false {\n\t\tvar zero T",
	},
	{
		what: "Do takes no notice of Abandon",
		old:  "if t.abandon > 0 {\n\t\treturn resilience.Do(ctx, t, fn)",
		new:  "if false {\n\t\treturn resilience.Do(ctx, t, fn)",
	},
	{
		what: "the ctx lives on after a successful Do",
		old:  "defer t.limit.End(limited) // panics and Goexit too\n\tvalue, err := fn(limited)",
		new:  "value, err := fn(limited)",
	},
	{
		what: "a late success of Do is an error",
		old:  "value, err := fn(limited)\n\tif err != nil {",
		new:  "value, err := fn(limited)\n\tif true {",
	},
	{
		what: "a call further out may share the clock with one within fn",
		old:  "limit.Forget(limited)\n\tdefer",
		new:  "defer",
	},
	{
		what: "the limit is blamed for each error",
		old:  `if t.limit.Passed(limited) {`,
		new:  `if !t.limit.Passed(limited) || true {`,
	},
}}

var contextTable = table{"internal/limit/context.go", []fault{
	{
		what: "of two equal limits the inner one has a ctx of its own",
		old:  `if l.After >= outer.left(now) {`,
		new:  `if l.After > outer.left(now) {`,
	},
	{
		what: "a limit that ends with the caller's deadline has a ctx of its own",
		old:  `l.After >= own.Sub(at) {`,
		new:  `l.After > own.Sub(at) {`,
	},
	{
		what: "an inner limit may be later than the outer one",
		old:  `if l.After >= outer.left(now) {`,
		new:  `if l.After < 0 {`,
	},
	{
		what: "a limit may be later than the caller's deadline",
		old:  `l.After >= own.Sub(at) {`,
		new:  `own.Before(at) {`,
	},
	{
		what: "a deadline within another limit is late by a nanosecond",
		old:  `outer, outer.root, uint64(now)+uint64(l.After), now`,
		new:  `outer, outer.root, uint64(now)+uint64(l.After)+1, now`,
	},
	{
		what: "a deadline is late by a nanosecond",
		old:  `ctx, uint64(now)+uint64(l.After), now`,
		new:  `ctx, uint64(now)+uint64(l.After)+1, now`,
	},
	{
		what: "an inner limit is from the outer one's beginning, whatever happened since",
		old:  `if now <= 0 {`,
		new:  `if now == seen {`,
	},
	{
		what: "an inner limit reads the clock again",
		old:  `if now <= 0 {`,
		new:  `if true {`,
	},
	{
		what: "a limit that was taken may be taken again",
		old:  `outer.moment = taken`,
		new:  ``,
	},
	{
		what: "a limit that others have is taken",
		old:  `if outer.moment > 0 {`,
		new:  `if true {`,
	},
	{
		what: "the end of a limit that others have has no look at the clock",
		old:  "if c.state.CompareAndSwap(live, canceled) { // without a look at the clock\n\t\t\treturn\n\t\t}\n\t}",
		new:  "}\n\tif c.moment <= 0 && c.state.CompareAndSwap(live, canceled) {\n\t\treturn\n\t}",
	},
	{
		what: "the clock is read for nobody",
		old:  `if c.state.CompareAndSwap(live, canceled) { // without`,
		new:  `if false { // without`,
	},
	{
		what: "an end without a look at the clock is stored where it must be swapped",
		old:  `if c.state.CompareAndSwap(live, canceled) { // without`,
		new:  `if c.state.Swap(canceled) == live { // without`,
	},
	{
		what: "the limit's own policy is not told that it passed",
		old:  "Forget(c) // there is somebody who asks",
		new:  "",
	},
	{
		what: "whether the limit is due is asked when the ctx has ended",
		old:  "due := c.due()\n\tl.End(c)",
		new:  "l.End(c)\n\tdue := c.due()",
	},
	{
		what: "a limit never knows of the one within it",
		old:  `l.nests.Store(true)`,
		new:  `l.nests.Store(false)`,
	},
	{
		what: "every limit makes one to be within it",
		old:  `if l.nests.Load() {`,
		new:  `if true {`,
	},
	{
		what: "two limits within one are the same",
		old:  "\touter.moment = taken\n\t\tc = outer.spare",
		new:  "\touter.moment = taken\n\t}\n\tif true {\n\t\tc = outer.spare",
	},
	{
		what: "of many limits the third reads the clock",
		old:  `c.outer, c.root, c.deadline, c.moment = outer, outer.root, uint64(now)+uint64(l.After), now`,
		new:  `c.outer, c.root, c.deadline = outer, outer.root, uint64(now)+uint64(l.After)`,
	},
	{
		what: "a ctx that nobody waits for lives at its deadline",
		old:  `c.left(clock.Now()) > 0 && c.undueErr() == nil {`,
		new:  `c.left(clock.Now()) >= 0 && c.undueErr() == nil {`,
	},
	{
		what: "a ctx that nobody waits for does not hear of its parent's end",
		old:  `c.left(clock.Now()) > 0 && c.undueErr() == nil {`,
		new:  `c.left(clock.Now()) > 0 {`,
	},
	{
		what: "a ctx does not hear that a limit around it has ended",
		old:  `if outer.state.Load() != live {`,
		new:  `if false {`,
	},
	{
		what: "the cause is asked of the parent",
		old:  `if key != ctxkey.Cancel || key == nil {`,
		new:  `if key != ctxkey.Cancel || key != nil {`,
	},
	{
		what: "two goroutines publish an inner context",
		old:  `if c.state.CompareAndSwap(state, publishing) {`,
		new:  `if c.state.Store(publishing); true {`,
	},
	{
		what: "the inner context is published before it is written",
		old: `if c.state.CompareAndSwap(state, publishing) {
			c.inner, c.cancel = inner, cancel
			c.state.Store(armed)`,
		new: `if c.state.CompareAndSwap(state, armed) {
			c.inner, c.cancel = inner, cancel`,
	},
	{
		what: "a parent that ended unseen does not go first",
		old:  `case c.parent().Err() != nil:`,
		new:  `case false:`,
	},
	{
		what: "a call that returned leaves its inner context as it is",
		old:  "if c.state.Load() == armed {\n\t\tc.cancel()",
		new:  "if c.state.Load() == armed {\n\t\t_ = c.cancel",
	},
	{
		what: "a call that returns does not wait for the one that publishes",
		old:  `for c.state.Load() == publishing {`,
		new:  `for false {`,
	},
	{
		what: "the end of the call is stored where it must be swapped",
		old:  `if c.state.Load() == live && c.state.CompareAndSwap(live, c.fate()) {`,
		new:  `if c.state.Load() == live {` + "\n\t\tc.state.Store(c.fate())",
	},
	{
		what: "a call that ended at its deadline was in time",
		old:  `if c.left(clock.Now()) > 0 {` + "\n\t\t// Whether",
		new:  `if c.left(clock.Now()) >= 0 {` + "\n\t\t// Whether",
	},
	{
		what: "a parent that ended is not told of once the call has returned",
		old:  "if c.root.Err() == nil {\n\t\t\treturn canceled",
		new:  "if true {\n\t\t\treturn canceled",
	},
	{
		what: "a limit is blamed although its parent had ended",
		old:  "if c.parent().Err() == nil {\n\t\treturn expired",
		new:  "if true {\n\t\treturn expired",
	},
	{
		what: "a limit that was first is not blamed",
		old:  `if c.parent().Err() == context.DeadlineExceeded && c.first() {`,
		new:  `if false {`,
	},
	{
		what: "a limit is blamed for a cancellation",
		old:  `if c.parent().Err() == context.DeadlineExceeded && c.first() {`,
		new:  `if c.first() {`,
	},
	{
		what:       "a deadline at the same time as the parent's is first",
		old:        `return own.Before(parents)`,
		new:        `return !own.After(parents)`,
		equivalent: "a limit that is not before the parent's deadline has no context",
	},
	{
		what: "an inner timer that is late hides the limit",
		old:  `c.left(clock.Now()) <= 0`,
		new:  `c.left(clock.Now()) < 0`,
	},
	{
		what: "a limit is due although its parent has ended",
		old:  `c.inner.Err() == nil && c.parent().Err() == nil &&`,
		new:  `c.inner.Err() == nil &&`,
	},
	{
		what: "a limit is blamed for its parent's deadline",
		old:  `return c.arm().Err() == context.DeadlineExceeded && (c.parent().Err() != context.DeadlineExceeded || c.first())`,
		new:  `return c.arm().Err() == context.DeadlineExceeded`,
	},
	{
		what: "a limit that was first is not blamed once its parent's deadline has passed",
		old:  `(c.parent().Err() != context.DeadlineExceeded || c.first())`,
		new:  `c.parent().Err() != context.DeadlineExceeded`,
	},
	{
		what: "the cause of a parent of another kind is lost",
		old:  `cancelCause(context.Cause(c.parent()))`,
		new:  `cancelCause(nil)`,
	},
	{
		what: "the inner context that lost the race keeps its timer",
		old:  "c.state.Store(armed)\n\t\t\treturn\n\t\t}\n\t\tcancel()",
		new:  "c.state.Store(armed)\n\t\t\treturn\n\t\t}\n\t\t_ = cancel",
	},
}}

var promptTable = table{"internal/limit/prompt.go", []fault{
	{
		what: "Forget forgets nothing",
		old:  "ok && c.moment != seen {",
		new:  "ok && c.moment < taken {",
	},
	{
		what: "every policy is prompt",
		old:  "if isPrompt(policy) {",
		new:  "if policy != nil {",
	},
	{
		what: "no policy is prompt",
		old:  "if isPrompt(policy) {",
		new:  "if false {",
	},
	{
		what: "the effector is prompt",
		old:  "if isPrompt(policy) {",
		new:  "if policy == nil || isPrompt(policy) {",
	},
	{
		what: "a context that others have is told no more",
		old:  "if c.moment == seen {\n\t\treturn true",
		new:  "if c.moment == seen {\n\t\treturn false",
	},
	{
		what: "HandedTo writes where there is nothing to forget",
		old:  "if c.moment == seen {\n\t\treturn true\n\t}\n\t",
		new:  "",
	},
	{
		what: "Forget writes where there is nothing to forget",
		old:  "if c, ok := ctx.(*Ctx); ok && c.moment != seen {",
		new:  "if c, ok := ctx.(*Ctx); ok {",
	},
}}

var abandonTable = table{"timeout/abandon.go", []fault{
	{
		what: "one call more than Abandon is admitted",
		old:  `int64(n) >= t.abandon {`,
		new:  `int64(n) > t.abandon {`,
	},
	{
		what: "an effector's ctx lives on after its caller has gone",
		old:  "defer t.limit.End(limited)\n\t\tinside = limited",
		new:  "inside = limited",
	},
	{
		what: "the caller and the effector's goroutine both have the moment",
		old:  `limit.Forget(inside) // which`,
		new:  `_ = limit.Forget // which`,
	},
	{
		what: "the caller leaves though the effector has ended",
		old:  `if a.state.CompareAndSwap(running, left) {`,
		new:  `if a.state.Store(left); true {`,
	},
	{
		what: "an effector left behind is not counted",
		old:  `t.left.n.Add(1)`,
		new:  `t.left.n.Add(0)`,
	},
	{
		what: "the limit is blamed for the caller's end",
		old:  `if limited != nil && t.limit.Passed(limited) {`,
		new:  `if limited != nil {`,
	},
	{
		what: "the effector's value is lost",
		old:  `next.Adopt(a.Fork)`,
		new:  ``,
	},
	{
		what: "an error after the limit is left as it is",
		old:  `if err != nil && limited != nil {`,
		new:  `if false {`,
	},
	{
		what: "an effector that ends after its caller takes itself for the first",
		old:  "return a.state.CompareAndSwap(running, finished)",
		new:  "a.state.Store(finished)\n\treturn true",
	},
	{
		what: "an effector left behind counts for ever",
		old:  `a.timeout.left.n.Add(-1)`,
		new:  ``,
	},
	{
		what: "fewer than none are left behind for a moment",
		old:  `return int(max(0, l.n.Load()))`,
		new:  `return int(l.n.Load())`,
	},
}}

var clockTable = table{"internal/clock/clock.go", []fault{
	{
		what: "the end of time overflows",
		old:  `if sum := t + int64(d); sum >= t {`,
		new:  `if sum := t + int64(d); true {`,
	},
	{
		what: "Monotonic loses what is beyond the largest Duration",
		old:  `.Add(time.Duration(t - math.MaxInt64))`,
		new:  ``,
	},
	{
		what: "Monotonic overflows beyond the largest Duration",
		old:  `if t > math.MaxInt64 {`,
		new:  `if false {`,
	},
}}

var ctxkeyTable = table{"internal/ctxkey/ctxkey.go", []fault{
	{
		what: "limits within the base are taken off too",
		old:  `if !ok || ctx == base {`,
		new:  `if !ok {`,
	},
}}
