// Package budget limits how many extra calls retries and hedges may add to a dependency's load.
//
//	extra := budget.New(budget.Config{Ratio: 0.1}) // at most one extra call for ten calls
//
//	getUser := retry.New(retry.Config{Name: "get user", Budget: extra})
//	getOrder := retry.New(retry.Config{Name: "get order", Budget: extra})
//
// Three attempts a call treble the load of a dependency at the very moment at which it fails. With a budget a lone failure is
// still retried, and when everything fails the load grows by the budget's share only. Give all policies that call one dependency
// the same Budget, and dependencies that fail independently one each.
//
// A budget is of no use to a program that makes a call a minute: there, tokens are gone before the next call. Give it
// MinPerSecond, or none.
//
// Deposit and Withdraw take no lock, allocate nothing and cost a reading of the clock and a few atomic operations (BenchmarkDeposit,
// BenchmarkWithdraw).
package budget

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// A Budget is a token bucket that calls fill and extra calls empty: the retry budget of Twitter's Finagle. Each call
// deposits Ratio tokens, each extra call withdraws one, and a token not withdrawn within TTL is gone; beside this stands a
// reserve that fills by itself at MinPerSecond. So in any TTL the tokens withdrawn are at most Ratio of the calls made within
// it and within the TTL before, plus what the reserve gave: never more, however many goroutines withdraw at once. Retry
// withdraws when it decides, before its wait, so the extra calls themselves can gather where waits are long.
//
// Most callers hand a Budget to a policy's Config and call no method. A Budget is made by [New] and safe for concurrent use.
type Budget struct {
	share uint64 // what a call deposits, in millionths of a token
	width int64  // of an epoch in nanoseconds: a tenth of TTL

	// Millionths of a token, counted modulo 2^64: what was ever deposited, and what of it was withdrawn or has expired.
	// Only Deposit adds to deposited. spent moves by compare-and-swap only, always forwards, and never beyond a value of
	// deposited that was read before: so it never passes deposited, and what lies between is what may be withdrawn.
	deposited atomic.Uint64
	spent     atomic.Uint64

	// epoch is the newest epoch that somebody has seen, and marks[e%len(marks)] is deposited as it was when epoch e began.
	// Whoever sees a later epoch writes its mark and then moves epoch: see advance.
	epoch atomic.Int64
	marks [16]atomic.Uint64

	// The reserve, by the generic cell rate algorithm: full is the time on [clock.Now] at which it will be full again if
	// nothing is taken. A token is interval, an empty reserve is burst away from full.
	interval, burst int64
	full            atomic.Int64

	between func() // a test's: what happens while a withdrawal has read one count, or the reserve, and not yet swapped
}

const (
	token    = 1_000_000 // deposits count in millionths
	lifetime = 10        // epochs that a deposit lives, its own included
	crowded  = 1 << 62   // deposits beyond this many millionths are not counted: far from where the counters would wrap
)

// New makes a Budget. It panics with the text of [Config.Validate] if that finds a mistake.
func New(config Config) *Budget {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	b := &Budget{width: int64(config.TTL) / lifetime}
	// Rounded up, so that n deposits of 1/n make a token; but 0.07, a little more than seven hundredths in binary, is no more.
	b.share = uint64(math.Ceil(config.Ratio * token * (1 - 1e-12)))
	if config.MinPerSecond > 0 {
		b.interval = int64(float64(time.Second) / config.MinPerSecond)
		b.burst = b.interval * int64(config.reserve())
	}
	b.epoch.Store(clock.Now() / b.width)
	return b
}

// Deposit counts a call, which pays for Ratio of an extra one. A policy deposits once for each call that was made
// (Next.Starts tells), not for its extra ones, and only if no other policy of the call has: if next.FirstTime(b) { b.Deposit() }. Retry
// and hedge do so, so that a budget gets one deposit a call, however many of its policies share it.
func (b *Budget) Deposit() {
	if b.share == 0 {
		return
	}
	b.advance(clock.Now())
	spent := b.spent.Load() // before deposited, which it never passes
	if b.deposited.Load()-spent < crowded {
		b.deposited.Add(b.share)
	}
}

// Withdraw takes the token for one extra call, from the deposits or else from the reserve. It reports false if there is
// none: the extra call must not be made then.
func (b *Budget) Withdraw() bool {
	now := clock.Now()
	return b.share > 0 && b.withdrawDeposit(now) || b.interval > 0 && b.withdrawReserve(now)
}

func (b *Budget) withdrawDeposit(now int64) bool {
	for {
		expired := b.advance(now)
		spent := b.spent.Load()
		if b.between != nil {
			b.between()
		}
		// Read after spent: if too little lies between the two, there was too little at this moment, whoever spends meanwhile.
		deposited := b.deposited.Load()
		from := later(spent, expired)
		if int64(deposited-from) < token {
			return false
		}
		if b.spent.CompareAndSwap(spent, from+token) {
			return true
		}
	}
}

// advance brings the epochs up to now, spends what has thereby expired, and returns the mark up to which it has. In an epoch that has been seen
// before it only loads.
//
// A deposit of epoch x expires when epoch x+10 begins: between 0.9 TTL and TTL after it was made.
func (b *Budget) advance(now int64) (expired uint64) {
	target := now / b.width
	for moved := false; ; {
		epoch := b.epoch.Load()
		if epoch < target {
			b.step(epoch, target)
			moved = true
			continue
		}
		if epoch-target >= int64(len(b.marks)) {
			// Either this goroutine slept, or the clock was set back: then epochs begin anew, and some deposits expire early.
			if target = clock.Now() / b.width; epoch-target >= int64(len(b.marks)) {
				b.epoch.CompareAndSwap(epoch, target)
			}
			continue
		}
		expired = b.mark(epoch - lifetime + 1).Load()
		if b.epoch.Load() != epoch {
			continue // the slot may be another epoch's by now
		}
		if moved {
			b.expire(expired)
		}
		return expired
	}
}

// step moves epoch one further towards target, or over a gap in which everything expired.
//
// The mark of the next epoch is written before epoch moves. Its value was read while epoch stood still, so it holds no deposit
// of somebody who saw the next epoch, and all that were made before it began. Marks only grow: a late writer, who compares
// with a mark read earlier, either fails or finds that nothing was deposited since, and changes nothing.
func (b *Budget) step(epoch, target int64) {
	if skip := target - lifetime - 1; epoch < skip {
		// The slots now hold marks older than they should: they expire too little until the steps that follow have
		// overwritten them, and never too much.
		b.epoch.CompareAndSwap(epoch, skip)
		return
	}
	slot := b.mark(epoch + 1)
	old := slot.Load()
	deposited := b.deposited.Load()
	if b.epoch.Load() == epoch && slot.CompareAndSwap(old, deposited) {
		b.epoch.CompareAndSwap(epoch, epoch+1)
	}
}

func (b *Budget) mark(epoch int64) *atomic.Uint64 {
	return &b.marks[uint64(epoch)%uint64(len(b.marks))]
}

// expire spends everything up to the mark, so that a budget from which nobody withdraws does not fill up for ever.
func (b *Budget) expire(mark uint64) {
	for {
		spent := b.spent.Load()
		if later(spent, mark) == spent || b.spent.CompareAndSwap(spent, mark) {
			return
		}
	}
}

// later is the one of two counts that is further on, modulo 2^64.
func later(a, b uint64) uint64 {
	if int64(b-a) > 0 {
		return b
	}
	return a
}

func (b *Budget) withdrawReserve(now int64) bool {
	for {
		full := b.full.Load()
		if b.between != nil {
			b.between()
		}
		missing := max(full-now, 0)
		if missing > b.burst {
			// More than all is missing: this goroutine slept, or the clock was set back. Then the reserve begins anew, empty.
			if now = clock.Now(); full-now > b.burst {
				b.full.CompareAndSwap(full, now+b.burst)
			}
			continue
		}
		if missing > b.burst-b.interval {
			return false
		}
		if b.full.CompareAndSwap(full, now+missing+b.interval) {
			return true
		}
	}
}
