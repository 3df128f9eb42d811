package main

var testEffectorTable = table{"resiliencetest/effector.go", []fault{
	{
		what: "Returning takes a value for which there is no use",
		old:  "if !e.takesValue {",
		new:  "if false {",
	},
	{
		what: "Failing takes an error for which there is no use",
		old:  "if !e.takesError {",
		new:  "if false {",
	},
	{
		what: "Failing takes nil",
		old:  "if err == nil {\n\t\tpanic",
		new:  "if false {\n\t\tpanic",
	},
	{
		what: "a value is set without the lock",
		old:  "e.mu.Lock()\n\tdefer e.mu.Unlock()\n\te.value = value",
		new:  "e.value = value",
	},
	{
		what: "calls are counted without the lock",
		old:  "e.mu.Lock()\n\te.calls++",
		new:  "e.calls++\n\te.mu.Lock()",
	},
	{
		what: "the number of a call is read without the lock, when others have begun",
		old:  "call := e.calls\n\te.mu.Unlock()",
		new:  "e.mu.Unlock()\n\tcall := e.calls",
	},
	{
		what: "MaxConcurrent is what runs now",
		old:  "e.most = max(e.most, e.running)",
		new:  "e.most = e.running",
	},
	{
		what: "MaxConcurrent does not count the call that begins",
		old:  "e.running++\n\te.most = max(e.most, e.running)",
		new:  "e.most = max(e.most, e.running)\n\te.running++",
	},
	{
		what: "a call that panics runs for ever",
		old:  "defer func() { // panics too\n\t\te.mu.Lock()\n\t\tdefer e.mu.Unlock()\n\t\te.running--\n\t}()\n\treturn e.behave(ctx, call)",
		new:  "value, err := e.behave(ctx, call)\n\te.mu.Lock()\n\tdefer e.mu.Unlock()\n\te.running--\n\treturn value, err",
	},
	{
		what: "FailAfter succeeds once more",
		old:  "return call > n })",
		new:  "return call > n+1 })",
	},
	{
		what: "FailFirst fails once less",
		old:  "return call <= n })",
		new:  "return call < n })",
	},
	{
		what: "FailAfter takes a negative number",
		old:  `mustNotBeNegative("FailAfter: n", n)`,
		new:  ``,
	},
	{
		what: "Flaky takes NaN",
		old:  "if !(rate >= 0 && rate <= 1) {",
		new:  "if rate < 0 || rate > 1 {",
	},
	{
		what: "all seeds of Flaky fail the same calls",
		old:  "rand.NewPCG(seed, uint64(call))",
		new:  "rand.NewPCG(0, uint64(call))",
	},
	{
		what: "the calls of Flaky depend on each other",
		old:  "rand.NewPCG(seed, uint64(call))",
		new:  "rand.NewPCG(seed, uint64(call/2))",
	},
	{
		what: "Flaky fails the calls that should succeed",
		old:  ".Float64() < rate })",
		new:  ".Float64() >= rate })",
	},
	{
		what: "Slow does not hear of its ctx's end",
		old:  "if err := wait(ctx, d); err != nil {\n\t\t\treturn zero, err\n\t\t}\n\t\treturn e.answer()",
		new:  "time.Sleep(d)\n\t\treturn e.answer()",
	},
	{
		what: "Hang fails with the ctx's error though another is set",
		old:  "if _, err := e.fail(); err != nil {\n\t\t\treturn zero, err\n\t\t}\n\t\treturn zero, resilience",
		new:  "return zero, resilience",
	},
	{
		what: "Hang loses the cause of its ctx",
		old:  "return zero, resilience.ContextErr(ctx)",
		new:  "return zero, ctx.Err()",
	},
	{
		what: "IgnoresContext hears of its ctx's end",
		old:  "e.behave = func(context.Context, int) (T, error) {\n\t\ttime.Sleep(d)",
		new:  "e.behave = func(ctx context.Context, _ int) (T, error) {\n\t\t_ = wait(ctx, d)",
	},
	{
		what: "Slow and IgnoresContext succeed though an error is set",
		old:  "if zero, err := e.fail(); err != nil {\n\t\treturn zero, err\n\t}\n\treturn e.succeed()",
		new:  "return e.succeed()",
	},
	{
		what: "Script keeps the caller's steps",
		old:  "steps = slices.Clone(steps)",
		new:  "steps = slices.Clip(steps)",
	},
	{
		what: "Script takes no step",
		old:  "if len(steps) == 0 {",
		new:  "if false {",
	},
	{
		what: "a step without a delay asks its ctx",
		old:  "if step.Delay > 0 {",
		new:  "if step.Delay >= 0 {",
	},
	{
		what: "a step of Times 0 is left out",
		old:  "call -= max(1, step.Times)",
		new:  "call -= step.Times",
	},
	{
		what: "a step is taken once less than it says",
		old:  "if call <= 0 {",
		new:  "if call < 0 {",
	},
	{
		what: "Script begins anew after its last step",
		old:  "return steps[len(steps)-1]",
		new:  "return steps[0]",
	},
	{
		what: "a value stands beside a set error",
		old:  "func (e *Effector[T]) fail() (zero T, err error) {\n\te.mu.Lock()\n\tdefer e.mu.Unlock()\n\treturn zero, e.err",
		new:  "func (e *Effector[T]) fail() (zero T, err error) {\n\te.mu.Lock()\n\tdefer e.mu.Unlock()\n\treturn e.value, e.err",
	},
	{
		what: "a deadline in the same instant goes second, now and then",
		old:  "time.Until(deadline) > d {",
		new:  "time.Until(deadline) >= d {",
	},
	{
		what: "a wait under a ctx that is never done does not end",
		old:  "if !ok || ctx.Done() == nil || time",
		new:  "if !ok || time",
	},
	{
		what: "0 is too little",
		old:  "if value < 0 {",
		new:  "if value <= 0 {",
	},
}}

var testRecorderTable = table{"resiliencetest/recorder.go", []fault{
	{
		what: "a recorder takes a panic for a return",
		old:  "if value != nil {\n\t\t\tpanic(value)\n\t\t}",
		new:  "",
	},
	{
		what: "a panic is told as a Goexit",
		old:  "Goexit: !returned && value == nil}",
		new:  "Goexit: !returned}",
	},
	{
		what: "a Goexit is not told",
		old:  "Goexit: !returned && value == nil}",
		new:  "Goexit: returned && false}",
	},
	{
		what: "a run's starts are those of the whole call",
		old:  "Starts: next.Starts() - starts,",
		new:  "Starts: next.Starts() - 0*starts,",
	},
	{
		what: "times are counted from each run's own begin",
		old:  "if len(r.runs) == 0 {\n\t\tr.first = now",
		new:  "if true {\n\t\tr.first = now",
	},
	{
		what: "runs are written down without the lock",
		old:  "func (r *Recorder) begin() (i int) {\n\tr.mu.Lock()\n\tdefer r.mu.Unlock()",
		new:  "func (r *Recorder) begin() (i int) {",
	},
	{
		what: "a run takes as long as all before it too",
		old:  "time.Since(r.first) - run.Began",
		new:  "time.Since(r.first)",
	},
	{
		what: "when a run began is lost when it ends",
		old:  "run.Began = r.runs[i].Began",
		new:  "",
	},
	{
		what: "a run never ends",
		old:  "run.Ended = true",
		new:  "",
	},
	{
		what: "Runs gives the recorder's own list",
		old:  "return slices.Clone(r.runs)",
		new:  "return slices.Clip(r.runs)",
	},
	{
		what: "an error of a call that was made is told as a refusal",
		old:  "r.Err != nil && r.Starts == 0:",
		new:  "r.Err != nil:",
	},
	{
		what: "a panic's text holds the stack of another goroutine",
		old:  "value = elsewhere.Value",
		new:  "_ = elsewhere",
	},
	{
		what: "an error of several lines breaks the table",
		old:  `strings.ReplaceAll(fmt.Sprint(value), "\n", "; ")`,
		new:  `strings.TrimSpace(fmt.Sprint(value))`,
	},
}}
