package main

var debounceTable = table{"debounce/debounce.go", []fault{
	{
		what: "First makes a call whose ctx is done",
		old:  "func (f *first[T]) do(ctx context.Context) (T, error) {\n\tif ctx.Err() != nil {",
		new:  "func (f *first[T]) do(ctx context.Context) (T, error) {\n\tif false {",
	},
	{
		what: "First takes no lock",
		old:  "f.mu.Lock()\n\tdefer f.mu.Unlock()\n",
		new:  "",
	},
	{
		what: "First has one burst",
		old:  `!f.run.Join() && f.over(now) {`,
		new:  `!f.run.Join() && false {`,
	},
	{
		what: "each call of First that comes after the run begins another",
		old:  `!f.run.Join() && f.over(now) {`,
		new:  `!f.run.Join() {`,
	},
	{
		what: "quiet is counted from the first call",
		old:  `f.came = now`,
		new:  `f.came = max(f.came, 0*now)`,
	},
	{
		what: "quiet is counted from the last call though the run ended later",
		old:  `last := max(f.came, ended)`,
		new:  `last := f.came`,
	},
	{
		what: "quiet is counted from the run's end though a call came later",
		old:  `last := max(f.came, ended)`,
		new:  `last := ended`,
	},
	{
		what: "a run that everybody left is the burst's",
		old:  `return true // every caller has left`,
		new:  `return false // every caller has left`,
	},
	{
		what: "a clock that goes back is not noticed",
		old:  `return now < last || `,
		new:  `return `,
	},
	{
		what: "First's quiet is an instant longer",
		old:  `time.Duration(now-last) >= f.quiet`,
		new:  `time.Duration(now-last) > f.quiet`,
	},
	{
		what: "a burst of First has no bound",
		old:  `f.most > 0 && time.Duration(now-ended) >= f.most`,
		new:  `f.most < 0`,
	},
	{
		what: "First's most is an instant longer",
		old:  `f.most > 0 && time.Duration(now-ended) >= f.most`,
		new:  `f.most > 0 && time.Duration(now-ended) > f.most`,
	},
	{
		what: "a burst of First without a bound ends at once",
		old:  `f.most > 0 && time.Duration(now-ended) >= f.most`,
		new:  `time.Duration(now-ended) >= f.most`,
	},
	{
		what: "Last makes a call whose ctx is done",
		old:  "func (l *last[T]) do(ctx context.Context) (T, error) {\n\tif ctx.Err() != nil {",
		new:  "func (l *last[T]) do(ctx context.Context) (T, error) {\n\tif false {",
	},
	{
		what: "who goes when the run begins is told of his ctx while he counts as waiting",
		old:  `if l.leave(b) {`,
		new:  `if l.leave(b); true {`,
	},
	{
		what: "Last takes no lock when a call comes",
		old:  "l.mu.Lock()\n\tdefer l.mu.Unlock()\n\tnow := clock.Now()",
		new:  "now := clock.Now()",
	},
	{
		what: "most does not bound Last",
		old:  `if l.most > 0 {`,
		new:  `if false {`,
	},
	{
		what: "every burst of Last is over at once",
		old:  `if l.most > 0 {`,
		new:  `if true {`,
	},
	{
		what: "callers are not counted",
		old:  `b.callers++`,
		new:  `b.callers = 1`,
	},
	{
		what: "the run has the first call's values",
		old:  `b.values = ctx`,
		new:  "if b.values == nil {\n\t\tb.values = ctx\n\t}",
	},
	{
		what: "quiet is counted from the burst's first call",
		old:  `b.due = min(clock.Add(now, l.quiet), b.latest)`,
		new:  "if fresh {\n\t\tb.due = min(clock.Add(now, l.quiet), b.latest)\n\t}",
	},
	{
		what: "quiet bounds nothing",
		old:  `b.due = min(clock.Add(now, l.quiet), b.latest)`,
		new:  `b.due = b.latest`,
	},
	{
		what:       "each call has a timer",
		old:        "if fresh {\n\t\tl.await(b, now)\n\t}",
		new:        "l.await(b, now)",
		equivalent: "the first timer that is due runs the burst, and the others find it gone: it is a waste only",
	},
	{
		what: "a burst that everybody left is run",
		old:  `if l.burst != b {`,
		new:  `if l.burst == nil && b.run != nil {`,
	},
	{
		what: "a burst runs though calls have come since",
		old:  `if now := clock.Now(); now < b.due {`,
		new:  `if now := clock.Now(); now < 0 {`,
	},
	{
		what: "a burst is late by an instant",
		old:  `if now := clock.Now(); now < b.due {`,
		new:  `if now := clock.Now(); now <= b.due {`,
	},
	{
		what: "who comes while the run lasts is one of its burst",
		old:  `l.burst = nil // who`,
		new:  `// who`,
	},
	{
		what: "a run has one caller",
		old:  `b.values, &l.mu, b.callers, l.effector`,
		new:  `b.values, &l.mu, 1, l.effector`,
	},
	{
		what: "the callers wait for ever",
		old:  `close(b.begun)`,
		new:  ``,
	},
	{
		what: "a burst that everybody left is joined",
		old:  `if b.callers--; b.callers == 0 {`,
		new:  `if b.callers--; b.callers < 0 {`,
	},
	{
		what: "a burst is given up when its last but one goes",
		old:  `if b.callers--; b.callers == 0 {`,
		new:  `if b.callers--; b.callers <= 1 {`,
	},
	{
		what: "a negative quiet is right",
		old:  `case quiet < 0:`,
		new:  `case quiet < -1:`,
	},
	{
		what: "a negative most is right",
		old:  `case most < 0:`,
		new:  `case most < -1:`,
	},
}}
