package main

var sharedTable = table{"internal/shared/shared.go", []fault{
	{
		what: "a run ends with the caller who began it",
		old:  `context.WithCancel(context.WithoutCancel(ctx))`,
		new:  `context.WithCancel(ctx)`,
	},
	{
		what: "a run has nobody's values",
		old:  `context.WithCancel(context.WithoutCancel(ctx))`,
		new:  `context.WithCancel(context.Background())`,
	},
	{
		what: "a panic that nobody waits for is kept quiet",
		old:  `return // Given up. Nothing is recovered`,
		new:  "recover()\n\t\t\treturn // Given up. Nothing is recovered",
	},
	{
		what: "callers hear before the panic is there",
		old:  "defer func() {\n\t\t\tr.there.Store(true)\n\t\t\tclose(r.done)\n\t\t}()",
		new:  "r.there.Store(true)\n\t\tclose(r.done)",
	},
	{
		what: "a late caller touches what may be of another bubble",
		old:  "if !r.there.Load() {\n",
		new:  "{\n",
	},
	{
		what: "a panic is the program's",
		old:  `if value := recover(); value != nil {`,
		new:  `if value := any(nil); value != nil {`,
	},
	{
		what: "a Goexit is a return",
		old:  `case !r.returned:`,
		new:  `case false:`,
	},
	{
		what: "who joins or leaves and the end of the run do not wait for one another",
		old:  "func (r *Run[T]) end(settle func(*Run[T])) bool {\n\tr.mu.Lock()\n\tdefer r.mu.Unlock()",
		new:  "func (r *Run[T]) end(settle func(*Run[T])) bool {",
	},
	{
		what: "the ctx of a run that has ended lives on",
		old:  "r.cancel()\n\tr.cancel = nil",
		new:  "r.cancel = nil",
	},
	{
		what: "a run that has ended holds its ctx",
		old:  `r.cancel = nil // the`,
		new:  `// the`,
	},
	{
		what: "a run that was given up has ended like any other",
		old:  `if r.state == givenUp {`,
		new:  `if false {`,
	},
	{
		what: "the owner is not told",
		old:  `if settle != nil {`,
		new:  `if false {`,
	},
	{
		what: "a caller joins a run that has ended, or was given up",
		old:  "if r.state != running {\n\t\treturn false\n\t}\n\tr.callers++",
		new:  "r.callers++",
	},
	{
		what: "one who joins is not counted",
		old:  `r.callers++`,
		new:  ``,
	},
	{
		what: "a run that was given up has ended, for its owner",
		old:  `return r.ended, r.state == ended }`,
		new:  `return r.ended, r.state != running }`,
	},
	{
		what: "an answer leaves the error",
		old:  `r.value, r.err = value, nil`,
		new:  `r.value = value`,
	},
	{
		what: "a caller whose ctx ends waits all the same",
		old:  `case <-ctx.Done():`,
		new:  `case <-context.Background().Done():`,
	},
	{
		what: "who goes when the run has ended takes its panic with him",
		old:  "if r.state != running {\n\t\treturn false\n\t}\n\tif r.callers--",
		new:  "if r.callers--",
	},
	{
		what: "a run that everybody left is not given up",
		old:  `if r.callers--; r.callers == 0 {`,
		new:  `if r.callers--; r.callers < 0 {`,
	},
	{
		what: "a run is given up when its last but one goes",
		old:  `if r.callers--; r.callers == 0 {`,
		new:  `if r.callers--; r.callers <= 1 {`,
	},
	{
		what: "a run that was given up may be joined",
		old:  `r.state = givenUp`,
		new:  ``,
	},
	{
		what: "a run that was given up is not cancelled",
		old:  "r.state = givenUp\n\t\tr.cancel()",
		new:  `r.state = givenUp`,
	},
	{
		what: "a caller leaves without the lock",
		old:  "func (r *Run[T]) leave() bool {\n\tr.mu.Lock()\n\tdefer r.mu.Unlock()",
		new:  "func (r *Run[T]) leave() bool {",
	},
}}

var shareTable = table{"share/share.go", []fault{
	{
		what: "a call whose ctx is done is made",
		old:  `if ctx.Err() != nil {`,
		new:  `if false {`,
	},
	{
		what:       "a fresh value is looked for under the lock only",
		old:        "if kept := c.kept(c.fresh); kept != nil {\n\t\treturn kept.value, nil\n\t}\n\tr, kept",
		new:        "r, kept",
		equivalent: "join looks again: this saves a lock",
	},
	{
		what: "who waited for the lock while the value became fresh runs again",
		old:  "if kept := c.kept(c.fresh); kept != nil {\n\t\treturn nil, kept\n\t}",
		new:  "",
	},
	{
		what: "joining takes no lock",
		old:  "c.mu.Lock()\n\tdefer c.mu.Unlock()\n\tif kept := c.kept(c.fresh)",
		new:  "if kept := c.kept(c.fresh)",
	},
	{
		what: "nobody joins a run",
		old:  `if c.run == nil || !c.run.Join() {`,
		new:  `if true {`,
	},
	{
		what:       "a run that has ended is kept, with its result",
		old:        "c.run = nil\n",
		new:        "",
		equivalent: "nobody can join it: this frees memory",
	},
	{
		what: "the value beside an error is kept",
		old:  `case err == nil:`,
		new:  `case err == nil || true:`,
	},
	{
		what:       "Calls keeps what nobody asks for",
		old:        `case !ok || c.fresh+c.stale == 0:`,
		new:        `case !ok:`,
		equivalent: "a value that is kept for no time is never given: this frees memory",
	},
	{
		what: "what a panic left is kept",
		old:  `case !ok || c.fresh+c.stale == 0:`,
		new:  `case ok && false || c.fresh+c.stale == 0:`,
	},
	{
		what: "a stale value lives for as long as a fresh one",
		old:  `if kept := c.kept(c.fresh + c.stale); kept != nil {`,
		new:  `if kept := c.kept(c.fresh); kept != nil {`,
	},
	{
		what: "fresh does not count for stale",
		old:  `if kept := c.kept(c.fresh + c.stale); kept != nil {`,
		new:  `if kept := c.kept(c.stale); kept != nil {`,
	},
	{
		what: "an error is never answered by a stale value",
		old:  `r.Answer(kept.value)`,
		new:  `_ = kept`,
	},
	{
		what: "a value of a time to come is kept",
		old:  `age < 0 || age >= limit {`,
		new:  `age >= limit {`,
	},
	{
		what: "a value is kept for an instant longer",
		old:  `age < 0 || age >= limit {`,
		new:  `age < 0 || age > limit {`,
	},
	{
		what: "a key without a value is kept",
		old:  `return c.kept(c.fresh+c.stale) == nil`,
		new:  `return false`,
	},
	{
		what: "a key with a value is not kept",
		old:  `return c.kept(c.fresh+c.stale) == nil`,
		new:  `return true`,
	},
}}

var groupTable = table{"share/group.go", []fault{
	{
		what: "a call whose ctx is done has another key fall away",
		old:  `if ctx.Err() != nil {`,
		new:  `if false {`,
	},
	{
		what: "a key is not released by a panic",
		old:  "defer g.calls.ReleaseUnneeded(e, (*call[T]).empty) // a run has users, who wait for it\n\treturn e.Value().do(ctx)",
		new:  "value, err := e.Value().do(ctx)\n\tg.calls.ReleaseUnneeded(e, (*call[T]).empty)\n\treturn value, err",
	},
	{
		what: "a key without a value stays",
		old:  `defer g.calls.ReleaseUnneeded(e, (*call[T]).empty)`,
		new:  `defer g.calls.Release(e)`,
	},
	{
		what: "keys are kept while fresh only",
		old:  `keyed.New[K, *call[T]](config.MaxKeys, config.Fresh+config.Stale)`,
		new:  `keyed.New[K, *call[T]](config.MaxKeys, config.Fresh)`,
	},
	{
		what: "keys are kept for ever",
		old:  `keyed.New[K, *call[T]](config.MaxKeys, config.Fresh+config.Stale)`,
		new:  `keyed.New[K, *call[T]](config.MaxKeys, 0)`,
	},
	{
		what: "Stale is left out",
		old:  `fresh: config.Fresh, stale: config.Stale}, true`,
		new:  `fresh: config.Fresh}, true`,
	},
	{
		what: "without MaxKeys no key is kept",
		old:  `config.MaxKeys = 10_000`,
		new:  `config.MaxKeys = 0`,
	},
	{
		what: "times may run over",
		old:  `mistake(c.Fresh+c.Stale >= 0,`,
		new:  `mistake(true,`,
	},
	{
		what: "Forget does nothing",
		old:  `{ g.calls.Forget(key) }`,
		new:  `{}`,
	},
}}
