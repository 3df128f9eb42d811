package main

var outcomeTable = table{"internal/outcome/outcome.go", []fault{
	{
		what: "a caller's deadline is ignored",
		old:  `if ctx.Err() == context.Canceled {`,
		new:  `if ctx.Err() != nil {`,
	},
	{
		what: "what befell one who went away is a failure",
		old:  `if ctx.Err() == context.Canceled {`,
		new:  `if false {`,
	},
	{
		what: "a success is ignored once its caller has gone",
		old:  `if err == nil {`,
		new:  `if err == nil && ctx.Err() == nil {`,
	},
}}

var shedTable = table{"shed/shed.go", []fault{
	{
		what: "Do makes a call whose ctx is done",
		old:  `if ctx.Err() != nil {`,
		new:  `if false {`,
	},
	{
		what: "a call of Do that panics counts nowhere",
		old:  `if !returned {`,
		new:  `if returned && false {`,
	},
	{
		what: "a call of Do counts twice",
		old:  `if !returned {`,
		new:  `if returned || true {`,
	},
	{
		what: "a call of Do whose Classify panics counts nowhere",
		old:  "s.count(s.config.Classify(ctx, err))\n\treturned = true\n\treturn value, err",
		new:  "returned = true\n\ts.count(s.config.Classify(ctx, err))\n\treturn value, err",
	},
	{
		what: "Do counts a panic of one who went away",
		old:  "if !returned {\n\t\t\ts.count(Outcome(outcome.OfUnwind(ctx)))",
		new:  "if !returned {\n\t\t\ts.count(Rejected)",
	},
	{
		what: "a call in a pipeline that panics counts nowhere",
		old:  `if !returned && next.Starts() != starts {`,
		new:  `if returned && false {`,
	},
	{
		what: "a panic of a policy further in counts",
		old:  `if !returned && next.Starts() != starts {`,
		new:  `if !returned {`,
	},
	{
		what: "a call in a pipeline counts twice",
		old:  `if !returned && next.Starts() != starts {`,
		new:  `if (returned || true) && next.Starts() != starts {`,
	},
	{
		what: "a call that was turned away further in counts",
		old:  "err := next.Run(ctx)\n\tif next.Starts() != starts {",
		new:  "err := next.Run(ctx)\n\tif true {",
	},
	{
		what: "a call in a pipeline whose Classify panics counts nowhere",
		old:  "s.count(s.config.Classify(ctx, err))\n\t}\n\treturned = true",
		new:  "returned = true\n\t\ts.count(s.config.Classify(ctx, err))\n\t}\n\treturned = true",
	},
	{
		what: "Run counts a panic of one who went away",
		old:  "if !returned && next.Starts() != starts {\n\t\t\ts.count(Outcome(outcome.OfUnwind(ctx)))",
		new:  "if !returned && next.Starts() != starts {\n\t\t\ts.count(Rejected)",
	},
	{
		what:       "a clean window is looked through",
		old:        `if s.window.clean(now) {`,
		new:        `if false {`,
		equivalent: "this saves work only: the share of a window without rejected calls is 0",
	},
	{
		what: "the chance of a refusal is turned",
		old:  `rand.Float64() >= share {`,
		new:  `rand.Float64() < share {`,
	},
	{
		what: "whoever may be refused is refused",
		old:  `if share == 0 || rand.Float64() >= share {`,
		new:  `if share == 0 || rand.Float64() < 0 {`,
	},
	{
		what: "its own refusals do not count",
		old:  `s.window.add(others, now)`,
		new:  `_ = others`,
	},
	{
		what: "its own refusals count as accepted",
		old:  `s.window.add(others, now)`,
		new:  `s.window.add(accepted, now)`,
	},
	{
		what: "K is left out",
		old:  `s.config.K*float64(accepts)`,
		new:  `float64(accepts)`,
	},
	{
		what: "the share is that of all requests",
		old:  `excess/(float64(requests)+1)`,
		new:  `excess/max(1, float64(requests))`,
	},
	{
		what: "a share is below zero",
		old:  `min(max(0, excess/(float64(requests)+1)), s.config.MaxShare)`,
		new:  `min(excess/(float64(requests)+1), s.config.MaxShare)`,
	},
	{
		what: "MaxShare is not heeded",
		old:  `min(max(0, excess/(float64(requests)+1)), s.config.MaxShare)`,
		new:  `max(0, excess/(float64(requests)+1))`,
	},
	{
		what: "an accepted call counts as another",
		old:  `s.window.add(accepted, clock.Now())`,
		new:  `s.window.add(others, clock.Now())`,
	},
	{
		what: "a rejected call counts nowhere",
		old:  `case Rejected:`,
		new:  `case Rejected + 100:`,
	},
	{
		what: "an ignored call counts as rejected",
		old:  `case Rejected:`,
		new:  `default:`,
	},
}}

var shedWindowTable = table{"shed/window.go", []fault{
	{
		what: "an epoch is a tenth rounded down",
		old:  `(int64(length)-1)/span + 1}`,
		new:  `int64(length) / span}`,
	},
	{
		what: "a full word runs over into the tag",
		old:  `case a == 0 && old&countMask == countMask:`,
		new:  `case false:`,
	},
	{
		what: "who stood still while the ring went round replaces what others have counted",
		old:  `case a < 0 && !fresh:`,
		new:  `case a < 0 && !fresh && false:`,
	},
	{
		what: "who stood still while the ring went round counts in his own epoch",
		old:  `epoch, fresh = w.epoch(clock.Now()), true`,
		new:  `epoch, fresh = epoch+0*clock.Now(), true`,
	},
	{
		what: "a call is stored where it must be swapped",
		old:  `if word.CompareAndSwap(old, next) {`,
		new:  `if word.Store(next); true {`,
	},
	{
		what: "an older epoch's calls count on",
		old:  `case a == 0:`,
		new:  `case a >= 0:`,
	},
	{
		what: "each call is the first of its epoch",
		old:  `next = old + 1`,
		new:  `next = tag(epoch) | 1`,
	},
	{
		what: "the window is an epoch longer",
		old:  `if a := age(epoch, word); -1 <= a && a < span {`,
		new:  `if a := age(epoch, word); -1 <= a && a <= span {`,
	},
	{
		what: "the window is an epoch shorter",
		old:  `if a := age(epoch, word); -1 <= a && a < span {`,
		new:  `if a := age(epoch, word); -1 <= a && a < span-1 {`,
	},
	{
		what: "what another caller counts an epoch ahead is not seen",
		old:  `if a := age(epoch, word); -1 <= a && a < span {`,
		new:  `if a := age(epoch, word); 0 <= a && a < span {`,
	},
	{
		what: "what is decades ahead counts",
		old:  `if a := age(epoch, word); -1 <= a && a < span {`,
		new:  `if a := age(epoch, word); a < span {`,
	},
	{
		what: "accepts are not requests",
		old:  `return accepts + w.sum(others, epoch), accepts`,
		new:  `return w.sum(others, epoch), accepts`,
	},
	{
		what:       "a window of accepted calls is not clean",
		old:        `return w.sum(others, w.epoch(now)) == 0`,
		new:        `return w.sum(others, w.epoch(now))+w.sum(accepted, w.epoch(now)) == 0`,
		equivalent: "clean saves work only",
	},
	{
		what: "a window is clean until a call was accepted",
		old:  `return w.sum(others, w.epoch(now)) == 0`,
		new:  `return w.sum(accepted, w.epoch(now)) == 0`,
	},
}}

var shedConfigTable = table{"shed/config.go", []fault{
	{
		what: "a K of 1 is a mistake",
		old:  `c.K >= 1 &&`,
		new:  `c.K > 1 &&`,
	},
	{
		what: "an infinite K is right",
		old:  `c.K <= math.MaxFloat64`,
		new:  `math.MaxFloat64 > 0`,
	},
	{
		what: "a NaN is a MaxShare",
		old:  `c.MaxShare > 0 && c.MaxShare <= 1`,
		new:  `!(c.MaxShare <= 0 || c.MaxShare > 1)`,
	},
	{
		what: "all may not be refused",
		old:  `c.MaxShare <= 1`,
		new:  `c.MaxShare < 1`,
	},
	{
		what: "the shortest window is a mistake",
		old:  `c.Window >= leastWindow`,
		new:  `c.Window > leastWindow`,
	},
	{
		what: "K is 1 by default",
		old:  `c.K = 2`,
		new:  `c.K = 1`,
	},
	{
		what: "all may be refused by default",
		old:  `c.MaxShare = maxShare`,
		new:  `c.MaxShare = 1`,
	},
	{
		what: "Window is a minute by default",
		old:  `c.Window = 2 * time.Minute`,
		new:  `c.Window = time.Minute`,
	},
}}

var shedErrorsTable = table{"shed/errors.go", []fault{
	{
		what: "an Error is no refusal",
		old:  `return target == ErrShed || target == resilience.ErrRefused`,
		new:  `return target == ErrShed || target == nil && resilience.ErrRefused == nil`,
	},
	{
		what: "an Error is not ErrShed",
		old:  `return target == ErrShed || target == resilience.ErrRefused`,
		new:  `return target == resilience.ErrRefused`,
	},
	{
		what: "less than a percent is none",
		old:  `if percent < 1 {`,
		new:  `if percent < 0 {`,
	},
}}
