package main

var budgetTable = table{"budget/budget.go", []fault{
	{
		what: "a share of a token is rounded down",
		old:  `math.Ceil(config.Ratio * token * (1 - 1e-12))`,
		new:  `math.Floor(config.Ratio * token * (1 - 1e-12))`,
	},
	{
		what: "a ratio a little above its millionths in binary pays a millionth more",
		old:  `math.Ceil(config.Ratio * token * (1 - 1e-12))`,
		new:  `math.Ceil(config.Ratio * token)`,
	},
	{
		what: "an epoch is a ninth of TTL",
		old:  `width: int64(config.TTL) / lifetime}`,
		new:  `width: int64(config.TTL) / (lifetime - 1)}`,
	},
	{
		what: "the number of deposits is read before the number of those spent",
		old:  "spent := b.spent.Load() // before deposited, which it never passes\n\tif b.deposited.Load()-spent < crowded {",
		new:  "deposited := b.deposited.Load()\n\tif deposited-b.spent.Load() < crowded {",
	},
	{
		what: "deposits have no bound",
		old:  `if b.deposited.Load()-spent < crowded {`,
		new:  `if spent == spent {`,
	},
	{
		what: "a deposit is stored where it must be added",
		old:  `b.deposited.Add(b.share)`,
		new:  `b.deposited.Store(b.deposited.Load() + b.share)`,
	},
	{
		what: "Withdraw takes from the reserve first",
		old:  `return b.share > 0 && b.withdrawDeposit(now) || b.interval > 0 && b.withdrawReserve(now)`,
		new:  `return b.interval > 0 && b.withdrawReserve(now) || b.share > 0 && b.withdrawDeposit(now)`,
	},
	{
		what: "what was spent is read after what was deposited",
		old: `spent := b.spent.Load()
		if b.between != nil {
			b.between()
		}
		// Read after spent: if the difference is too small, it was too small at this moment,
		// whatever other calls spend meanwhile.
		deposited := b.deposited.Load()`,
		new: `deposited := b.deposited.Load()
		if b.between != nil {
			b.between()
		}
		spent := b.spent.Load()`,
	},
	{
		what: "expired deposits can be withdrawn",
		old:  `from := later(spent, expired)`,
		new:  `from := later(spent, spent+0*expired)`,
	},
	{
		what: "a withdrawal needs more than one token",
		old:  `if int64(deposited-from) < token {`,
		new:  `if int64(deposited-from) <= token {`,
	},
	{
		what: "a withdrawal is stored where it must be swapped",
		old:  `if b.spent.CompareAndSwap(spent, from+token) {`,
		new:  `if b.spent.Store(from + token); true {`,
	},
	{
		what: "a clock that went back far is not noticed",
		old:  `if epoch-target >= int64(len(b.marks)) {`,
		new:  `if false {`,
	},
	{
		what: "a deposit lives an epoch longer",
		old:  `expired = b.mark(epoch - lifetime + 1).Load()`,
		new:  `expired = b.mark(epoch - lifetime).Load()`,
	},
	{
		what: "a deposit lives an epoch less",
		old:  `expired = b.mark(epoch - lifetime + 1).Load()`,
		new:  `expired = b.mark(epoch - lifetime + 2).Load()`,
	},
	{
		what: "deposits that nobody withdraws do not expire",
		old:  `if moved {`,
		new:  `if moved && false {`,
	},
	{
		what: "too many epochs are skipped after a pause",
		old:  `if skip := target - lifetime - 1; epoch < skip {`,
		new:  `if skip := target - lifetime + 1; epoch < skip {`,
	},
	{
		what:       "one epoch more is skipped after a pause",
		old:        `if skip := target - lifetime - 1; epoch < skip {`,
		new:        `if skip := target - lifetime; epoch < skip {`,
		equivalent: "the step after the skip writes the oldest mark that is asked for; the one before is to spare",
	},
	{
		what: "a mark is what was deposited when the epoch before began",
		old:  `slot.CompareAndSwap(old, deposited) {`,
		new:  `slot.CompareAndSwap(old, b.mark(epoch).Load()+0*deposited) {`,
	},
	{
		what: "counts are compared without regard to their wrapping",
		old:  `if int64(b-a) > 0 {`,
		new:  `if b > a {`,
	},
	{
		what: "the reserve gathers more than it holds",
		old:  `missing := max(full-now, 0)`,
		new:  `missing := full - now`,
	},
	{
		what: "the reserve keeps its last token",
		old:  `if missing > b.burst-b.interval {`,
		new:  `if missing >= b.burst-b.interval {`,
	},
	{
		what: "the reserve gives a token too many",
		old:  `if missing > b.burst-b.interval {`,
		new:  `if missing > b.burst {`,
	},
	{
		what: "a withdrawal from the reserve is stored where it must be swapped",
		old:  `if b.full.CompareAndSwap(full, now+missing+b.interval) {`,
		new:  `if b.full.Store(now + missing + b.interval); true {`,
	},
}}

var budgetConfigTable = table{"budget/config.go", []fault{
	{
		what: "the largest ratio is a mistake",
		old:  `c.Ratio <= maxRatio)`,
		new:  `c.Ratio < maxRatio)`,
	},
	{
		what: "the smallest ratio is a mistake",
		old:  `c.Ratio >= minRatio`,
		new:  `c.Ratio > minRatio`,
	},
	{
		what: "a NaN is a ratio",
		old:  `if !(c.Ratio == 0 || c.Ratio >= minRatio && c.Ratio <= maxRatio) {`,
		new:  `if c.Ratio != 0 && (c.Ratio < minRatio || c.Ratio > maxRatio) {`,
	},
	{
		what: "a reserve of one token is a mistake",
		old:  `c.withDefaults().reserve() < 1:`,
		new:  `c.withDefaults().reserve() <= 1:`,
	},
	{
		what: "a reserve a little below whole tokens in binary has one less",
		old:  `c.TTL.Seconds() * (1 + 1e-12))`,
		new:  `c.TTL.Seconds())`,
	},
}}
