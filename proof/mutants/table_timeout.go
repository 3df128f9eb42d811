package main

var timeoutTable = table{"timeout/timeout.go", []fault{
	{
		what: "the ctx lives on after a successful call in a pipeline",
		old:  "defer limited.end() // panics and Goexit too\n\terr := next.Run(limited)",
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
		old:  "defer limited.end() // panics and Goexit too\n\tvalue, err := fn(limited)",
		new:  "value, err := fn(limited)",
	},
	{
		what: "a late success of Do is an error",
		old:  "value, err := fn(limited)\n\tif err != nil {",
		new:  "value, err := fn(limited)\n\tif true {",
	},
	{
		what: "the limit is blamed for each error",
		old:  `if limited.passed() {`,
		new:  `if !limited.passed() || true {`,
	},
}}

var contextTable = table{"timeout/context.go", []fault{
	{
		what: "of two equal limits the inner one has a ctx of its own",
		old:  `if limit >= outer.left(now) {`,
		new:  `if limit > outer.left(now) {`,
	},
	{
		what: "a limit that ends with the caller's deadline has a ctx of its own",
		old:  `limit >= clock.Until(own, now) {`,
		new:  `limit > clock.Until(own, now) {`,
	},
	{
		what: "an inner limit may be later than the outer one",
		old:  `if limit >= outer.left(now) {`,
		new:  `if limit < 0 {`,
	},
	{
		what: "a limit may be later than the caller's deadline",
		old:  `limit >= clock.Until(own, now) {`,
		new:  `clock.Until(own, now) <= 0 {`,
	},
	{
		what: "a deadline within another limit is late by a nanosecond",
		old:  `root: outer.root, deadline: uint64(now) + uint64(limit)}`,
		new:  `root: outer.root, deadline: uint64(now) + uint64(limit) + 1}`,
	},
	{
		what: "a deadline is late by a nanosecond",
		old:  `root: ctx, deadline: uint64(now) + uint64(limit)}`,
		new:  `root: ctx, deadline: uint64(now) + uint64(limit) + 1}`,
	},
	{
		what: "a ctx that nobody waits for lives at its deadline",
		old:  `c.left(clock.Now()) > 0 && c.seenErr() == nil {`,
		new:  `c.left(clock.Now()) >= 0 && c.seenErr() == nil {`,
	},
	{
		what: "a ctx that nobody waits for does not hear of its parent's end",
		old:  `c.left(clock.Now()) > 0 && c.seenErr() == nil {`,
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
		what: "a call that returned has an inner context that lives",
		old:  "inner, cancel = context.WithCancel(context.Background())\n\t\t\tcancel()",
		new:  "inner, cancel = context.WithCancel(context.Background())",
	},
	{
		what: "a parent that ended unseen does not go first",
		old:  `case err == nil:`,
		new:  `case err == nil || err != nil:`,
	},
	{
		what: "a call that returned leaves its inner context as it is",
		old:  "c.makeInner()\n\tc.cancel()",
		new:  "c.makeInner()\n\t_ = c.cancel",
	},
	{
		what: "a call that returns does not wait for the one that publishes",
		old:  "runtime.Gosched()\n\t\t\tcontinue",
		new:  "runtime.Gosched()\n\t\t\treturn",
	},
	{
		what: "the end of the call is stored where it must be swapped",
		old:  `c.state.CompareAndSwap(live, returned) {`,
		new:  `c.state.Swap(returned) == live {`,
	},
	{
		what: "a parent that ended is not told of once the call has returned",
		old:  `c.root.Err() == nil && c.state`,
		new:  `c.state`,
	},
	{
		what: "a call that failed at its deadline was in time",
		old:  "if c.left(clock.Now()) > 0 {\n\t\treturn false",
		new:  "if c.left(clock.Now()) >= 0 {\n\t\treturn false",
	},
	{
		what: "a limit that was first is not blamed",
		old:  `case err == context.DeadlineExceeded && c.first():`,
		new:  `case false:`,
	},
	{
		what: "a limit is blamed for a cancellation",
		old:  `case err == context.DeadlineExceeded && c.first():`,
		new:  `case c.first():`,
	},
	{
		what:       "a deadline at the same time as the parent's is first",
		old:        `return own.Before(parents)`,
		new:        `return !own.After(parents)`,
		equivalent: "a limit that is not before the parent's deadline has no context",
	},
	{
		what: "an inner timer that is late hides the limit",
		old:  `return c.parent().Err() == nil`,
		new:  `return false`,
	},
	{
		what: "a limit has passed although its parent has ended",
		old:  `return c.parent().Err() == nil`,
		new:  `return true`,
	},
	{
		what: "a limit is blamed for its parent's deadline",
		old:  `return c.parent().Err() != context.DeadlineExceeded || c.first()`,
		new:  `return true`,
	},
	{
		what: "a limit that was first is not blamed once its parent's deadline has passed",
		old:  `return c.parent().Err() != context.DeadlineExceeded || c.first()`,
		new:  `return c.parent().Err() != context.DeadlineExceeded`,
	},
	{
		what: "the cause of a parent of another kind is lost",
		old:  `cancelCause(context.Cause(parent))`,
		new:  `cancelCause(nil)`,
	},
	{
		what: "the inner context that lost the race keeps its timer",
		old:  "c.state.Store(armed)\n\t\t\treturn\n\t\t}\n\t\tcancel()",
		new:  "c.state.Store(armed)\n\t\t\treturn\n\t\t}\n\t\t_ = cancel",
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
		old:  "defer limited.end()\n\t\tinside = limited",
		new:  "inside = limited",
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
		old:  `if limited != nil && limited.passed() {`,
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
