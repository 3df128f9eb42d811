package main

var adaptiveTable = table{"adaptive/adaptive.go", []fault{
	{
		what: "AIMD is Queue",
		old:  `if config.Algorithm == AIMD {`,
		new:  `if false {`,
	},
	{
		what: "Do makes a call whose ctx is done",
		old:  `if ctx.Err() != nil {`,
		new:  `if false {`,
	},
	{
		what: "Do does not leave",
		old:  "defer c.leave() // panics and Goexit too\n\tvalue, err := fn(ctx)",
		new:  "value, err := fn(ctx)",
	},
	{
		what: "Do leaves only where the call returns",
		old:  "defer c.leave() // panics and Goexit too\n\tvalue, err := fn(ctx)\n\tc.returned(ctx, err)",
		new:  "value, err := fn(ctx)\n\tc.returned(ctx, err)\n\tc.leave()",
	},
	{
		what: "Run leaves only where the call returns",
		old:  "defer c.leave() // panics and Goexit too\n\tstarts := next.Starts()",
		new:  "defer func() {\n\t\tif c.outcome != Ignored {\n\t\t\tc.leave()\n\t\t}\n\t}()\n\tstarts := next.Starts()",
	},
	{
		what: "a call that was turned away further in counts",
		old:  `if next.Starts() != starts {`,
		new:  `if next.Starts() >= starts {`,
	},
	{
		what: "a priority below 0 is not held to it",
		old:  `max(0, min(l.priority(ctx), concurrency.Highest))`,
		new:  `min(l.priority(ctx), concurrency.Highest)`,
	},
	{
		what: "a priority above 4 is not held to it",
		old:  `max(0, min(l.priority(ctx), concurrency.Highest))`,
		new:  `max(0, l.priority(ctx))`,
	},
	{
		what: "a panic is a sample",
		old:  `pass: pass, outcome: Ignored}`,
		new:  `pass: pass, outcome: Sample}`,
	},
	{
		what: "a panic is a drop",
		old:  `pass: pass, outcome: Ignored}`,
		new:  `pass: pass, outcome: Drop}`,
	},
	{
		what: "a call takes no time",
		old:  `max(0, time.Duration(clock.Now()-c.began))`,
		new:  `0`,
	},
}}

var adaptiveConfigTable = table{"adaptive/config.go", []fault{
	{
		what: "the highest limit is a mistake",
		old:  `value <= concurrency.MaxLimit, field`,
		new:  `value < concurrency.MaxLimit, field`,
	},
	{
		what: "a limit that may not move is a mistake",
		old:  `mistake(full.Min <= full.Max,`,
		new:  `mistake(full.Min < full.Max,`,
	},
	{
		what: "Initial may be above Max",
		old:  `full.Min <= full.Initial && full.Initial <= full.Max`,
		new:  `full.Min <= full.Initial`,
	},
	{
		what: "Initial may be below Min",
		old:  `full.Min <= full.Initial && full.Initial <= full.Max`,
		new:  `full.Initial <= full.Max`,
	},
	{
		what: "the default of Initial is above Max",
		old:  `max(c.Min, min(defaultInitial, c.Max))`,
		new:  `max(c.Min, defaultInitial)`,
	},
	{
		what: "the default of Max is below Initial",
		old:  `max(defaultMax, c.Min, c.Initial)`,
		new:  `max(defaultMax, c.Min)`,
	},
	{
		what: "an algorithm that is none is no mistake",
		old:  `c.Algorithm == Queue || c.Algorithm == AIMD, "Algorithm"`,
		new:  `true, "Algorithm"`,
	},
	{
		what: "a failure is ignored",
		old:  "case outcome.Failure:\n\t\treturn Drop",
		new:  "case outcome.Failure:\n\t\treturn Ignored",
	},
}}

var concurrencyTable = table{"internal/concurrency/limit.go", []fault{
	{
		what: "one call more than the limit is admitted",
		old:  `if 10*running(word) >= admits(word)*(6+priority) {`,
		new:  `if 10*running(word) > admits(word)*(6+priority) {`,
	},
	{
		what: "a level is rounded down to whole calls",
		old:  `if 10*running(word) >= admits(word)*(6+priority) {`,
		new:  `if running(word) >= admits(word)*(6+priority)/10 {`,
	},
	{
		what: "a refusal is not noticed",
		old:  "\t\t\t\tl.turnedAway.Store(true)\n",
		new:  "",
	},
	{
		what: "a place is stored where it must be swapped",
		old:  `if l.word.CompareAndSwap(word, word+1) {`,
		new:  `if l.word.Store(word + 1); true {`,
	},
	{
		what: "the limit is stored where it must be swapped",
		old:  `if l.word.CompareAndSwap(word, next) {`,
		new:  `if l.word.Store(next); true {`,
	},
	{
		what: "a change of the limit begins no epoch",
		old:  `(epoch(word)+1)<<epochShift`,
		new:  `epoch(word)<<epochShift`,
	},
	{
		what: "epochs do not come round",
		old:  `(epoch-other)&(1<<epochBits-1) < 1<<(epochBits-1)`,
		new:  `epoch >= other`,
	},
	{
		what: "the peak is one call less than it was",
		old:  `running(l.word.Add(^uint64(0))) + 1`,
		new:  `running(l.word.Add(^uint64(0)))`,
	},
	{
		what: "a limit that calls ran up to was not met",
		old:  `l.turnedAway.Load() || peak >= admits(l.word.Load())`,
		new:  `l.turnedAway.Load()`,
	},
	{
		what: "a limit may be below Min",
		old:  `max(l.least, min(limit, l.most))`,
		new:  `max(1, min(limit, l.most))`,
	},
	{
		what: "a limit may be above Max",
		old:  `max(l.least, min(limit, l.most))`,
		new:  `max(l.least, limit)`,
	},
	{
		what:       "a limit that may not move is judged",
		old:        `if l.least == l.most {`,
		new:        `if false {`,
		equivalent: "a limit is kept from Min to Max however it is judged: the question spares a lock",
	},
}}

var aimdTable = table{"internal/concurrency/aimd.go", []fault{
	{
		what: "each drop of the calls that ran at once lowers the limit",
		old:  `case outcome == Drop && atLeast(p.epoch, a.cut):`,
		new:  `case outcome == Drop:`,
	},
	{
		what: "a drop of a call that began before the limit grew counts for nothing",
		old:  `case outcome == Drop && atLeast(p.epoch, a.cut):`,
		new:  `case outcome == Drop && p.epoch == now:`,
	},
	{
		what: "calls that began before the last change let the limit grow",
		old:  `case outcome == Sample && p.epoch == now:`,
		new:  `case outcome == Sample && p.epoch <= now:`,
	},
	{
		what: "a limit that was not met grows",
		old:  `if l.met(a.peak) {`,
		new:  `if true {`,
	},
	{
		what: "a round is a call too many",
		old:  `if a.ends++; a.ends < limit {`,
		new:  `if a.ends++; a.ends <= limit {`,
	},
	{
		what: "a refusal counts for the next round too",
		old:  `l.turnedAway.Store(false)`,
		new:  `_ = l`,
	},
}}

var estimateTable = table{"internal/concurrency/estimate.go", []fault{
	{
		what: "a mean is as sure as one of its times",
		old:  `spread / max(1, t.n-1)`,
		new:  `spread`,
	},
	{
		what: "two standard deviations are a difference",
		old:  `apart*apart > 3*3*(`,
		new:  `apart*apart > 2*2*(`,
	},
	{
		what: "the surer of two estimates counts less",
		old:  `weight := later.variance / both`,
		new:  `weight := e.variance / both`,
	},
	{
		what: "what was known is never forgotten",
		old:  `max(e.variance*weight, later.variance/memory)`,
		new:  `e.variance * weight`,
	},
	{
		what: "a share is taken for what it seems",
		old:  `return s.is - sure*s.off`,
		new:  `return s.is`,
	},
}}

var queueTable = table{"internal/concurrency/queue.go", []fault{
	{
		what: "calls that ran when the limit changed are judged",
		old:  `q.skip, q.past = running, tally{}`,
		new:  `q.skip, q.past = 0, tally{}`,
	},
	{
		what: "the first round is not waited for",
		old:  `quick: true, skip: initial,`,
		new:  `quick: true, skip: 0,`,
	},
	{
		what: "calls that queued are among those of a drain",
		old:  `q.skip += admit`,
		new:  `q.skip += 0`,
	},
	{
		what: "a drop is as short as it was",
		old:  `q.drops.add(max(took, q.roundTrip()))`,
		new:  `q.drops.add(took)`,
	},
	{
		what: "a round of drops is judged as one of answers",
		old:  `switch failing := q.drops.n > q.samples.n; {`,
		new:  `switch failing := false; {`,
	},
	{
		what: "few calls are judged as many",
		old:  `case q.least.none() || 2*q.peak <= limit:`,
		new:  `case q.least.none():`,
	},
	{
		what: "all of the limit is admitted in a drain",
		old:  `admit = max(l.least, (next+1)/2)`,
		new:  `admit = next`,
	},
	{
		what: "a drain goes below Min",
		old:  `admit = max(l.least, (next+1)/2)`,
		new:  `admit = (next + 1) / 2`,
	},
	{
		what: "the limit is never drained",
		old:  `if float64(next) < doubt*float64(q.top) {`,
		new:  `if false {`,
	},
	{
		what: "a dependency that has become faster goes unnoticed",
		old:  `seen.differs(q.least) || 4*seen.variance < q.least.variance`,
		new:  `false`,
	},
	{
		what: "a round trip that was thought too short keeps the limit low",
		old:  `case s.maybe() < shortest && met:`,
		new:  `case s.is < shortest && met:`,
	},
	{
		what: "the limit grows unmet",
		old:  `case s.maybe() < shortest && met:`,
		new:  `case s.is < shortest:`,
	},
	{
		what: "the limit grows unmet at first",
		old:  "if met {\n\t\t\tnext = up(limit, leap)",
		new:  "if true {\n\t\t\tnext = up(limit, leap)",
	},
	{
		what: "the limit leaps for ever",
		old:  "q.quick = false\n\t\tnext",
		new:  "next",
	},
	{
		what: "the limit never shrinks",
		old:  `return q.shrink(limit, s, all)`,
		new:  `return limit, false`,
	},
	{
		what: "one call that queues is too many",
		old:  `return s.is*float64(limit) > 1.05`,
		new:  `return s.is*float64(limit) > 0`,
	},
	{
		what: "a drain shows no queue",
		old:  `s.surely() > longest && crowded(s, limit) {`,
		new:  `false && crowded(s, limit) {`,
	},
	{
		what: "calls that fail fast raise the limit or lower it",
		old:  `if s.surely() <= longest {`,
		new:  `if s.surely() > longest {`,
	},
	{
		what: "a drain is never ended",
		old:  `q.draining = drain`,
		new:  `q.draining = q.draining || drain`,
	},
	{
		what: "what is seen under load is the least",
		old:  `next, q.top = max(limit+1, towards(limit, s, step)), 0`,
		new:  `next, q.top, q.least = max(limit+1, towards(limit, s, step)), 0, seen`,
	},
	{
		what: "steps go to the edge",
		old:  `factor := (1 - max(0, s.is)) / (1 - aim)`,
		new:  `factor := (1 - max(0, s.is))`,
	},
}}
