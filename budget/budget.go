// Package budget limits how many extra calls retries and hedges may add to a dependency's load.
//
//	extra := budget.New(budget.Config{Ratio: 0.1}) // at most one extra call for ten calls
//
//	getUser := retry.New(retry.Config{Name: "get user", Budget: extra})
//	getOrder := retry.New(retry.Config{Name: "get order", Budget: extra})
//
// Three attempts for each call triple the load of a dependency at the very moment it fails. With a
// budget, an isolated failure is still retried, and when everything fails, the load grows only by
// the budget's share.
//
// Share one Budget among all policies that call the same dependency. Use separate Budgets for
// dependencies that fail independently.
//
// Ratio alone is useless in a program that makes one call a minute: tokens expire before the next
// call. Set MinPerSecond there, or use no budget.
//
// Deposit and Withdraw take no lock and allocate nothing. Each reads the clock and does a few
// atomic operations (BenchmarkDeposit, BenchmarkWithdraw). Withdraw waits only if SetConfig is
// changing the reserve at that moment.
package budget

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/describe"
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
	settings atomic.Pointer[settings] // written by SetConfig only

	// deposited is all that was ever deposited, and spent is how much of it was withdrawn or has
	// expired, in millionths of a token modulo 2^64. Only Deposit adds to deposited. spent moves
	// only by compare-and-swap, only forward, and never beyond a value of deposited that was read
	// before. So it never passes deposited, and the difference is what may be withdrawn.
	deposited atomic.Uint64
	spent     atomic.Uint64

	mu      sync.Mutex // serializes SetConfig and guards the following
	reserve *reserve   // the latest one, also while MinPerSecond is 0; nil if there was none

	between func() // for tests: called after a withdrawal has read a count or the reserve, before it swaps
}

// settings is a Config and the state that depends on it. Its fields are never changed.
type settings struct {
	config   Config // with its defaults
	share    uint64 // what a call deposits, in millionths of a token
	deposits bool   // there may be deposits: Ratio is or was positive
	epochs   *epochs
	reserve  *reserve // nil without MinPerSecond
}

// epochs remembers how many deposits are how old, for one TTL.
type epochs struct {
	width int64 // length of an epoch in nanoseconds: a tenth of TTL

	// latest is the newest epoch that any call has seen. marks[e%len(marks)] is the value of
	// deposited when epoch e began. A call that sees a later epoch writes its mark and then moves
	// latest: see advance. Once a SetConfig has replaced the epochs, latest is closed.
	latest atomic.Int64
	marks  [16]atomic.Uint64
}

// A reserve follows the generic cell rate algorithm.
type reserve struct {
	interval int64 // time that a token takes to refill
	burst    int64 // time that an empty reserve takes to refill

	// full is the time on [clock.Now] at which the reserve will be full if nothing is withdrawn.
	// Once a SetConfig replaces the reserve, it is -closed.
	full atomic.Int64
}

const (
	token    = 1_000_000     // deposits count in millionths
	lifetime = 10            // epochs that a deposit lives, including its own
	crowded  = 1 << 62       // deposits above this many millionths aren't counted, so that the counters don't wrap
	closed   = math.MaxInt64 // an epoch and, negative, a time that no clock reaches
)

// New creates a Budget. It panics with the text of [Config.Validate] if that returns an error.
func New(config Config) *Budget {
	b := new(Budget)
	if err := b.SetConfig(config); err != nil {
		panic(err.Error())
	}
	return b
}

// Name returns the Config's Name.
func (b *Budget) Name() string { return b.settings.Load().config.Name }

// Config returns the Config in use, with the defaults filled in.
func (b *Budget) Config() Config { return b.settings.Load().config }

// SetConfig replaces the Config. If the config is invalid, SetConfig changes nothing and returns the
// error of [Config.Validate]. It is safe for concurrent use.
//
//   - Deposited tokens remain, even if the new Ratio is 0. A new TTL counts from now, for them too.
//   - What was taken from the reserve stays taken: a reserve that lacked some tokens still lacks as
//     many, or is empty if it has become smaller than that. It refills at the new rate, or at the
//     previous one while MinPerSecond is 0.
func (b *Budget) SetConfig(config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	config = config.withDefaults()
	b.mu.Lock()
	defer b.mu.Unlock()
	now := clock.Now()
	old := b.settings.Load()
	if old == nil { // in New
		old = new(settings)
	}
	s := &settings{config: config, share: config.share()}
	s.deposits = s.share > 0 || old.deposits
	s.epochs = b.newEpochs(old.epochs, int64(config.TTL)/lifetime, now)
	if config.MinPerSecond > 0 {
		interval := int64(float64(time.Second) / config.MinPerSecond)
		s.reserve = newReserve(b.reserve, interval, interval*int64(config.reserve()), now)
		b.reserve = s.reserve
	}
	b.settings.Store(s)
	if old.epochs != nil && old.epochs != s.epochs {
		// After settings, so that a call that finds them closed finds the new ones.
		old.epochs.latest.Store(closed)
	}
	return nil
}

// newEpochs returns epochs of the width: old if it has that width, otherwise ones in which
// everything that hasn't expired counts as deposited now.
func (b *Budget) newEpochs(old *epochs, width, now int64) *epochs {
	if old != nil {
		if old.width == width {
			return old
		}
		b.expire(b.advance(old, now))
	}
	e := &epochs{width: width}
	e.latest.Store(now / width)
	spent := b.spent.Load()
	for i := range e.marks {
		e.marks[i].Store(spent)
	}
	return e
}

// newReserve returns a reserve that lacks as many tokens as old does, at most all, and closes old.
// It returns old itself if nothing changes. If there is no old reserve, the new one is full.
func newReserve(old *reserve, interval, burst, now int64) *reserve {
	if old != nil && old.interval == interval && old.burst == burst {
		return old
	}
	r := &reserve{interval: interval, burst: burst}
	if old != nil {
		missing := min(max(old.full.Swap(-closed)-now, 0), old.burst)
		tokens := float64(missing) / float64(old.interval)
		r.full.Store(now + min(int64(math.Round(tokens*float64(interval))), burst))
	}
	return r
}

// Report describes the budget: its value tokens is what is left of the deposits, without the reserve.
func (b *Budget) Report() resilience.Report {
	s := b.settings.Load()
	return resilience.Report{
		Kind: "budget", Name: s.config.Name, Config: describe.Config(s.config),
		Values: []resilience.Value{{Name: "tokens", Unit: "{token}", Value: float64(b.left(s.epochs)) / token}},
	}
}

// left returns what is left of the deposits, in millionths of a token.
func (b *Budget) left(e *epochs) uint64 {
	expired := b.advance(e, clock.Now())
	spent := b.spent.Load() // before deposited, which it never passes
	return b.deposited.Load() - later(spent, expired)
}

// Deposit counts a call, which pays for Ratio of an extra one. A policy deposits once for each call
// that was made (see Next.Starts), not for extra calls, and only if no other policy of the call has
// deposited: if next.FirstTime(b) { b.Deposit() }. Retry and hedge do this, so a budget gets one
// deposit for each call, however many of the call's policies share it.
func (b *Budget) Deposit() {
	s := b.settings.Load()
	if s.share == 0 {
		return
	}
	b.advance(s.epochs, clock.Now())
	spent := b.spent.Load() // before deposited, which it never passes
	if b.deposited.Load()-spent < crowded {
		b.deposited.Add(s.share)
	}
}

// Withdraw takes the token for one extra call, from the deposits or otherwise from the reserve. It
// reports false if there is none; then the extra call must not be made.
func (b *Budget) Withdraw() bool { return b.withdraw(b.settings.Load()) }

func (b *Budget) withdraw(s *settings) bool {
	now := clock.Now()
	return s.deposits && b.withdrawDeposit(s.epochs, now) || s.reserve != nil && b.withdrawReserve(s.reserve, now)
}

func (b *Budget) withdrawDeposit(e *epochs, now int64) bool {
	for {
		expired := b.advance(e, now)
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
func (b *Budget) advance(e *epochs, now int64) (expired uint64) {
	target := now / e.width
	for moved := false; ; {
		epoch := e.latest.Load()
		if epoch < target {
			b.step(e, epoch, target)
			moved = true
			continue
		}
		if epoch-target >= int64(len(e.marks)) {
			if epoch == closed {
				e = b.settings.Load().epochs
				target = now / e.width
				continue
			}
			// Either this goroutine was delayed, or the clock was set back. In the latter case
			// epochs restart at now, and some deposits expire early.
			if target = clock.Now() / e.width; epoch-target >= int64(len(e.marks)) {
				e.latest.CompareAndSwap(epoch, target)
			}
			continue
		}
		expired = e.mark(epoch - lifetime + 1).Load()
		if e.latest.Load() != epoch {
			continue // the slot may now belong to another epoch, or SetConfig has replaced e
		}
		if moved {
			b.expire(expired)
		}
		return expired
	}
}

// step moves latest one step toward target, or past a gap in which everything expired.
//
// The mark of the next epoch is written before latest moves. Its value was read while latest was
// unchanged. So it includes all deposits made before the next epoch began, and none of a call that
// saw the next epoch. Marks only grow. A late writer compares with a mark that it read earlier, so
// it either fails or finds that nothing was deposited since, and changes nothing.
func (b *Budget) step(e *epochs, epoch, target int64) {
	if skip := target - lifetime - 1; epoch < skip {
		// The slots now hold marks older than they should be. Until the next steps have overwritten
		// them, too little expires, never too much.
		e.latest.CompareAndSwap(epoch, skip)
		return
	}
	slot := e.mark(epoch + 1)
	old := slot.Load()
	deposited := b.deposited.Load()
	if e.latest.Load() == epoch && slot.CompareAndSwap(old, deposited) {
		e.latest.CompareAndSwap(epoch, epoch+1)
	}
}

func (e *epochs) mark(epoch int64) *atomic.Uint64 {
	return &e.marks[uint64(epoch)%uint64(len(e.marks))]
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

// changed returns the settings after the SetConfig that is running.
func (b *Budget) changed() *settings {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.settings.Load()
}

func (b *Budget) withdrawReserve(r *reserve, now int64) bool {
	for {
		full := r.full.Load()
		if full == -closed {
			return b.withdraw(b.changed())
		}
		if b.between != nil {
			b.between()
		}
		missing := max(full-now, 0)
		if missing > r.burst {
			// More than everything is missing: either this goroutine was delayed, or the clock was
			// set back. In the latter case the reserve restarts empty.
			if now = clock.Now(); full-now > r.burst {
				r.full.CompareAndSwap(full, now+r.burst)
			}
			continue
		}
		if missing > r.burst-r.interval {
			return false
		}
		if r.full.CompareAndSwap(full, now+missing+r.interval) {
			return true
		}
	}
}
