package main

var composeTable = table{"compose.go", []fault{
	{
		what: "a pipeline drops the policies that follow it",
		old:  `case len(next.policies) == 0 && !p.nests():`,
		new:  `case !p.nests():`,
	},
	{
		what: "a pipeline writes the policies that follow it into its caller's list",
		old:  `append(p.unnested(flat), next.policies...)`,
		new:  `append(p[:len(p):cap(p)+len(flat)], next.policies...)`,
	},
	{
		what: "the policies of a nested pipeline come first",
		old:  `flat = pipeline.unnested(flat)`,
		new:  `flat = append(pipeline.unnested(nil), flat...)`,
	},
	{
		what: "Compose keeps the caller's list",
		old:  `flat := flatten(nil, "Compose: policies", policies)`,
		new:  `flatten(nil, "Compose: policies", policies)` + "\n\tflat := policies",
	},
	{
		what: "only the outermost policy runs",
		old:  `return do(ctx, flat[0], flat[1:], effector)`,
		new:  `return do(ctx, flat[0], nil, effector)`,
	},
	{
		what: "a nil pointer is a policy",
		old:  `(k == reflect.Pointer || k == reflect.Func)`,
		new:  `(k == reflect.Func)`,
	},
	{
		what: "Do looks only for a nil interface",
		old:  `if !whole(policy) {`,
		new:  `if policy == nil {`,
	},
	{
		what: "Do does not look into nested pipelines for nil",
		old:  `if !whole(p) {`,
		new:  `if p == nil {`,
	},
	{
		what: "AtMostOnce marks nothing",
		old:  `next.facts.atMostOnce = true`,
		new:  ``,
	},
	{
		what: "a Discard policy that is left by panic or Goexit ends nothing",
		old:  "defer func() { end(answered) }() // panics and Goexit too\n\terr := next.Run(ctx)\n\tanswered = err == nil\n",
		new:  "err := next.Run(ctx)\n\tanswered = err == nil\n\tend(answered)\n",
	},
	{
		what: "a Discard policy takes each call for answered",
		old:  `answered = err == nil`,
		new:  `answered = true`,
	},
	{
		what: "a Discard policy takes values that do not fit",
		old:  `want.Kind() == reflect.Interface && t.Implements(want)`,
		new:  `want.Kind() == reflect.Interface`,
	},
}}

var callTable = table{"call.go", []fault{
	{
		what: "a fork under AtMostOnce forgets the effects before it",
		old:  `f.effects+f.inherited == 0`,
		new:  `f.effects == 0`,
	},
	{
		what: "an effect leaves the call repeatable",
		old:  `f.effects+f.inherited == 0`,
		new:  `f.effects+f.inherited <= 1`,
	},
	{
		what: "a call whose ctx is done is made",
		old:  "if ctx.Err() != nil {\n\t\tvar zero T",
		new:  "if false {\n\t\tvar zero T",
	},
	{
		what: "a value beside the error of a policy outside Discard is kept",
		old:  `if err != nil && r.keeper != nil {`,
		new:  `if false {`,
	},
	{
		what: "a start counts once the effector has returned",
		old:  "r.starts++\n\tr.effects++\n\tvalue, err := r.effector(ctx)",
		new:  "value, err := r.effector(ctx)\n\tr.starts++\n\tr.effects++",
	},
	{
		what: "NotMade is not heeded",
		old:  `r.effects--`,
		new:  ``,
	},
	{
		what: "a NotMade mark within another error counts",
		old:  `if _, ok := err.(*notMadeError); ok {`,
		new: `_, ok := err.(*notMadeError)
	if outer, wraps := err.(interface{ Unwrap() error }); wraps && !ok {
		_, ok = outer.Unwrap().(*notMadeError)
	}
	if ok {`,
	},
	{
		what: "a value is overwritten and not dropped",
		old:  "r.keeper.put(r, value)\n\t}\n\treturn err",
		new:  "r.value, r.holds = value, true\n\t}\n\treturn err",
	},
	{
		what: "a fork inherits only its parent's own effects",
		old:  `f.inherited = r.effects + r.inherited`,
		new:  `f.inherited = r.effects`,
	},
	{
		what: "a fork is not under its call's AtMostOnce",
		old:  `f.atMostOnce = r.atMostOnce`,
		new:  ``,
	},
	{
		what: "a fork does not know what was done once in its call",
		old:  `f.marks = r.marks`,
		new:  ``,
	},
	{
		what: "what a fork did once is not known of once it is adopted",
		old:  `r.learn(f.marks)`,
		new:  ``,
	},
	{
		what: "a fork in which the effector was not started has done something once",
		old:  `if f.starts > 0 { // one that made no call has done nothing for it`,
		new:  `if true {`,
	},
	{
		what: "a call knows two things that were done once, and no more",
		old:  `f.marks = append(slices.Clip(marks), key)`,
		new:  `f.marks = append(marks[:1:1], key)`,
	},
	{
		what: "a list of what was done once is changed under a fork that shares it",
		old:  `f.marks = append(slices.Clip(marks), key)`,
		new:  `f.marks = append(marks, key)`,
	},
	{
		what: "the last thing done once is forgotten for the next",
		old:  `f.marks = several{marks, key}`,
		new:  `f.marks = key`,
	},
	{
		what: "a fork tells of the last thing only that it did once",
		old:  `for _, key := range marks {`,
		new:  `for _, key := range marks[len(marks)-1:] {`,
	},
	{
		what: "a fork is no start until it is adopted",
		old:  "r.starts++\n\tr.effects++\n\tif r.ended() {",
		new:  "r.effects++\n\tif r.ended() {",
	},
	{
		what: "a running fork has no effect",
		old:  "r.starts++\n\tr.effects++\n\tif r.ended() {",
		new:  "r.starts++\n\tif r.ended() {",
	},
	{
		what: "a fork is kept by a Discard policy that has returned",
		old:  "if r.ended() {\n\t\tf.keeper = nil",
		new:  "if false {\n\t\tf.keeper = nil",
	},
	{
		what: "nobody looks after a fork that is not adopted",
		old:  `f.keeper.join(f)`,
		new:  ``,
	},
	{
		what: "a fork of another call can be adopted",
		old:  `if f == nil || f.parent != r {`,
		new:  `if f == nil {`,
	},
	{
		what: "a fork can be adopted twice",
		old:  `f.adopted = true`,
		new:  ``,
	},
	{
		what: "an adopted fork counts twice",
		old:  `r.starts += f.starts - 1`,
		new:  `r.starts += f.starts`,
	},
	{
		what: "an adopted fork had one effect more",
		old:  `r.effects += f.effects - 1`,
		new:  `r.effects += f.effects`,
	},
	{
		what: "a fork's AtMostOnce is lost",
		old:  `r.atMostOnce = r.atMostOnce || f.atMostOnce`,
		new:  ``,
	},
	{
		what: "a fork that never ran takes away the value",
		old:  `if f.starts > 0 && r.keeper == nil {`,
		new:  `if r.keeper == nil {`,
	},
	{
		what: "a fork's value is overwritten and not dropped",
		old:  "} else if f.starts > 0 {\n\t\t\tr.keeper.put(r, f.value)",
		new:  "} else if f.starts > 0 {\n\t\t\tr.value, r.holds = f.value, true",
	},
	{
		what: "a call keeps its value though its last result was given up",
		old:  "} else if f.starts > 0 {\n\t\tr.discard()",
		new:  "} else if false {\n\t\tr.discard()",
	},
	{
		what: "forks join without the lock",
		old:  "k.mu.Lock()\n\tdefer k.mu.Unlock()\n\tk.forks = append(k.forks, fork)",
		new:  "k.forks = append(k.forks, fork)",
	},
	{
		what: "what a fork yields to nobody is kept",
		old:  `if !k.gone || r == k.owner {`,
		new:  `if true {`,
	},
	{
		what: "a value that comes after the Discard policy has returned is dropped",
		old:  `if !k.gone || r == k.owner {`,
		new:  `if !k.gone {`,
	},
	{
		what: "values are dropped under the lock",
		old:  "k.mu.Unlock()\n\tif holds {\n\t\tk.drop(drop)\n\t}",
		new:  "defer k.mu.Unlock()\n\tif holds {\n\t\tk.drop(drop)\n\t}",
	},
	{
		what: "values are taken without the lock",
		old:  "k.mu.Lock()\n\tdefer k.mu.Unlock()\n\tvalue, holds = r.value, r.holds",
		new:  "value, holds = r.value, r.holds",
	},
	{
		what: "a value that was taken is still held",
		old:  `r.value, r.holds = zero, false`,
		new:  `r.value = zero`,
	},
	{
		what: "a value that was dropped goes to the caller",
		old:  `r.value, r.holds = zero, false`,
		new:  `_, r.holds = zero, false`,
	},
	{
		what: "a Discard policy that returned waits for forks",
		old:  `k.gone = true`,
		new:  ``,
	},
	{
		what: "the answer is dropped",
		old:  `if !answered {`,
		new:  `if true {`,
	},
	{
		what: "a panic in drop leaves other forks' values undropped",
		old:  `defer f.discard() // each, even if drop panics`,
		new:  `f.discard()`,
	},
	{
		what: "a fork looks without the lock whether its caller's Discard policy has returned",
		old:  `r.keeper != nil && r.keeper.owner == r && r.keeper.gone }`,
		new:  `r.keeper != nil && r.keeper.gone }`,
	},
	{
		what: "of several Discard policies the innermost hears",
		old:  `if r.keeper != nil && !r.ended() {`,
		new:  `if false {`,
	},
	{
		what: "a Discard policy works once a call",
		old:  `if r.keeper != nil && !r.ended() {`,
		new:  `if r.keeper != nil {`,
	},
}}

var resilienceTable = table{"resilience.go", []fault{
	{
		what: "Check looks at failed calls too",
		old:  "if err == nil {\n\t\t\terr = check(value)",
		new:  "if true {\n\t\t\terr = check(value)",
	},
	{
		what: "a fork runs the effector only",
		old:  `Next{n.facts.call.fork(), n.policies} }`,
		new:  `Next{n.facts.call.fork(), nil} }`,
	},
	{
		what: "WithRetryAfter makes an error of nil",
		old:  "if err == nil {\n\t\treturn nil\n\t}\n\treturn &retryAfterError",
		new:  "return &retryAfterError",
	},
	{
		what: "WithRetryAfter hides its error",
		old:  `func (e *retryAfterError) Unwrap() error             { return e.error }`,
		new:  `func (e *retryAfterError) Unwrap() error             { return nil }`,
	},
	{
		what: "a RetryAfter of nothing is told",
		old:  `after > 0 {`,
		new:  `after >= 0 {`,
	},
	{
		what: "NotMade hides its error",
		old:  `func (e *notMadeError) Unwrap() error { return e.error }`,
		new:  `func (e *notMadeError) Unwrap() error { return nil }`,
	},
	{
		what: "the cause of an ended ctx is lost",
		old:  `if cause == nil || cause == err {`,
		new:  `if cause != nil {`,
	},
	{
		what: "the error of an ended ctx is lost",
		old:  `return []error{e.err, e.cause} }`,
		new:  `return []error{e.cause} }`,
	},
	{
		what: "a cancellation is a timeout",
		old:  `return e.err == context.DeadlineExceeded }`,
		new:  `return e.err != nil }`,
	},
}}
