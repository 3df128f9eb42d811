package main

var throttleTable = table{"throttle/throttle.go", []fault{
	{
		what: "Do makes a call whose ctx is done",
		old:  `if ctx.Err() != nil {`,
		new:  `if false {`,
	},
	{
		what: "Do takes no token",
		old:  "if err := t.take(); err != nil {\n\t\treturn zero, err\n\t}",
		new:  "",
	},
	{
		what: "Run takes no token",
		old:  "if err := t.take(); err != nil {\n\t\treturn err\n\t}",
		new:  "",
	},
	{
		what: "a bucket is empty at first",
		old:  `tokens: config.Max}`,
		new:  `tokens: 0}`,
	},
	{
		what: "Snapshot puts no tokens in",
		old:  "t.refill(clock.Now())\n\treturn Snapshot",
		new:  "return Snapshot",
	},
	{
		what: "Snapshot takes no lock",
		old:  "t.mu.Lock()\n\tdefer t.mu.Unlock()\n\tt.refill(clock.Now())",
		new:  "t.refill(clock.Now())",
	},
	{
		what: "a call takes no lock",
		old:  "t.mu.Lock()\n\tdefer t.mu.Unlock()\n\tnow := clock.Now()",
		new:  "now := clock.Now()",
	},
	{
		what: "the last token is not given",
		old:  `if t.tokens == 0 {`,
		new:  `if t.tokens <= 1 {`,
	},
	{
		what: "the next tokens come a refill later",
		old:  `(t.refills+1)*int64(t.config.Every)`,
		new:  `(t.refills+2)*int64(t.config.Every)`,
	},
	{
		what: "the next tokens come when the last came",
		old:  `(t.refills+1)*int64(t.config.Every)`,
		new:  `t.refills*int64(t.config.Every)`,
	},
	{
		what: "a call takes nothing",
		old:  `t.tokens--`,
		new:  ``,
	},
	{
		what: "a clock that goes back is not noticed",
		old:  `if now < t.began || refills < t.refills {`,
		new:  `if false {`,
	},
	{
		what: "a clock that goes back to after the beginning is not noticed",
		old:  `if now < t.began || refills < t.refills {`,
		new:  `if now < t.began {`,
	},
	{
		what: "where the clock went back the next tokens come with the next call",
		old:  `t.began, t.refills = now, 0`,
		new:  `t.began, t.refills = now-int64(t.config.Every), 0`,
	},
	{
		what: "a refill brings one token",
		old:  `come*int64(t.config.Refill)`,
		new:  `come`,
	},
	{
		what: "tokens beyond Max are kept",
		old:  `min(missing, come*int64(t.config.Refill))`,
		new:  `come*int64(t.config.Refill)`,
	},
	{
		what:       "as many refills as tokens are missing fill it to one less",
		old:        `come >= missing {`,
		new:        `come > missing+1 {`,
		equivalent: "it is a bound for the product: each refill brings one token at least",
	},
	{
		what: "many refills run over",
		old:  `come >= missing {`,
		new:  `come < 0 {`,
	},
	{
		what: "refills come again and again",
		old:  "t.refills = refills\n}",
		new:  "}",
	},
}}

var throttleConfigTable = table{"throttle/config.go", []fault{
	{
		what: "a Max of 1 is a mistake",
		old:  `c.Max >= 1 &&`,
		new:  `c.Max > 1 &&`,
	},
	{
		what: "any Max is right",
		old:  `c.Max <= maxTokens`,
		new:  `c.Max > 0`,
	},
	{
		what: "a Refill of 1 is a mistake",
		old:  `c.Refill >= 1 &&`,
		new:  `c.Refill > 1 &&`,
	},
	{
		what: "any Refill is right",
		old:  `c.Refill <= maxTokens`,
		new:  `c.Refill > 0`,
	},
	{
		what: "the shortest Every is a mistake",
		old:  `c.Every >= earliest`,
		new:  `c.Every > earliest`,
	},
}}

var throttleErrorsTable = table{"throttle/errors.go", []fault{
	{
		what: "an Error is no refusal",
		old:  `return target == ErrThrottled || target == resilience.ErrRefused`,
		new:  `return target == ErrThrottled || target == nil && resilience.ErrRefused == nil`,
	},
	{
		what: "an Error is not ErrThrottled",
		old:  `return target == ErrThrottled || target == resilience.ErrRefused`,
		new:  `return target == resilience.ErrRefused`,
	},
	{
		what: "RetryAfter is below zero once tokens have come",
		old:  `return max(0, time.Duration(e.until-clock.Now()))`,
		new:  `return time.Duration(e.until - clock.Now())`,
	},
}}
