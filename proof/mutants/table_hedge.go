package main

var apartTable = table{"internal/detached/detached.go", []fault{
	{
		what: "the value of a run left behind is kept",
		old:  `r.Fork.Discard()`,
		new:  ``,
	},
	{
		what: "the owner hears of the end before the panic is there",
		old:  `defer owner.Done(awaited) // even if drop panics`,
		new:  `owner.Done(awaited)`,
	},
	{
		what: "a panic that nobody waits for is swallowed",
		old:  "if !awaited {\n",
		new:  "if !awaited {\n\t\t\trecover()\n",
	},
	{
		what: "a run that panicked has returned",
		old:  "r.err = r.Fork.Run(ctx)\n\tr.returned = true",
		new:  "r.returned = true\n\tr.err = r.Fork.Run(ctx)",
	},
	{
		what: "the owner is not told what the run returned",
		old:  `owner.Ended(r.returned, r.err)`,
		new:  `owner.Ended(r.returned, nil)`,
	},
	{
		what: "Goexit does not reach the caller",
		old:  `case !r.returned:`,
		new:  `case false:`,
	},
	{
		what: "a PanicError is put into another",
		old:  `value.(*resilience.PanicError); ok {`,
		new:  `value.(*resilience.PanicError); ok && false {`,
	},
}}

var hedgeTable = table{"hedge/hedge.go", []fault{
	{
		what: "there is no quantile",
		old:  `if config.Quantile > 0 {`,
		new:  `if false {`,
	},
	{
		what:       "every attempt of a retry asks whether to pay",
		old:        `pays:   next.Starts() == 0,`,
		new:        `pays:   true,`,
		equivalent: "Once knows that it paid; Starts tells before anybody has asked",
	},
	{
		what: "a call is hedged though there is no delay",
		old:  `if c.delay > 0 {`,
		new:  `if true {`,
	},
	{
		what: "one sample more than MinSamples is needed",
		old:  `samples >= h.config.MinSamples {`,
		new:  `samples > h.config.MinSamples {`,
	},
	{
		what: "few samples will do",
		old:  `samples >= h.config.MinSamples {`,
		new:  `samples > 0 {`,
	},
}}

var hedgeConfigTable = table{"hedge/config.go", []fault{
	{
		what: "NaN is a quantile",
		old:  `c.Quantile == 0 || c.Quantile > 0 && c.Quantile < 1`,
		new:  `!(c.Quantile < 0 || c.Quantile >= 1)`,
	},
	{
		what: "1 is a quantile",
		old:  `c.Quantile > 0 && c.Quantile < 1`,
		new:  `c.Quantile > 0 && c.Quantile <= 1`,
	},
	{
		what: "two further starts by default",
		old:  `defaultMax        = 1`,
		new:  `defaultMax        = 2`,
	},
	{
		what: "the default budget is of ten percent",
		old:  `Ratio: 0.05, TTL: 5 * time.Minute})` + "\n\t}",
		new:  `Ratio: 0.1, TTL: 5 * time.Minute})` + "\n\t}",
	},
}}

var hedgeCallTable = table{"hedge/call.go", []fault{
	{
		what: "nothing is let go of when the call ends",
		old:  `defer c.end()`,
		new:  ``,
	},
	{
		what: "the delay of a call that is slow is not kept",
		old:  `time.AfterFunc(c.delay, c.isSlow)`,
		new:  `time.AfterFunc(c.delay/2, c.isSlow)`,
	},
	{
		what: "a call ends with the first failure",
		old:  `if c.running == 0 {`,
		new:  `if true {`,
	},
	{
		what: "a start counts as running for ever",
		old:  "c.running--\n",
		new:  "\n",
	},
	{
		what: "a start gets the caller's ctx",
		old:  `go s.Do(&s.ctx, s)`,
		new:  `go s.Do(c.ctx, s)`,
	},
	{
		what: "a start that ends after the call is decided is told to the caller",
		old:  "if c.decided {\n\t\treturn false\n\t}\n",
		new:  "",
	},
	{
		what: "a winner decides nothing",
		old:  `c.decided = !returned || err == nil`,
		new:  `c.decided = !returned`,
	},
	{
		what:       "a panic decides nothing",
		old:        `c.decided = !returned || err == nil`,
		new:        `c.decided = returned && err == nil`,
		equivalent: "unless another start wins between the panic and its being told, for which nothing lies between that a test could hold up",
	},
	{
		what: "a failure decides the call",
		old:  `c.decided = !returned || err == nil`,
		new:  `c.decided = true`,
	},
	{
		what: "the caller sees a panic before it is there",
		old:  "if returned {\n\t\tc.tell(s)\n\t}",
		new:  "c.tell(s)",
	},
	{
		what: "the end of a start is decided without the lock",
		old:  "c := s.call\n\tc.mu.Lock()\n\tdefer c.mu.Unlock()\n",
		new:  "c := s.call\n",
	},
	{
		what: "a start that ended is told without a signal",
		old:  "c.ended = append(c.ended, s)\n\tc.changed.Signal()",
		new:  "c.ended = append(c.ended, s)",
	},
	{
		what: "the timer tells nobody",
		old:  "c.slow = true\n\tc.changed.Signal()",
		new:  "c.slow = true",
	},
	{
		what:       "the timer goes before a start that ended",
		old:        "if len(c.ended) == 0 {\n\t\tc.slow = false",
		new:        "if c.slow {\n\t\tc.slow = false",
		equivalent: "either may be seen first of what came in one instant, and an answer that is there stops both",
	},
	{
		what: "the timer is heard again and again",
		old:  "c.slow = false\n",
		new:  "\n",
	},
	{
		what: "a hedge that was refused hides the error of a start that was made",
		old:  `if s.Fork.Starts() > 0 || !made || c.ctx.Err() != nil {`,
		new:  `if made = made || s.Fork.Starts() > 0; true {`,
	},
	{
		what: "a start that ends with the caller's ctx, and was not made, is taken for refused",
		old:  `if s.Fork.Starts() > 0 || !made || c.ctx.Err() != nil {`,
		new:  `if s.Fork.Starts() > 0 || !made {`,
	},
	{
		what: "of several starts the one that ended last is seen first",
		old:  "s := c.ended[0]\n\tc.ended = c.ended[1:]",
		new:  "s := c.ended[len(c.ended)-1]\n\tc.ended = c.ended[:len(c.ended)-1]",
	},
	{
		what: "the winner's ctx is cancelled as a loser's",
		old:  `s.ctx.end(nil)`,
		new:  `s.ctx.end(ErrLost)`,
	},
	{
		what: "the ctx of a start that ended lives on",
		old:  `s.ctx.end(nil)`,
		new:  ``,
	},
	{
		what: "what ended is not adopted",
		old:  `c.next.Adopt(s.Fork)`,
		new:  ``,
	},
	{
		what: "a panicked start is not adopted",
		old:  "c.next.Adopt(s.Fork)\n\terr := s.Result()",
		new:  "err := s.Result()\n\tc.next.Adopt(s.Fork)",
	},
	{
		what: "failures are recorded",
		old:  `if err == nil && c.hedge.recent != nil &&`,
		new:  `if c.hedge.recent != nil &&`,
	},
	{
		what: "a first start that lost is not recorded",
		old:  `(s == &c.first || !c.first.seen) {`,
		new:  `s == &c.first {`,
	},
	{
		what: "the time of a hedge is recorded though the first start failed",
		old:  `(s == &c.first || !c.first.seen) {`,
		new:  `true {`,
	},
	{
		what: "a timer that ran for a start that failed starts one more",
		old:  `if time.Duration(clock.Now()-c.latest) < c.delay {`,
		new:  `if false {`,
	},
	{
		what: "a start that is slow right at the delay has no successor",
		old:  `if time.Duration(clock.Now()-c.latest) < c.delay {`,
		new:  `if time.Duration(clock.Now()-c.latest) <= c.delay {`,
	},
	{
		what: "the budget is not asked where a start is slow",
		old:  `if c.answered() || !c.withdraw() {`,
		new:  `if c.answered() || err != nil && !c.withdraw() {`,
	},
	{
		what: "the budget is asked for a slow start that may not have a successor",
		old:  "if c.mayStart() {\n\t\tc.again(nil)",
		new:  "if c.withdraw() && c.mayStart() {\n\t\tc.again(nil)",
	},
	{
		what: "a slow start has more successors than Max",
		old:  "if c.mayStart() {\n\t\tc.again(nil)",
		new:  "if true {\n\t\tc.again(nil)",
	},
	{
		what: "a call is started again though the answer is there",
		old:  `if c.answered() || !c.withdraw() {`,
		new:  `if !c.withdraw() {`,
	},
	{
		what: "a token is taken though the answer is there",
		old:  `if c.answered() || !c.withdraw() {`,
		new:  `if !c.withdraw() || c.answered() {`,
	},
	{
		what: "a permanent error starts the next",
		old:  "if permanent(err) {\n",
		new:  "if false {\n",
	},
	{
		what: "a refusal starts the next",
		old:  `if s.Fork.Starts() == 0 || !c.mayStart() {`,
		new:  `if !c.mayStart() {`,
	},
	{
		what: "a failure starts more than Max",
		old:  `if s.Fork.Starts() == 0 || !c.mayStart() {`,
		new:  `if s.Fork.Starts() == 0 {`,
	},
	{
		what: "HedgeIf is not asked",
		old:  `if hedgeIf == nil || hedgeIf(err) {`,
		new:  `if hedgeIf == nil || true {`,
	},
	{
		what: "a token is taken for a start that HedgeIf rejects",
		old:  `if hedgeIf == nil || hedgeIf(err) {`,
		new:  `if c.withdraw() && (hedgeIf == nil || hedgeIf(err)) {`,
	},
	{
		what: "the budget is not asked after a failure",
		old:  `if c.answered() || !c.withdraw() {`,
		new:  `if c.answered() || err == nil && !c.withdraw() {`,
	},
	{
		what: "a call whose ctx has ended is started again",
		old:  `c.left > 0 && c.ctx.Err() == nil && c.next.Repeatable()`,
		new:  `c.left > 0 && c.next.Repeatable()`,
	},
	{
		what: "a call at most once is started again",
		old:  `c.left > 0 && c.ctx.Err() == nil && c.next.Repeatable()`,
		new:  `c.left > 0 && c.ctx.Err() == nil`,
	},
	{
		what: "Max counts for nothing",
		old:  "c.left--\n",
		new:  "\n",
	},
	{
		what: "starts are numbered one too low",
		old:  `len(c.further) + 2,`,
		new:  `len(c.further) + 1,`,
	},
	{
		what: "a call whose ctx ended in OnHedge is started again",
		old:  "if c.ctx.Err() != nil {\n\t\t\treturn",
		new:  "if false {\n\t\t\treturn",
	},
	{
		what: "the delay counts from the call's beginning",
		old:  "c.latest = clock.Now()\n",
		new:  "\n",
	},
	{
		what: "only the first start can be slow",
		old:  "c.timer.Reset(c.delay)",
		new:  "",
	},
	{
		what: "the budget gets nothing",
		old:  `c.hedge.config.Budget.Deposit()`,
		new:  ``,
	},
	{
		what: "each of the policies that share a budget pays into it",
		old:  `c.pays = c.pays && first`,
		new:  `c.pays = c.pays || first`,
	},
	{
		what: "a call that was refused at first never pays",
		old:  `s.Fork.FirstTime(c.hedge.config.Budget); s == &c.first {`,
		new:  `c.next.FirstTime(c.hedge.config.Budget) && s.Fork.FirstTime(c.hedge.config.Budget) || true; s == &c.first {`,
	},
	{
		what: "the call pays after it was hedged",
		old:  "c.deposit()\n\treturn c.hedge",
		new:  "return c.hedge",
	},
	{
		what: "a call that was turned away pays into the budget",
		old:  `c.pays && c.next.Starts() > 0 {`,
		new:  `c.pays {`,
	},
	{
		what: "a call pays again and again",
		old:  "c.pays = false\n",
		new:  "\n",
	},
	{
		what:       "the timer of a call that has ended runs",
		old:        `c.timer.Stop()`,
		new:        ``,
		equivalent: "it sets a word of a call that nobody looks at; Stop lets go of the call sooner",
	},
	{
		what: "a call that was not hedged pays nothing",
		old:  "c.deposit()\n\tif c.running > 0",
		new:  "if c.running > 0",
	},
	{
		what: "losers run on with a living ctx",
		old:  "c.giveUp()\n\t}",
		new:  "}",
	},
	{
		what: "a start that ends after a hook panicked is kept",
		old:  "c.mu.Lock()\n\tc.decided = true\n",
		new:  "c.mu.Lock()\n",
	},
	{
		what: "a loser's ctx is cancelled without cause",
		old:  `s.ctx.end(ErrLost)`,
		new:  `s.ctx.end(nil)`,
	},
	{
		what: "the first start does not lose",
		old:  `append(c.further, &c.first) {`,
		new:  `c.further {`,
	},
	{
		what: "an answer that came while a hook panicked is kept until the call ends",
		old:  `defer s.Fork.Discard() // each, even if drop panics`,
		new:  `_ = s`,
	},
	{
		what: "a panic in drop keeps the next answer",
		old:  `defer s.Fork.Discard() // each, even if drop panics`,
		new:  `s.Fork.Discard()`,
	},
	{
		what: "a Permanent mark counts only outermost",
		old:  `return errors.As(err, &mark)`,
		new:  `return errors.As(err, &mark) && err == error(mark)`,
	},
}}

var hedgeContextTable = table{"hedge/context.go", []fault{
	{
		what: "an end that nobody had looked for is forgotten",
		old:  "case c.over:\n\t\treturn context.Canceled",
		new:  "case false:\n\t\treturn context.Canceled",
	},
	{
		what: "a child needs a goroutine",
		old:  `if key == ctxkey.Cancel && key != nil {`,
		new:  `if key == ctxkey.Cancel && key == nil {`,
	},
	{
		what: "a second look makes another inner context",
		old:  "if c.inner != nil {\n\t\treturn\n\t}\n\tparent",
		new:  "parent",
	},
	{
		what: "the parent's later end is told for ours",
		old:  `parent = context.WithoutCancel(parent)`,
		new:  `_ = parent`,
	},
	{
		what: "an inner context that is made after the end lives",
		old:  "if c.over {\n\t\tc.cancel(c.cause)\n\t}",
		new:  "",
	},
	{
		what: "the cause of an end that nobody had looked for is lost",
		old:  `c.cancel(c.cause)`,
		new:  `c.cancel(nil)`,
	},
	{
		what: "a second end changes the cause",
		old:  `case !c.over && c.Context.Err() == nil:`,
		new:  `case c.Context.Err() == nil:`,
	},
	{
		what: "an end after the parent's changes the cause",
		old:  `case !c.over && c.Context.Err() == nil:`,
		new:  `case !c.over:`,
	},
	{
		what: "ended without the lock",
		old:  "func (c *startCtx) end(cause error) {\n\tc.mu.Lock()\n\tdefer c.mu.Unlock()\n",
		new:  "func (c *startCtx) end(cause error) {\n",
	},
	{
		what: "armed without the lock",
		old:  "func (c *startCtx) arm() context.Context {\n\tc.mu.Lock()\n\tdefer c.mu.Unlock()\n",
		new:  "func (c *startCtx) arm() context.Context {\n",
	},
}}

var histogramTable = table{"hedge/histogram.go", []fault{
	{
		what: "buckets are twice as wide",
		old:  `partBits = 5`,
		new:  `partBits = 4`,
	},
	{
		what: "a bucket's upper end is in it",
		old:  "bucket++\n\tif bucket",
		new:  "if bucket",
	},
	{
		what: "the last bucket has no end",
		old:  "return math.MaxInt64\n",
		new:  "return 0\n",
	},
	{
		what: "a time that the clock's jump made negative is counted as the longest",
		old:  `bucket(max(0, t))`,
		new:  `bucket(t)`,
	},
	{
		what: "what is recorded at the quantile is taken for above it",
		old:  `if b <= h.at {`,
		new:  `if b < h.at {`,
	},
	{
		what: "the quantile stays where it is",
		old:  "h.upTo++\n\t}\n\th.settle()",
		new:  "h.upTo++\n\t}",
	},
	{
		what: "the quantile never falls",
		old:  `for h.at > 0 && h.upTo`,
		new:  `for false && h.upTo`,
	},
	{
		what: "the share is rounded down",
		old:  `int64(math.Ceil(h.share*float64(h.sum.total) - 1e-6))`,
		new:  `int64(h.share * float64(h.sum.total))`,
	},
	{
		what: "a share's last binary digit decides",
		old:  `int64(math.Ceil(h.share*float64(h.sum.total) - 1e-6))`,
		new:  `int64(math.Ceil(h.share*float64(h.sum.total) + 1e-6))`,
	},
	{
		what: "whoever slept makes all begin anew",
		old:  `passed == 0 || passed < 0 && passed > -minutes:`,
		new:  `passed == 0:`,
	},
	{
		what: "after a jump back nothing is forgotten",
		old:  `passed == 0 || passed < 0 && passed > -minutes:`,
		new:  `passed <= 0:`,
	},
	{
		what:       "a gap in which all was forgotten is gone through minute by minute",
		old:        `passed < 0 || passed >= minutes:`,
		new:        `passed < 0 || passed > 2*minutes:`,
		equivalent: "that empties each slot too, some twice: the case saves work",
	},
	{
		what: "the oldest minute is forgotten too early",
		old:  `passed < 0 || passed >= minutes:`,
		new:  `passed < 0 || passed >= minutes-1:`,
	},
	{
		what: "the minute that begins forgets nothing",
		old:  `for m := h.minute + 1; m <= minute; m++ {`,
		new:  `for m := h.minute + 1; m < minute; m++ {`,
	},
	{
		what: "after a minute the quantile is that of before",
		old:  "h.at, h.upTo = 0, int64(h.sum.of[0])\n\th.settle()",
		new:  "",
	},
	{
		what: "what is forgotten still counts as a sample",
		old:  `h.sum.total -= slot.total`,
		new:  ``,
	},
	{
		what: "a slot is not emptied",
		old:  "\t*slot = counts{}\n",
		new:  "",
	},
	{
		what: "recorded without the lock",
		old:  "h.mu.Lock()\n\tdefer h.mu.Unlock()\n\th.advance(now)\n\tb := ",
		new:  "h.advance(now)\n\tb := ",
	},
}}
