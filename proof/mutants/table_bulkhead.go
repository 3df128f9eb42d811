package main

var bulkheadTable = table{"bulkhead/bulkhead.go", []fault{
	{
		what: "a call for which there is no room is let in",
		old:  `func room(word uint64) bool   { return running(word) < limitOf(word) }`,
		new:  `func room(word uint64) bool   { return running(word) <= limitOf(word) }`,
	},
	{
		what: "Do takes a place for a call whose ctx is done",
		old:  "if ctx.Err() != nil {\n\t\treturn resilience.ContextErr(ctx)\n\t}\n\tif b.enterAtOnce() {",
		new:  "if b.enterAtOnce() {",
	},
	{
		what: "a call of Do that panics keeps its place",
		old:  "defer b.leave() // panics and Goexit too\n\treturn fn(ctx)",
		new:  "value, err := fn(ctx)\n\tb.leave()\n\treturn value, err",
	},
	{
		what: "a call in a pipeline that panics keeps its place",
		old:  "defer b.leave() // panics and Goexit too\n\treturn next.Run(ctx)",
		new:  "err := next.Run(ctx)\n\tb.leave()\n\treturn err",
	},
	{
		what: "a permit is released as often as somebody says so",
		old:  `if p.bulkhead != nil && !p.released.Swap(true) {`,
		new:  `if p.bulkhead != nil {`,
	},
	{
		what: "a released permit is looked at and then marked, in two steps",
		old:  `if p.bulkhead != nil && !p.released.Swap(true) {`,
		new:  "if p.bulkhead != nil && !p.released.Load() {\n\t\tp.released.Store(true)",
	},
	{
		what: "a place is stored where it must be swapped",
		old:  `{ return b.word.CompareAndSwap(word, word+one) }`,
		new:  `{ b.word.Store(word + one); return true }`,
	},
	{
		what: "the ctx's end does not wake a waiter",
		old:  "case <-ctx.Done():\n\tcase <-tooLong:",
		new:  "case <-tooLong:",
	},
	{
		what: "a place goes before the ctx's end",
		old:  "if ctx.Err() != nil {\n\t\tb.giveUp(w)",
		new:  "if ctx.Err() != nil && !b.stepOut(w) {\n\t\treturn nil\n\t}\n\tif ctx.Err() != nil {",
	},
	{
		what: "one whose ctx ended as it was served keeps the place",
		old:  "if !b.stepOut(w) {\n\t\tb.leave()\n\t}",
		new:  "b.stepOut(w)",
	},
	{
		what: "one whose ctx ended stays in the queue",
		old:  "b.giveUp(w)\n",
		new:  "",
	},
	{
		what: "one who has waited for MaxWait is let in",
		old:  "if b.stepOut(w) {\n\t\treturn b.full(time.Since(began))\n\t}",
		new:  "b.stepOut(w)\n\t_ = began",
	},
	{
		what: "MaxWait is no bound",
		old:  `if b.maxWait > 0 {`,
		new:  `if b.maxWait < 0 {`,
	},
	{
		what: "one more may wait",
		old:  `case b.waiters.Len() >= b.queue:`,
		new:  `case b.waiters.Len() > b.queue:`,
	},
	{
		what: "who waits does not say so",
		old:  `case b.word.CompareAndSwap(word, word|waiting): // from`,
		new:  `case b.word.CompareAndSwap(word, word): // from`,
	},
	{
		what: "who leaves does not look for those who wait",
		old:  `if word&waiting != 0 {`,
		new:  `if false {`,
	},
	{
		what: "a place that is given back is stored where it must be swapped",
		old:  `{ return b.word.CompareAndSwap(word, word-one) }`,
		new:  `{ b.word.Store(word - one); return true }`,
	},
	{
		what: "only one waiter is let in at a time",
		old:  `limitOf(next)-running(next)))`,
		new:  `limitOf(next)-running(next), 1))`,
	},
	{
		what: "waiters are let in wherever the limit is above none",
		old:  `limitOf(next)-running(next)))`,
		new:  `limitOf(next)))`,
	},
	{
		what: "waiters who are let in are not counted",
		old:  "next += uint64(let) * one\n",
		new:  "",
	},
	{
		what:       "the mark stays when nobody waits any more",
		old:        `if let == b.waiters.Len() {`,
		new:        `if false {`,
		equivalent: "who leaves takes the lock for nothing, and finds nobody: only the time is lost",
	},
	{
		what: "the mark goes while somebody waits",
		old:  `if let == b.waiters.Len() {`,
		new:  `if true {`,
	},
	{
		what: "a change is stored where it must be swapped",
		old:  `if !b.word.CompareAndSwap(word, next) {`,
		new:  `if b.word.Store(next); false {`,
	},
	{
		what: "Resize forgets who runs",
		old:  `return word&(1<<limitShift-1) | uint64(limit)<<limitShift })`,
		new:  `return uint64(limit) << limitShift })`,
	},
	{
		what: "Resize lets nobody in",
		old:  "b.change(func(word uint64) uint64 { return word&(1<<limitShift-1) | uint64(limit)<<limitShift })",
		new:  "word := b.word.Load()\n\tb.word.Store(word&(1<<limitShift-1) | uint64(limit)<<limitShift)",
	},
	{
		what: "Snapshot tells of the limit as it was made",
		old:  `return Snapshot{b.name, limitOf(word), b.queue, running(word), b.waiters.Len()}`,
		new:  `return Snapshot{b.name, b.queue, b.queue, running(word), b.waiters.Len()}`,
	},
}}

var bulkheadConfigTable = table{"bulkhead/config.go", []fault{
	{
		what: "the largest limit is a mistake",
		old:  `limit > math.MaxInt32 {`,
		new:  `limit >= math.MaxInt32 {`,
	},
	{
		what: "a negative queue is no mistake",
		old:  `if c.Queue < 0 {`,
		new:  `if false {`,
	},
	{
		what: "a negative MaxWait is no mistake",
		old:  `if c.MaxWait < 0 {`,
		new:  `if false {`,
	},
}}

var fifoTable = table{"internal/fifo/fifo.go", []fault{
	{
		what: "a waiter is put first",
		old:  "q.last.next = w\n\t}\n\tq.last = w",
		new:  "q.first.prev, w.next, w.prev = w, q.first, nil\n\t\tq.first = w\n\t\tq.length++\n\t\treturn w\n\t}\n\tq.last = w",
	},
	{
		what: "a waiter is removed twice",
		old:  "w.waits = false\n",
		new:  "",
	},
	{
		what: "the last one's place is kept when it goes",
		old:  `q.last = w.prev`,
		new:  `q.last = w`,
	},
	{
		what: "one who goes is not counted off",
		old:  "q.length--\n",
		new:  "",
	},
	{
		what: "who is taken out is not told",
		old:  "close(w.Ready)\n",
		new:  "",
	},
}}
