package main

// breaker.go and window.go are the hot path: their patches are short, so that they outlive work on it.

var breakerTable = table{"breaker/breaker.go", []fault{
	{
		what: "Do makes a call whose ctx is done",
		old:  "if ctx.Err() != nil {\n\t\tvar zero T",
		new:  "if false {\n\t\tvar zero T",
	},
	{
		what: "Acquire gives a permit to a caller whose ctx is done",
		old:  "if ctx.Err() != nil {\n\t\treturn Permit{}",
		new:  "if false {\n\t\treturn Permit{}",
	},
	{
		what: "Classify is not asked about calls without error",
		old:  `defaultClassify: c.Classify == nil}`,
		new:  `defaultClassify: true}`,
	},
	{
		what: "a call of Do that panics counts nothing",
		old:  "if running {\n\t\t\tp.unwind(ctx)",
		new:  "if running && false {\n\t\t\tp.unwind(ctx)",
	},
	{
		what: "a success of Do leaves the failures in a row",
		old:  "if err != nil || !p.simple || p.streak.Load() != 0 {",
		new:  "if err != nil || !p.simple {",
	},
	{
		what: "a call of Do that was noted and panics is never given back",
		old:  "defer t.unwind(ctx)\n\tvalue, err = fn(ctx)",
		new:  "value, err = fn(ctx)",
	},
	{
		what: "a panic of a policy further in that turned the call away is a failure",
		old:  `if running && next.Starts() != starts {`,
		new:  `if running {`,
	},
	{
		what: "a call that was turned away further in counts",
		old:  `(err != nil || !p.simple || p.streak.Load() != 0) && next.Starts() != starts {`,
		new:  `err != nil || !p.simple || p.streak.Load() != 0 {`,
	},
	{
		what: "a probe that was turned away further in counts",
		old:  "if next.Starts() != starts {\n\t\tt.done(ctx, err)",
		new:  "if true {\n\t\tt.done(ctx, err)",
	},
	{
		what: "a probe that was turned away further in keeps its place",
		old:  "if next.Starts() == starts {\n\t\t\tt.cancel()",
		new:  "if next.Starts() == starts {",
	},
	{
		what: "two of Done and Cancel at the same time count both",
		old:  "if p.used.Swap(true) {\n\t\treturn\n\t}\n\tt := p.ticket\n\tdefer",
		new:  "if p.used.Load() {\n\t\treturn\n\t}\n\tp.used.Store(true)\n\tt := p.ticket\n\tdefer",
	},
	{
		what: "Cancel counts after Done",
		old:  "if p.used.Swap(true) {\n\t\treturn\n\t}\n\tt := p.ticket\n\tt.cancel()",
		new:  "p.used.Store(true)\n\tt := p.ticket\n\tt.cancel()",
	},
	{
		what: "a permit whose Classify panics is never given back",
		old:  "defer t.unwind(p.ctx) // where Classify panics",
		new:  "",
	},
	{
		what: "Snapshot takes no lock",
		old:  "b.mu.Lock()\n\tdefer b.mu.Unlock()\n\treturn p.snapshot()",
		new:  "return p.snapshot()",
	},
	{
		what: "a call that panics after its caller went away is a failure",
		old:  `Outcome(outcome.OfUnwind(ctx))`,
		new:  `Outcome(outcome.OfUnwind(context.Background()))`,
	},
	{
		what:       "a stale result is not turned away at once",
		old:        `case p.b.phase.Load() != p:`,
		new:        `case false:`,
		equivalent: "this saves work only: reopen and bookProbe look again with mu held, and nobody reads the counts of a phase that has ended",
	},
	{
		what: "a canceled probe succeeds",
		old:  `p.endProbe(t.probe, canceled, nil)`,
		new:  `p.endProbe(t.probe, Success, nil)`,
	},
	{
		what: "a canceled call runs for ever",
		old:  `p.window.leave(t.mark)`,
		new:  ``,
	},
}}

var phaseTable = table{"breaker/phase.go", []fault{
	{
		what: "a dry run refuses when open",
		old:  `p.refusesAll = !c.DryRun`,
		new:  `p.refusesAll = true`,
	},
	{
		what: "calls are not noted for SlowRate",
		old:  `p.admitsAll = c.SlowRate == 0`,
		new:  `p.admitsAll = true`,
	},
	{
		what: "a success that the window counts leaves the failures in a row",
		old:  `c.Leaky == 0 && c.Consecutive == 0 && b.defaultClassify`,
		new:  `c.Leaky == 0 && b.defaultClassify`,
	},
	{
		what: "a success does not count for Leaky",
		old:  `p.last == nil && c.Leaky == 0 && b.defaultClassify`,
		new:  `p.last == nil && b.defaultClassify`,
	},
	{
		what: "a success does not count for Failures",
		old:  `p.admitsAll && p.window == nil && p.last == nil &&`,
		new:  `p.admitsAll && p.window == nil &&`,
	},
	{
		what: "hanging calls are not judged when one is admitted",
		old:  `if cause := p.window.judgeAdmission(now); cause != "" {`,
		new:  `if cause := ""; cause != "" {`,
	},
	{
		what:       "a full half-open breaker is not seen to be full without the lock",
		old:        `if p.probes.full.Load() {`,
		new:        `if false {`,
		equivalent: "this saves work only: admitProbe looks again with mu held",
	},
	{
		what: "a dry run refuses when half-open",
		old:  `if p.b.cfg.DryRun {`,
		new:  `if false {`,
	},
	{
		what: "a slow success asks for a time to stay open",
		old:  `if !failed {` + "\n\t\terr = nil",
		new:  `if false {` + "\n\t\terr = nil",
	},
	{
		what: "an ignored call is a success",
		old:  `if outcome == Ignored {`,
		new:  `if false {`,
	},
	{
		what: "an ignored slow call opens nothing",
		old:  "if cause != \"\" {\n\t\t\tp.trip(cause, nil)",
		new:  "if false {\n\t\t\tp.trip(cause, nil)",
	},
	{
		what: "Leaky opens one failure late",
		old:  `addNotBelowZero(&p.leak, failed) >= int64(c.Leaky)`,
		new:  `addNotBelowZero(&p.leak, failed) > int64(c.Leaky)`,
	},
	{
		what:       "a success at the limit of Leaky opens",
		old:        `>= int64(c.Leaky) && failed {`,
		new:        `>= int64(c.Leaky) {`,
		equivalent: "after a success the sum is at the limit only where a failure has seen it there, and is opening",
	},
	{
		what: "Consecutive opens one failure late",
		old:  `p.streak.Add(1) >= int64(c.Consecutive) {`,
		new:  `p.streak.Add(1) > int64(c.Consecutive) {`,
	},
	{
		what: "failures in a row are stored where they must be added",
		old:  `if p.streak.Add(1) >= int64(c.Consecutive) {`,
		new:  `if n := p.streak.Load() + 1; true {` + "\n\t\t\t\tp.streak.Store(n)\n\t\t\t}\n\t\t\tif p.streak.Load() >= int64(c.Consecutive) {",
	},
	{
		what: "a success takes one of the failures in a row away",
		old:  `p.streak.Store(0)`,
		new:  `p.streak.Add(-1)`,
	},
	{
		what: "Leaky's count is stored where it must be swapped",
		old:  `if sum == 0 || leak.CompareAndSwap(sum, sum-1) {`,
		new:  `if leak.Store(max(0, sum-1)); true {`,
	},
	{
		what: "Leaky counts below zero",
		old:  `if sum == 0 || leak.CompareAndSwap(sum, sum-1) {`,
		new:  `if leak.CompareAndSwap(sum, sum-1) {`,
	},
	{
		what: "a failure's RetryAfter does not extend the open time",
		old:  `after, _ = resilience.RetryAfter(err) // asks the user's error`,
		new:  `_ = err // asks the user's error`,
	},
	{
		what: "an error that panics when asked opens nothing",
		old: `	defer func() {
		p.b.mu.Lock()
		p.reopen(cause, after)
		p.b.mu.Unlock()
		p.b.deliver()
	}()
	after, _ = resilience.RetryAfter(err)`,
		new: `	after, _ = resilience.RetryAfter(err)
	p.b.mu.Lock()
	p.reopen(cause, after)
	p.b.mu.Unlock()
	p.b.deliver()
	`,
	},
	{
		what: "an opening is not told at once",
		old:  "p.reopen(cause, after)\n\t\tp.b.mu.Unlock()\n\t\tp.b.deliver()",
		new:  "p.reopen(cause, after)\n\t\tp.b.mu.Unlock()",
	},
	{
		what: "each of several racing callers opens",
		old:  "if b.phase.Load() != p {\n\t\treturn",
		new:  "if false {\n\t\treturn",
	},
	{
		what: "an opening soon after a closing is the first",
		old:  `if p.state == HalfOpen || time.Duration(next.began-p.began) < p.openTime {`,
		new:  `if p.state == HalfOpen {`,
	},
	{
		what: "a closed phase as long as the open time before it is too short",
		old:  `if p.state == HalfOpen || time.Duration(next.began-p.began) < p.openTime {`,
		new:  `if p.state == HalfOpen || time.Duration(next.began-p.began) <= p.openTime {`,
	},
	{
		what: "an opening after a failed half-open is the first",
		old:  `if p.state == HalfOpen || time.Duration(next.began-p.began) < p.openTime {`,
		new:  `if time.Duration(next.began-p.began) < p.openTime && p.state == Closed {`,
	},
	{
		what: "the open time ends a nanosecond late",
		old:  `next.until = clock.Add(next.began, next.openTime)`,
		new:  `next.until = clock.Add(next.began, next.openTime) + 1`,
	},
	{
		what: "no timer ends the open time",
		old:  `time.AfterFunc(next.openTime, next.openTimeOver)`,
		new:  ``,
	},
	{
		what: "a timer that is late ends another phase",
		old:  `if p.b.phase.Load() == p {` + "\n\t\tnext := newPhase(p.b, HalfOpen)",
		new:  `if true {` + "\n\t\tnext := newPhase(p.b, HalfOpen)",
	},
	{
		what: "the half-open state that follows an open time is not told at once",
		old:  "p.halfOpen()\n\tp.b.mu.Unlock()\n\tp.b.deliver()",
		new:  "p.halfOpen()\n\tp.b.mu.Unlock()",
	},
	{
		what: "a half-open phase forgets the openings",
		old:  "next.openings, next.openTime = p.openings, p.openTime\n\t\tp.change(next, \"open time over\")",
		new:  "p.change(next, \"open time over\")",
	},
	{
		what: "a closed phase forgets the openings",
		old:  "next.openings, next.openTime = p.openings, p.openTime\n\tp.change(next, cause)",
		new:  "p.change(next, cause)",
	},
	{
		what: "Reset of a closed breaker does nothing",
		old:  `if p.state != state || state == Closed {`,
		new:  `if p.state != state {`,
	},
	{
		what: "a state chosen by hand twice is begun twice",
		old:  `if p.state != state || state == Closed {`,
		new:  `if true {`,
	},
	{
		what: "a by-hand call does not make the transition that is due",
		old:  "b.mu.Lock()\n\tb.catchUp()\n\tp := b.phase.Load()",
		new:  "b.mu.Lock()\n\tp := b.phase.Load()",
	},
	{
		what: "a by-hand call remembers openings of long ago",
		old:  `if state != Closed && (p.state != Closed || time.Duration(next.began-p.began) < p.openTime) {`,
		new:  `if state != Closed {`,
	},
	{
		what: "a by-hand call forgets the openings",
		old:  `if state != Closed && (p.state != Closed || time.Duration(next.began-p.began) < p.openTime) {`,
		new:  `if false {`,
	},
	{
		what: "Reset of a closed breaker is told",
		old:  `&& p.state != next.state {`,
		new:  `{`,
	},
	{
		what: "State does not judge probes by the clock",
		old:  `if p.state != Open && p.state != HalfOpen {`,
		new:  `if p.state != Open {`,
	},
	{
		what: "State ends the open time a nanosecond late",
		old:  `if clock.Now() >= p.until {`,
		new:  `if clock.Now() > p.until {`,
	},
	{
		what: "Snapshot remembers openings a nanosecond longer",
		old:  `time.Duration(clock.Now()-p.began) >= p.openTime:`,
		new:  `time.Duration(clock.Now()-p.began) > p.openTime:`,
	},
	{
		what: "an overdue probe keeps its place until its timer",
		old:  "b.mu.Lock()\n\tp.failOverdue(now)\n\tif ok = ",
		new:  "b.mu.Lock()\n\tif ok = ",
	},
	{
		what: "a probe more than Probes",
		old:  `ok && len(p.probes.running) < b.cfg.Probes {`,
		new:  `ok && len(p.probes.running) <= b.cfg.Probes {`,
	},
	{
		what: "one probe at a time whatever Probes",
		old:  `p.probes.full.Store(len(p.probes.running) == b.cfg.Probes)`,
		new:  `p.probes.full.Store(true)`,
	},
	{
		what: "a probe has a nanosecond more",
		old:  `&probe{deadline: clock.Add(now, b.cfg.probeTime())}`,
		new:  `&probe{deadline: clock.Add(now, b.cfg.probeTime()) + 1}`,
	},
	{
		what: "no timer looks after the probes",
		old:  "p.watchProbes(now)\n\t}\n\tb.mu.Unlock()",
		new:  "}\n\tb.mu.Unlock()",
	},
	{
		what: "a probe tells the transitions of others",
		old:  "if !ok {\n\t\tb.deliver()",
		new:  "if true {\n\t\tb.deliver()",
	},
	{
		what: "a probe whose error panics when asked is not booked",
		old: `	defer func() { p.bookProbe(t, outcome, after, now) }()
	if outcome == Failure {
		after, _ = resilience.RetryAfter(err) // as in trip
	}`,
		new: `	if outcome == Failure {
		after, _ = resilience.RetryAfter(err) // as in trip
	}
	p.bookProbe(t, outcome, after, now)`,
	},
	{
		what: "a probe's result at its deadline is in time",
		old:  "p.failOverdue(now)\n\tif b.phase.Load() == p && p.removeProbe(t) {",
		new:  "if b.phase.Load() == p && p.removeProbe(t) {",
	},
	{
		what: "a stale probe decides",
		old:  `if b.phase.Load() == p && p.removeProbe(t) {`,
		new:  `if p.removeProbe(t) {`,
	},
	{
		what: "a probe decides twice",
		old:  `if b.phase.Load() == p && p.removeProbe(t) {`,
		new:  `if p.removeProbe(t); b.phase.Load() == p {`,
	},
	{
		what: "an ignored probe succeeds",
		old:  `case Success:` + "\n\t\t\tp.probes.succeeded++",
		new:  `case Success, Ignored:` + "\n\t\t\tp.probes.succeeded++",
	},
	{
		what: "a success more than ProbeSuccesses closes",
		old:  `p.probes.succeeded >= b.cfg.ProbeSuccesses {`,
		new:  `p.probes.succeeded > b.cfg.ProbeSuccesses {`,
	},
	{
		what: "the place of a probe that ended stays taken",
		old:  `p.probes.full.Store(false)`,
		new:  ``,
	},
	{
		what: "a failure more than ProbeFailures opens",
		old:  `p.probes.failed >= p.b.cfg.ProbeFailures {`,
		new:  `p.probes.failed > p.b.cfg.ProbeFailures {`,
	},
	{
		what: "an overdue probe has a nanosecond more",
		old:  `p.probes.running[0].deadline <= now {`,
		new:  `p.probes.running[0].deadline < now {`,
	},
	{
		what:       "probes that fail by the clock fail on after the phase has ended",
		old:        `for p.b.phase.Load() == p && len(p.probes.running) > 0`,
		new:        `for len(p.probes.running) > 0`,
		equivalent: "reopen does nothing for a phase that has ended, and nobody reads the probes of one",
	},
	{
		what: "each probe has a timer",
		old:  `if p.probes.timer || len(p.probes.running) == 0 {`,
		new:  `if len(p.probes.running) == 0 {`,
	},
	{
		what: "only the first probe of a phase is looked after",
		old:  `p.probes.timer = false`,
		new:  ``,
	},
	{
		what: "the timer of the first probe is the last",
		old:  "if p.b.phase.Load() == p {\n\t\t\tp.watchProbes(now)",
		new:  "if false {\n\t\t\tp.watchProbes(now)",
	},
	{
		what: "a slow probe has until ProbeTimeout",
		old:  `return min(c.ProbeTimeout, c.SlowCall)`,
		new:  `return max(c.ProbeTimeout, c.SlowCall)`,
	},
}}

var windowTable = table{"breaker/window.go", []fault{
	{
		what: "a call counts an epoch longer",
		old:  `a < span {`,
		new:  `a <= span {`,
	},
	{
		what: "a call counts an epoch less",
		old:  `a < span {`,
		new:  `a < span-1 {`,
	},
	{
		what: "a call booked an epoch ahead is not seen",
		old:  `a >= -1 &&`,
		new:  `a >= 0 &&`,
	},
	{
		what: "a full counter runs into the epoch",
		old:  `old&countMask == countMask {`,
		new:  `false {`,
	},
	{
		what: "a call is stored where it must be swapped",
		old:  `if word.CompareAndSwap(old, next) {`,
		new:  `if word.Store(next); true {`,
	},
	{
		what: "a fast success is stored where it must be swapped",
		old:  `case !word.CompareAndSwap(old, old+1):`,
		new:  `case func() bool { word.Store(old + 1); return false }():`,
	},
	{
		what: "a fast success is added to the count of an epoch that is over",
		old:  `case age(epoch, old) != 0 ||`,
		new:  `case`,
	},
	{
		what: "a call that stood still counts in the epoch it came from",
		old:  `if !fresh {`,
		new:  `if !fresh && false {`,
	},
	{
		what:       "a window does not grow",
		old:        `w.misses.Add(1) == missesToGrow {`,
		new:        `w.misses.Add(1) == -1 {`,
		equivalent: "stripes only keep callers out of each other's way: one is as right as many, and slower",
	},
	{
		what: "a window that grows forgets its first stripe",
		old:  `grown[0] = (*old)[0]`,
		new:  `grown[0] = new(stripe)`,
	},
	{
		what: "running calls of long ago are forgotten",
		old:  `w.carried.Add(int64(left))`,
		new:  `w.carried.Add(0 * int64(left))`,
	},
	{
		what: "running calls of long ago run for ever",
		old:  `w.carried.Add(-1)`,
		new:  `w.carried.Add(0)`,
	},
	{
		what: "the end of a call is stored where it must be swapped",
		old:  `if m.word.CompareAndSwap(old, old-1) {`,
		new:  `if m.word.Store(old - 1); true {`,
	},
	{
		what: "a call of just SlowCall is fast",
		old:  `time.Duration(now-m.start) >= w.c.SlowCall {`,
		new:  `time.Duration(now-m.start) > w.c.SlowCall {`,
	},
	{
		what: "a call that ended runs on",
		old:  "w.leave(m)\n",
		new:  "\n",
	},
	{
		what: "a slow ignored call counts nothing",
		old:  `case outcome == Ignored && class == fastSuccess:`,
		new:  `case outcome == Ignored:`,
	},
	{
		what: "a fast success is not judged in the epoch after one in which the window held MinCalls",
		old:  `w.settled.Store(epoch + 1)`,
		new:  `w.settled.Store(epoch + 2)`,
	},
	{
		what: "a slow ignored call is a call",
		old:  `failures + w.held(epoch, slowSuccess, fastSuccess)`,
		new:  `failures + w.held(epoch, slowSuccess, fastSuccess, slowIgnored)`,
	},
	{
		what: "a slow failure is no failure",
		old:  `failures = w.held(epoch, slowFailure, fastFailure)`,
		new:  `failures = w.held(epoch, fastFailure)`,
	},
	{
		what: "failures are counted after the successes",
		old: `	failures = w.held(epoch, slowFailure, fastFailure)
	if w.between != nil {
		w.between()
	}
	return failures, failures + w.held(epoch, slowSuccess, fastSuccess)`,
		new: `	calls = w.held(epoch, slowSuccess, fastSuccess)
	if w.between != nil {
		w.between()
	}
	failures = w.held(epoch, slowFailure, fastFailure)
	return failures, failures + calls`,
	},
	{
		what: "slow calls are counted after the fast ones",
		old: `	slow = w.held(epoch, slowFailure, slowSuccess, slowIgnored)
	_, hanging := w.running(now)
	slow += hanging
	if w.between != nil {
		w.between()
	}
	return slow, slow + w.held(epoch, fastFailure, fastSuccess)`,
		new: `	calls = w.held(epoch, fastFailure, fastSuccess)
	if w.between != nil {
		w.between()
	}
	slow = w.held(epoch, slowFailure, slowSuccess, slowIgnored)
	_, hanging := w.running(now)
	slow += hanging
	return slow, slow + calls`,
	},
	{
		what: "an ignored slow call is not slow",
		old: `	slow = w.held(epoch, slowFailure, slowSuccess, slowIgnored)
	_,`,
		new: `	slow = w.held(epoch, slowFailure, slowSuccess)
	_,`,
	},
	{
		what: "a call that ran for just SlowCall is not slow yet",
		old:  `time.Duration(now-instant) >= w.c.SlowCall`,
		new:  `time.Duration(now-instant) > w.c.SlowCall`,
	},
	{
		what: "a running call is slow an epoch early",
		old:  `return age > fineSpan ||`,
		new:  `return age >= fineSpan ||`,
	},
	{
		what: "a window whose calls are as many as MinCalls has no rate",
		old:  `if calls >= least && w.c.FailureRate > 0`,
		new:  `if calls > least && w.c.FailureRate > 0`,
	},
	{
		what: "who settles has not seen what was booked meanwhile",
		old:  `failures, calls = w.failed(epoch) // with`,
		new:  `// with`,
	},
	{
		what: "who stood still goes by what he saw",
		old:  `fresh-epoch > buckets-span {`,
		new:  `fresh-epoch > buckets {`,
	},
	{
		what: "a failure rate must be more than FailureRate",
		old:  `>= w.c.FailureRate {`,
		new:  `> w.c.FailureRate {`,
	},
	{
		what: "a slow rate must be more than SlowRate",
		old:  `>= w.c.SlowRate {`,
		new:  `> w.c.SlowRate {`,
	},
	{
		what: "calls that hang are not judged",
		old:  `	slow += hanging`,
		new:  `	slow += 0 * hanging`,
	},
	{
		what: "one of the last calls is stored where it must be swapped",
		old:  `if l.word.CompareAndSwap(word, next) {`,
		new:  `if l.word.Store(next); true {`,
	},
	{
		what: "the call that leaves the last calls need not have its slot yet",
		old:  `if pushed>>1 != gone {`,
		new:  `if false {`,
	},
	{
		what: "failures that have left the last calls still count",
		old:  `word&failureMask + bit - pushed&1`,
		new:  `word&failureMask + bit - pushed&0`,
	},
	{
		what: "a failure more than Failures opens",
		old:  `return failed && failures >= l.limit`,
		new:  `return failed && failures > l.limit`,
	},
	{
		what: "a success opens too where the failures are at their limit",
		old:  `return failed && failures >= l.limit`,
		new:  `return failures >= l.limit`,
	},
	{
		what: "the last calls are one more",
		old:  `gone := (number - l.size) & numberMask`,
		new:  `gone := (number - l.size - 1) & numberMask`,
	},
}}

var eventTable = table{"breaker/event.go", []fault{
	{
		what: "two goroutines tell at the same time",
		old:  `mine := !b.delivering && len(b.events) > 0`,
		new:  `mine := len(b.events) > 0`,
	},
	{
		what: "a panic of OnStateChange ends the telling",
		old:  `if !done {`,
		new:  `if !done && false {`,
	},
	{
		what: "nobody tells after the first telling",
		old:  `b.events, b.delivering = nil, false`,
		new:  `b.events = nil`,
	},
	{
		what: "the latest event is told first",
		old:  "event = b.events[0]\n\tb.events = b.events[1:]",
		new:  "event = b.events[len(b.events)-1]\n\tb.events = b.events[:len(b.events)-1]",
	},
	{
		what: "an event is told twice",
		old:  `b.events = b.events[1:]`,
		new:  `if b.events[0].Cause += " "; len(b.events[0].Cause)%2 == 0 {` + "\n\t\tb.events = b.events[1:]\n\t}",
	},
	{
		what: "events are taken without the lock",
		old:  "b.mu.Lock()\n\tdefer b.mu.Unlock()\n\tif len(b.events) == 0 {",
		new:  "if len(b.events) == 0 {",
	},
}}

var breakerConfigTable = table{"breaker/config.go", []fault{
	{
		what: "one success closes whatever Probes",
		old:  `orDefault(&c.ProbeSuccesses, c.Probes)`,
		new:  `orDefault(&c.ProbeSuccesses, 1)`,
	},
	{
		what: "a breaker with another rule has Consecutive too",
		old:  `if c.Consecutive == 0 && c.Leaky == 0 && c.Failures == 0 && c.FailureRate == 0 && c.SlowRate == 0 {`,
		new:  `if c.Consecutive == 0 {`,
	},
	{
		what: "the first open time is doubled",
		old:  `if shift := openings - 1; shift`,
		new:  `if shift := openings; shift`,
	},
	{
		what:       "an open time is doubled more often than it has bits",
		old:        `shift < 63 && `,
		new:        ``,
		equivalent: "MaxOpenFor shifted so far is 0, which OpenFor is above: a second guard",
	},
	{
		what: "an open time that doubles to MaxOpenFor, but for a nanosecond, is lengthened to it",
		old:  `c.OpenFor <= c.MaxOpenFor>>shift {`,
		new:  `c.OpenFor < c.MaxOpenFor>>shift {`,
	},
	{
		what: "RetryAfter may extend the open time beyond MaxOpenFor",
		old:  `d = max(d, min(retryAfter, c.MaxOpenFor))`,
		new:  `d = max(d, retryAfter)`,
	},
	{
		what: "a RetryAfter shortens the open time",
		old:  `d = max(d, min(retryAfter, c.MaxOpenFor))`,
		new:  `if retryAfter > 0 {` + "\n\t\td = min(retryAfter, c.MaxOpenFor)\n\t}",
	},
	{
		what: "jitter overflows",
		old:  `if longer >= float64(math.MaxInt64-d) {`,
		new:  `if longer < 0 {`,
	},
	{
		what: "by default every call is judged as one that panicked",
		old:  `return Outcome(outcome.Of(ctx, err))`,
		new:  `return Outcome(outcome.OfUnwind(ctx))`,
	},
}}

var breakerErrorsTable = table{"breaker/errors.go", []fault{
	{
		what: "OpenError is no refusal",
		old:  `return target == ErrOpen || target == resilience.ErrRefused`,
		new:  `return target == ErrOpen || target == nil && resilience.ErrRefused == nil`,
	},
	{
		what: "RetryAfter is below zero once the open time is over",
		old:  `return max(0, time.Duration(e.until-clock.Now()))`,
		new:  `return time.Duration(e.until - clock.Now())`,
	},
}}
