package main

var ratelimitTable = table{"ratelimit/ratelimit.go", []fault{
	{
		what: "Do makes a call whose ctx is done",
		old:  "if ctx.Err() != nil {\n\t\treturn zero, resilience.ContextErr(ctx)\n\t}",
		new:  "",
	},
	{
		what: "Allow overtakes those who wait",
		old:  `return l.queued.Load() == 0 && l.take() == 0`,
		new:  `return l.take() == 0`,
	},
	{
		what: "a newcomer overtakes those who wait",
		old:  "if l.queued.Load() == 0 {\n\t\tat := l.take()",
		new:  "if true {\n\t\tat := l.take()",
	},
	{
		what:       "a call that may not wait stands in the queue",
		old:        "if l.wait == 0 {\n\t\t\treturn l.limited(at)\n\t\t}",
		new:        "_ = at",
		equivalent: "its turn comes after no wait at all, which line refuses with the same time: only the lock is saved",
	},
	{
		what: "SetRate forgets what was used",
		old:  "b.replace(l.bucket.Load())\n",
		new:  "l.bucket.Load().arrive.Store(closed)\n",
	},
	{
		what: "SetRate leaves the old bucket open",
		old:  "b.replace(l.bucket.Load())\n",
		new:  "old := l.bucket.Load()\n\tarrive := old.arrive.Load()\n\tb.replace(old)\n\told.arrive.Store(arrive)\n",
	},
	{
		what: "the first in the queue does not hear of another rate",
		old:  "case l.changed <- struct{}{}:\n\tdefault:",
		new:  "default:",
	},
	{
		what: "a call is not woken by its ctx when it is first",
		old:  "case <-changed:\n\t\tcase <-ctx.Done():",
		new:  "case <-changed:",
	},
	{
		what: "a call is not woken by its ctx while others are before it",
		old:  "case <-w.Ready:\n\tcase <-ctx.Done():\n\t\treturn resilience.ContextErr(ctx)",
		new:  "case <-w.Ready:",
	},
	{
		what: "a call whose ctx has ended takes its token",
		old:  "if ctx.Err() != nil {\n\t\t\treturn resilience.ContextErr(ctx)\n\t\t}\n\t\tat := l.take()",
		new:  "at := l.take()",
	},
	{
		what: "a call waits for a turn that another rate has made too late",
		old:  "if late(ctx, at, latest) {\n\t\t\treturn l.limited(at)\n\t\t}\n",
		new:  "",
	},
	{
		what: "who leaves stays in the queue",
		old:  "l.waiters.Remove(w)\n",
		new:  "",
	},
	{
		what: "who leaves is still counted",
		old:  "l.waiters.Remove(w)\n\tl.queued.Store(int32(l.waiters.Len()))",
		new:  "l.waiters.Remove(w)",
	},
	{
		what: "who waits is not counted",
		old:  "close(w.Ready)\n\t}\n\tl.queued.Store(int32(l.waiters.Len()))",
		new:  "close(w.Ready)\n\t}",
	},
	{
		what: "the second is not told that it is first",
		old:  "if first := l.waiters.First(); first != nil {",
		new:  "if first := l.waiters.First(); false {",
	},
	{
		what: "the first is told again when the second goes",
		old:  "if !wasFirst {\n\t\treturn\n\t}\n",
		new:  "_ = wasFirst\n",
	},
	{
		what: "a turn at the latest time is too late",
		old:  `if at > latest {`,
		new:  `if at >= latest {`,
	},
	{
		what: "a turn at the deadline is in time",
		old:  `>= time.Until(deadline)`,
		new:  `> time.Until(deadline)`,
	},
	{
		what: "a deadline before the turn does not matter",
		old:  `return ok && time.Duration(at-clock.Now())`,
		new:  `return ok && false && time.Duration(at-clock.Now())`,
	},
	{
		what: "a newcomer does not count those before it",
		old:  `turn(now, l.waiters.Len()); late(`,
		new:  `turn(now, 0); late(`,
	},
	{
		what:       "Snapshot tells newcomers of tokens that others wait for",
		old:        `if l.waiters.Len() == 0 {`,
		new:        `if true {`,
		equivalent: "while some wait there is no token, but for the instant in which the first of them wakes",
	},
}}

var bucketTable = table{"ratelimit/bucket.go", []fault{
	{
		what:       "a token is worth its unit less",
		old:        `token := uint64(1e9 / rate * perNanosecond)`,
		new:        `token := uint64(1e9/rate*perNanosecond) - 1`,
		equivalent: "a token's number of units is free, as long as the scale follows it",
	},
	{
		what: "the scale is rounded down",
		old:  `if remainder.Sign() > 0 {`,
		new:  `if remainder.Sign() > 1 {`,
	},
	{
		what: "a bucket holds a token more",
		old:  `uint64(burst) * token}`,
		new:  `uint64(burst+1) * token}`,
	},
	{
		what: "a time is rounded down",
		old:  "if remainder > 0 {\n\t\tat++\n\t}",
		new:  "_ = remainder",
	},
	{
		what: "time without calls is saved up beyond a full bucket",
		old:  `after := max(arrive, units) + b.token`,
		new:  `after := arrive + b.token`,
	},
	{
		what: "the last token is not given",
		old:  `case after > units+b.full:`,
		new:  `case after >= units+b.full:`,
	},
	{
		what: "a token is stored where it must be swapped",
		old:  `{ return b.arrive.CompareAndSwap(arrive, after) }`,
		new:  `{ b.arrive.Store(after); return true }`,
	},
	{
		what: "a clock that went back is not noticed",
		old:  `if arrive <= units+b.full || !b.rewind(arrive) {`,
		new:  `if true {`,
	},
	{
		what: "a bucket is full where the clock went back",
		old:  `b.arrive.CompareAndSwap(arrive, empty) // else`,
		new:  `b.arrive.CompareAndSwap(arrive, empty-b.full) // else`,
	},
	{
		what: "a clock that was read before is taken for one that went back",
		old:  `if arrive <= empty {`,
		new:  `if arrive <= empty-b.full {`,
	},
	{
		what: "more is missing than a bucket holds where the clock went back",
		old:  `return min(arrive-units, b.full)`,
		new:  `return arrive - units`,
	},
	{
		what: "a full bucket lacks what came since",
		old:  "if arrive <= units {\n\t\treturn 0\n\t}",
		new:  "",
	},
	{
		what: "others take no token",
		old:  `bits.Mul64(uint64(others)+1, b.token)`,
		new:  `bits.Mul64(1, b.token)`,
	},
	{
		what:       "a turn far away is now",
		old:        "return math.MaxInt64\n\tcase after",
		new:        "return now\n\tcase after",
		equivalent: "for more than two centuries some billion calls must wait, and a few cannot: 100 years is the longest time from empty to full",
	},
	{
		what:       "a turn that is there is told as one to come",
		old:        `case after <= b.units(now)+b.full:`,
		new:        `case after < b.units(now)+b.full:`,
		equivalent: "the time of a turn that comes this instant is now, either way",
	},
	{
		what: "a smaller burst is full",
		old:  "missing := b.full\n",
		new:  "missing := uint64(0)\n",
	},
	{
		what: "what was missing is kept in units",
		old:  `hi, lo := bits.Mul64(lack, b.token)`,
		new:  `hi, lo := bits.Mul64(lack, old.token)`,
	},
}}

var ratelimitKeyedTable = table{"ratelimit/keyed.go", []fault{
	{
		what: "DoKey makes a call whose ctx is done",
		old:  "if ctx.Err() != nil {\n\t\treturn zero, resilience.ContextErr(ctx)\n\t}",
		new:  "",
	},
	{
		what: "a key falls away before its bucket is full",
		old:  `k.pace.fills())`,
		new:  `k.pace.fills()/2)`,
	},
	{
		what: "a key never falls away",
		old:  `k.pace.fills())`,
		new:  `0*k.pace.fills())`,
	},
	{
		what: "what falls away for lack of room is forgotten",
		old:  "k.limiters.OnEvict(k.evict)\n",
		new:  "",
	},
	{
		what: "keys have no bound by default",
		old:  `config.MaxKeys = defaultMaxKeys`,
		new:  `config.MaxKeys = 1 << 62`,
	},
	{
		what: "a new key begins full",
		old:  `return newLimiter(k.config, k.pace, arrive)`,
		new:  `return newLimiter(k.config, k.pace, 0*arrive)`,
	},
	{
		what: "a clock that went back keeps new keys empty",
		old:  `if arrive > 0 && k.evicted.rewind(arrive) {`,
		new:  `if false {`,
	},
	{
		what: "the last one that fell away counts, not the emptiest",
		old:  `if arrive <= latest || k.evicted.arrive.CompareAndSwap(latest, arrive) {`,
		new:  `if k.evicted.arrive.CompareAndSwap(latest, arrive) {`,
	},
	{
		what: "a key whose calls wait may fall away",
		old:  "defer k.limiters.Release(e) // a key",
		new:  "k.limiters.Release(e) // a key",
	},
	{
		what: "Allow keeps its key in use",
		old:  "defer k.limiters.Release(e)\n\treturn e.Value().Allow()",
		new:  "return e.Value().Allow()",
	},
}}

var ratelimitConfigTable = table{"ratelimit/config.go", []fault{
	{
		what: "the largest rate is a mistake",
		old:  `rate > 0 && rate <= maxRate`,
		new:  `rate > 0 && rate < maxRate`,
	},
	{
		what: "a NaN is a rate",
		old:  `good := rate > 0 && rate <= maxRate`,
		new:  `good := !(rate <= 0 || rate > maxRate)`,
	},
	{
		what: "a bucket may take more than a century",
		old:  `> century.Seconds():`,
		new:  `> 2*century.Seconds():`,
	},
	{
		what: "there is no burst by default",
		old:  "c.Burst = 1\n",
		new:  "c.Burst = 2\n",
	},
}}

var ratelimitErrorsTable = table{"ratelimit/errors.go", []fault{
	{
		what: "a refusal tells of a time that has passed",
		old:  `return max(0, time.Duration(e.until-clock.Now()))`,
		new:  `return time.Duration(e.until - clock.Now())`,
	},
	{
		what: "a refusal is none",
		old:  `target == ErrLimited || target == resilience.ErrRefused`,
		new:  `target == ErrLimited && target != resilience.ErrRefused`,
	},
	{
		what: "a refusal is the server's fault",
		old:  `const tooManyRequests = 429`,
		new:  `const tooManyRequests = 503`,
	},
}}
