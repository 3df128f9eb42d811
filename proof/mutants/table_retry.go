package main

var retryTable = table{"retry/retry.go", []fault{
	{
		what: "Do makes a call whose ctx is done",
		old:  "if ctx.Err() != nil {\n\t\tvar zero T",
		new:  "if false {\n\t\tvar zero T",
	},
	{
		what: "Do's first attempt tells the number of a retry further out",
		old:  "if r.config.Budget == nil {\n\t\tvalue, err = fn(numbered(ctx, 1))",
		new:  "if r.config.Budget == nil {\n\t\tvalue, err = fn(ctx)",
	},
	{
		what: "Do pays nothing into the budget",
		old:  `defer r.config.Budget.Deposit()`,
		new:  ``,
	},
	{
		what: "Do pays nothing into the budget for a call that panics",
		old:  "defer r.config.Budget.Deposit()\n\treturn fn(numbered(ctx, 1))",
		new:  "value, err := fn(numbered(ctx, 1))\n\tr.config.Budget.Deposit()\n\treturn value, err",
	},
	{
		what: "Do numbers each attempt one too low",
		old:  `value, err = fn(numbered(ctx, s.attempts+1))`,
		new:  `value, err = fn(numbered(ctx, s.attempts))`,
	},
	{
		what: "Do does not wait",
		old:  "if end == nil {\n\t\t\tend = s.wait(ctx, delay)",
		new:  "if end == nil {\n\t\t\tend = s.wait(ctx, 0*delay)",
	},
	{
		what: "a call in a pipeline pays nothing into the budget",
		old:  `defer r.deposit(next, starts)`,
		new:  ``,
	},
	{
		what: "a call in a pipeline pays nothing into the budget if it panics",
		old:  "defer r.deposit(next, starts) // panics too\n\treturn next.Run(ctx)",
		new:  "err := next.Run(ctx)\n\tr.deposit(next, starts)\n\treturn err",
	},
	{
		what: "a run that was turned away is an attempt",
		old:  `starts != before, next.Repeatable())`,
		new:  `starts == starts || starts != before, next.Repeatable())`,
	},
	{
		what: "a call at most once is repeated",
		old:  `starts != before, next.Repeatable())`,
		new:  `starts != before, true)`,
	},
	{
		what: "a value is held during the wait",
		old:  "next.Discard()\n",
		new:  "\n",
	},
	{
		what: "each attempt pays into the budget",
		old:  `before == 0 && next.Starts() > 0 && next.FirstTime(r.config.Budget) {`,
		new:  `next.Starts() > 0 {`,
	},
	{
		what: "a call that was turned away pays into the budget",
		old:  `before == 0 && next.Starts() > 0 && next.FirstTime(r.config.Budget) {`,
		new:  `before == 0 && next.FirstTime(r.config.Budget) {`,
	},
	{
		what: "each of the policies that share a budget pays into it",
		old:  `next.Starts() > 0 && next.FirstTime(r.config.Budget) {`,
		new:  `next.Starts() > 0 {`,
	},
	{
		what:       "a call pays again where the first attempt that was made was of another run",
		old:        `before == 0 && next.Starts() > 0 && next.FirstTime(r.config.Budget) {`,
		new:        `next.Starts() > 0 && next.FirstTime(r.config.Budget) {`,
		equivalent: "Once knows that it paid; before spares the look",
	},
	{
		what: "an attempt is not counted",
		old:  "s.attempts++\n",
		new:  "\n",
	},
	{
		what: "a refusal that was waited out is remembered",
		old:  `s.last, s.refusal = err, nil`,
		new:  `s.last = err`,
	},
	{
		what: "an error after the ctx ended is one of exhaustion",
		old:  `if ctx.Err() != nil || permanent(err) || !repeatable {`,
		new:  `if permanent(err) || !repeatable {`,
	},
	{
		what: "a permanent error is retried",
		old:  `if ctx.Err() != nil || permanent(err) || !repeatable {`,
		new:  `if ctx.Err() != nil || !repeatable {`,
	},
	{
		what: "what Repeatable says of an attempt is not asked",
		old:  `if ctx.Err() != nil || permanent(err) || !repeatable {`,
		new:  `if ctx.Err() != nil || permanent(err) {`,
	},
	{
		what: "a Permanent mark stays on the error",
		old:  "return 0, bare(err)\n\t\t}\n\t} else {",
		new:  "return 0, err\n\t\t}\n\t} else {",
	},
	{
		what: "a refusal after attempts takes the place of their error",
		old:  `if s.attempts == 0 {` + "\n\t\t\ts.last = err",
		new:  `if true {` + "\n\t\t\ts.last = err",
	},
	{
		what: "a refusal of a call that must not be repeated is waited out",
		old:  `!repeatable || !config.RetryRefused`,
		new:  `!config.RetryRefused`,
	},
	{
		what: "a permanent refusal is waited out",
		old:  `!config.RetryRefused || permanent(err) {`,
		new:  `!config.RetryRefused {`,
	},
	{
		what: "the elapsed time counts from the last failure",
		old:  `if s.first.IsZero() {` + "\n\t\ts.first = now",
		new:  `if true {` + "\n\t\ts.first = now",
	},
	{
		what: "an attempt more than MaxAttempts",
		old:  `s.attempts >= config.MaxAttempts {`,
		new:  `s.attempts > config.MaxAttempts {`,
	},
	{
		what: "RetryIf is asked about the last attempt's error",
		old: `	if config.MaxAttempts != Unlimited && s.attempts >= config.MaxAttempts {
		return 0, s.exhausted(ReasonAttempts, now, 0, nil)
	}
	if config.RetryIf != nil && !config.RetryIf(err) {
		if made {
			return 0, bare(err)
		}
		return 0, s.turnedAway(ctx, err)
	}`,
		new: `	if config.RetryIf != nil && !config.RetryIf(err) {
		if made {
			return 0, bare(err)
		}
		return 0, s.turnedAway(ctx, err)
	}
	if config.MaxAttempts != Unlimited && s.attempts >= config.MaxAttempts {
		return 0, s.exhausted(ReasonAttempts, now, 0, nil)
	}`,
	},
	{
		what: "a token of the budget is taken for an attempt that is not made",
		old: `	if wait, end = s.delay(ctx, err, now); end != nil {
		return 0, end
	}
	if !made {
		wait = max(wait, minRefusedWait)
	} else if config.Budget != nil && !config.Budget.Withdraw() { // an attempt that is refused stays paid for
		return 0, s.exhausted(ReasonBudget, now, wait, nil)
	}`,
		new: `	if made && config.Budget != nil && !config.Budget.Withdraw() {
		return 0, s.exhausted(ReasonBudget, now, wait, nil)
	}
	if wait, end = s.delay(ctx, err, now); end != nil {
		return 0, end
	}
	if !made {
		wait = max(wait, minRefusedWait)
	}`,
	},
	{
		what: "refusals are waited out in a busy loop",
		old:  `wait = max(wait, minRefusedWait)`,
		new:  `wait = max(wait, 0)`,
	},
	{
		what: "the budget is not asked",
		old:  `} else if config.Budget != nil && !config.Budget.Withdraw() {`,
		new:  `} else if false {`,
	},
	{
		what: "an attempt that was refused has the number of the one before",
		old:  "if !made {\n\t\t\tattempt++",
		new:  "if false {\n\t\t\tattempt++",
	},
	{
		what: "each wait has a schedule of its own",
		old:  "if s.schedule == nil {\n",
		new:  "if true {\n",
	},
	{
		what: "a schedule is used as it comes",
		old:  "s.schedule.Reset()\n",
		new:  "\n",
	},
	{
		what: "a delay of nothing ends the retrying",
		old:  `if wait < 0 {`,
		new:  `if wait <= 0 {`,
	},
	{
		what: "a RetryAfter of MaxRetryAfter is too long",
		old:  `if after > config.MaxRetryAfter {`,
		new:  `if after >= config.MaxRetryAfter {`,
	},
	{
		what: "a RetryAfter that is too long is cut",
		old: `if after > config.MaxRetryAfter {
			return 0, s.exhausted(ReasonRetryAfter, now, after, nil)
		}`,
		new: `after = min(after, config.MaxRetryAfter)`,
	},
	{
		what: "the wait is the longer of delay and RetryAfter",
		old:  `wait = sum(wait, after)`,
		new:  `wait = max(wait, after)`,
	},
	{
		what: "an attempt that would begin at MaxElapsed is not made",
		old:  `sum(now.Sub(s.first), wait) > config.MaxElapsed {`,
		new:  `sum(now.Sub(s.first), wait) >= config.MaxElapsed {`,
	},
	{
		what: "MaxElapsed leaves out the wait",
		old:  `sum(now.Sub(s.first), wait) > config.MaxElapsed {`,
		new:  `now.Sub(s.first) > config.MaxElapsed {`,
	},
	{
		what: "a wait right up to the deadline is begun",
		old:  `deadline.Sub(now) <= wait {`,
		new:  `deadline.Sub(now) < wait {`,
	},
	{
		what: "the wait does not heed the ctx",
		old:  "case <-ctx.Done():\n\t\t\ttimer.Stop()",
		new:  "",
	},
	{
		what:       "the timer of a wait that ctx ended is not stopped",
		old:        "timer.Stop()",
		new:        "",
		equivalent: "nobody waits for it any more, and since Go 1.23 such a timer holds nothing",
	},
	{
		what: "a ctx that ended when the wait did is not noticed",
		old:  "if ctx.Err() == nil {\n\t\treturn nil\n\t}\n\treturn s.exhausted",
		new:  "if delay > 0 || ctx.Err() == nil {\n\t\treturn nil\n\t}\n\treturn s.exhausted",
	},
	{
		what: "a refusal after attempts comes back without their error",
		old:  "if s.attempts == 0 {\n\t\treturn bare(err)",
		new:  "if true {\n\t\treturn bare(err)",
	},
	{
		what: "a refusal after the ctx ended tells nothing of the ctx",
		old:  "if ctx.Err() != nil {\n\t\treturn s.exhausted(ReasonContext",
		new:  "if false {\n\t\treturn s.exhausted(ReasonContext",
	},
	{
		what:       "a sum at the largest time is held where it need not be",
		old:        `if a > math.MaxInt64-b {`,
		new:        `if a >= math.MaxInt64-b {`,
		equivalent: "there the sum is the largest time either way",
	},
	{
		what: "a sum of times overflows",
		old:  `if a > math.MaxInt64-b {`,
		new:  `if a < 0 {`,
	},
	{
		what: "a Permanent mark counts only outermost",
		old:  `return errors.As(err, &mark)`,
		new:  `return errors.As(err, &mark) && err == error(mark)`,
	},
	{
		what: "a first attempt tells the number of a retry further out",
		old:  `if n == 1 && ctx.Value(attemptKey{}) == nil {`,
		new:  `if n == 1 {`,
	},
	{
		what: "a first attempt is marked in every case",
		old:  `if n == 1 && ctx.Value(attemptKey{}) == nil {`,
		new:  `if n == 0 {`,
	},
}}

var scheduleTable = table{"retry/schedule.go", []fault{
	{
		what: "Linear does not begin anew",
		old:  `func (l *linear) Reset() { l.last = 0 }`,
		new:  `func (l *linear) Reset() {}`,
	},
	{
		what: "EqualJitter rounds half of the bound down",
		old:  `return random(bound-bound/2, bound)`,
		new:  `return random(bound/2, bound)`,
	},
	{
		what: "Decorrelated never gets shorter",
		old:  `d.last = random(d.initial, min(`,
		new:  `d.last = random(d.last, min(`,
	},
	{
		what: "Fibonacci doubles",
		old:  `f.last, f.next = delay, min(f.max, sum(f.last, delay))`,
		new:  `f.last, f.next = delay, min(f.max, sum(delay, delay))`,
	},
	{
		what: "doubling overflows",
		old:  `d.bound = min(d.max, sum(bound, bound))`,
		new:  `d.bound = min(d.max, bound+bound)`,
	},
	{
		what: "doubling knows no maximum",
		old:  `d.bound = min(d.max, sum(bound, bound))`,
		new:  `d.bound = sum(bound, bound)`,
	},
	{
		what: "a random time is never its upper bound",
		old:  `uint64(high-low)+1))`,
		new:  `max(1, uint64(high-low))))`,
	},
}}

var retryErrorsTable = table{"retry/errors.go", []fault{
	{
		what: "ExhaustedError does not unwrap to the refusal",
		old:  `[...]error{e.Err, e.refusal, e.cause}`,
		new:  `[...]error{e.Err, e.cause}`,
	},
	{
		what: "ExhaustedError does not unwrap to the ctx's error",
		old:  `[...]error{e.Err, e.refusal, e.cause}`,
		new:  `[...]error{e.Err, e.refusal}`,
	},
	{
		what: "Timeout asks nothing behind an error that says no",
		old:  `ok && teller.Timeout() {`,
		new:  `ok {` + "\n\t\t\tif !teller.Timeout() {\n\t\t\t\tcontinue\n\t\t\t}",
	},
}}
