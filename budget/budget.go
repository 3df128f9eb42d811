// Package budget limits how many extra calls retries and hedges may add to a dependency's load.
//
//	extra := budget.New(budget.Config{Ratio: 0.1}) // at most one extra call for ten calls
//
//	getUser := retry.New(retry.Config{Name: "get user", Budget: extra})
//	getOrder := retry.New(retry.Config{Name: "get order", Budget: extra})
//
// Three attempts for each call treble the load of a dependency at the very moment it fails. With a
// budget, a lone failure is still retried, and when everything fails, the load grows only by the
// budget's share.
//
// Share one Budget among all policies that call the same dependency. Use separate Budgets for
// dependencies that fail independently.
//
// Ratio alone is useless in a program that makes one call a minute: tokens expire before the next
// call. Set MinPerSecond there, or use no budget.
//
// Deposit and Withdraw take no lock and allocate nothing. Each reads the clock and does a few
// atomic operations (BenchmarkDeposit, BenchmarkWithdraw).
package budget

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// A Budget is a token bucket that calls fill and extra calls empty: the retry budget of Twitter's
// Finagle.
//
//   - Each call deposits Ratio tokens, and each extra call withdraws one.
//   - A token that isn't withdrawn within TTL expires.
//   - A separate reserve refills with time, at MinPerSecond.
//
// So the tokens withdrawn in any TTL are at most Ratio times the calls made within it and within
// the TTL before, plus what the reserve supplied. This holds however many goroutines withdraw
// concurrently. Retry withdraws when it decides to retry, before it waits, so with long waits the
// extra calls themselves may bunch up.
//
// Most programs pass a Budget to a policy's Config and call no method. A Budget is created by [New]
// and is safe for concurrent use.
type Budget struct {
	share uint64 // what a call deposits, in millionths of a token
	width int64  // length of an epoch in nanoseconds: a tenth of TTL

	// deposited is all that was ever deposited, and spent is how much of it was withdrawn or has
	// expired, in millionths of a token modulo 2^64. Only Deposit adds to deposited. spent moves
	// only by compare-and-swap, only forward, and never beyond a value of deposited that was read
	// before. So it never passes deposited, and the difference is what may be withdrawn.
	deposited atomic.Uint64
	spent     atomic.Uint64

	// epoch is the newest epoch that any call has seen. marks[e%len(marks)] is the value of
	// deposited when epoch e began. A call that sees a later epoch writes its mark and then moves
	// epoch: see advance.
	epoch atomic.Int64
	marks [16]atomic.Uint64

	// The reserve follows the generic cell rate algorithm. full is the time on [clock.Now] at which
	// the reserve will be full if nothing is withdrawn. A token takes interval to refill; an empty
	// reserve takes burst.
	interval, burst int64
	full            atomic.Int64

	between func() // for tests: called after a withdrawal has read a count or the reserve, before it swaps
}

const (
	token    = 1_000_000 // deposits count in millionths
	lifetime = 10        // epochs that a deposit lives, including its own
	crowded  = 1 << 62   // deposits above this many millionths aren't counted, so that the counters don't wrap
)

// New creates a Budget. It panics with the text of [Config.Validate] if that returns an error.
func New(config Config) *Budget {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	b := &Budget{width: int64(config.TTL) / lifetime}
	// Rounded up, so that n deposits of 1/n make a token. The factor keeps 0.07, which is a little
	// more than seven hundredths in binary, from being rounded up as well.
	b.share = uint64(math.Ceil(config.Ratio * token * (1 - 1e-12)))
	if config.MinPerSecond > 0 {
		b.interval = int64(float64(time.Second) / config.MinPerSecond)
		b.burst = b.interval * int64(config.reserve())
	}
	b.epoch.Store(clock.Now() / b.width)
	return b
}

// Deposit counts a call, which pays for Ratio of an extra one. A policy deposits once for each call
// that was made (see Next.Starts), not for extra calls, and only if no other policy of the call has
// deposited: if next.FirstTime(b) { b.Deposit() }. Retry and hedge do this, so a budget gets one
// deposit for each call, however many of the call's policies share it.
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

// Withdraw takes the token for one extra call, from the deposits or otherwise from the reserve. It
// reports false if there is none; then the extra call must not be made.
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
		// Read after spent: if the difference is too small, it was too small at this moment,
		// whatever other calls spend meanwhile.
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

// advance moves the epochs up to now, spends the deposits that have thereby expired, and returns
// the mark up to which they have. If the epoch hasn't changed it only loads.
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
			// Either this goroutine was delayed, or the clock was set back. In the latter case
			// epochs restart at now, and some deposits expire early.
			if target = clock.Now() / b.width; epoch-target >= int64(len(b.marks)) {
				b.epoch.CompareAndSwap(epoch, target)
			}
			continue
		}
		expired = b.mark(epoch - lifetime + 1).Load()
		if b.epoch.Load() != epoch {
			continue // the slot may now belong to another epoch
		}
		if moved {
			b.expire(expired)
		}
		return expired
	}
}

// step moves epoch one step toward target, or past a gap in which everything expired.
//
// The mark of the next epoch is written before epoch moves. Its value was read while epoch was
// unchanged. So it includes all deposits made before the next epoch began, and none of a call that
// saw the next epoch. Marks only grow. A late writer compares with a mark that it read earlier, so
// it either fails or finds that nothing was deposited since, and changes nothing.
func (b *Budget) step(epoch, target int64) {
	if skip := target - lifetime - 1; epoch < skip {
		// The slots now hold marks older than they should be. Until the next steps have overwritten
		// them, too little expires, never too much.
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

// expire spends everything up to the mark, so that a budget without withdrawals doesn't fill up
// forever.
func (b *Budget) expire(mark uint64) {
	for {
		spent := b.spent.Load()
		if later(spent, mark) == spent || b.spent.CompareAndSwap(spent, mark) {
			return
		}
	}
}

// later returns the later of two counts, modulo 2^64.
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
			// More than everything is missing: either this goroutine was delayed, or the clock was
			// set back. In the latter case the reserve restarts empty.
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
