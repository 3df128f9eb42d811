// Package budget compares the budget with two plain lists of tokens: one that loses them as early
// as the budget may, and one that loses them as late as it may.
package budget

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/proof/internal/cases"
)

// A list holds deposits, oldest first, with what is left of each in millionths of a token.
type list struct {
	lives    time.Duration // how long a deposit lives
	deposits []deposit
}

type deposit struct {
	at   time.Time
	left int64
}

// change gives the deposits that haven't expired a new age of zero, and another life.
func (l *list) change(lives time.Duration) {
	l.expire()
	if lives == l.lives {
		return
	}
	l.lives = lives
	for i := range l.deposits {
		l.deposits[i].at = time.Now()
	}
}

func (l *list) expire() {
	for len(l.deposits) > 0 && time.Since(l.deposits[0].at) >= l.lives {
		l.deposits = l.deposits[1:]
	}
}

func (l *list) tokens() (sum int64) {
	l.expire()
	for _, d := range l.deposits {
		sum += d.left
	}
	return sum
}

const token = 1_000_000

// withdraw takes a token from the oldest deposits, or whatever part of one there is.
func (l *list) withdraw() {
	l.expire()
	for need := int64(token); need > 0 && len(l.deposits) > 0; {
		take := min(need, l.deposits[0].left)
		need -= take
		if l.deposits[0].left -= take; l.deposits[0].left == 0 {
			l.deposits = l.deposits[1:]
		}
	}
}

// Where both lists agree on whether there is a token, the budget must agree with them.
func TestBudgetDepositsMatchModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ratios := rapid.SampledFrom([]int64{50_000, 100_000, 333_333, 500_000, 1_000_000, 2_500_000})
		ttls := rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 10 * time.Second, time.Hour})
		ratio, ttl := ratios.Draw(rt, "ratio"), ttls.Draw(rt, "TTL")
		changes := rapid.Bool().Draw(rt, "changes")
		steps := rapid.SliceOfN(rapid.IntRange(0, 31), 1, 200).Draw(rt, "steps")
		rapid.SyncTest(rt, func(rt *rapid.T) {
			b := budget.New(budget.Config{Ratio: float64(ratio) / token, TTL: ttl})
			early, late := &list{lives: ttl * 9 / 10}, &list{lives: ttl}
			decided := 0
			for n, s := range steps {
				switch {
				case s < 12:
					b.Deposit()
					early.deposits = append(early.deposits, deposit{time.Now(), ratio})
					late.deposits = append(late.deposits, deposit{time.Now(), ratio})
				case s < 20:
					time.Sleep(ttl * time.Duration(s-11) / 40)
				case s == 31:
					if !changes {
						break
					}
					ratio, ttl = ratios.Draw(rt, "ratio"), ttls.Draw(rt, "TTL")
					if err := b.SetConfig(budget.Config{Ratio: float64(ratio) / token, TTL: ttl}); err != nil {
						rt.Fatal(err)
					}
					early.change(ttl * 9 / 10)
					late.change(ttl)
				default:
					least, most := early.tokens(), late.tokens()
					granted := b.Withdraw()
					// Where the lists disagree, both answers are right: the oldest deposits may
					// have expired, and are withdrawn first.
					if least >= token && !granted || most < token && granted {
						rt.Fatalf("step %d: granted %v with %d to %d millionths", n, granted, least, most)
					}
					if granted {
						decided++
						late.withdraw()
						early.withdraw()
					}
				}
			}
		})
	})
}

// The reserve starts full, with MinPerSecond*TTL tokens, and refills at MinPerSecond. If its size
// changes, it lacks as many tokens as before, at most all.
func TestBudgetReserveMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rates := rapid.SampledFrom([]int{1, 2, 10, 1000})
		rate, seconds := rates.Draw(rt, "MinPerSecond"), rapid.IntRange(1, 20).Draw(rt, "TTL")
		changes := rapid.Bool().Draw(rt, "changes")
		steps := rapid.SliceOfN(rapid.IntRange(0, 22), 1, 200).Draw(rt, "steps")
		rapid.SyncTest(rt, func(rt *rapid.T) {
			b := budget.New(budget.Config{MinPerSecond: float64(rate), TTL: time.Duration(seconds) * time.Second})
			full := int64(rate*seconds) * token
			tokens := full
			for n, s := range steps {
				if s > 20 {
					if !changes {
						continue
					}
					lacks := full - tokens
					rate, seconds = rates.Draw(rt, "MinPerSecond"), rapid.IntRange(1, 20).Draw(rt, "TTL")
					if s == 22 {
						if err := b.SetConfig(budget.Config{Ratio: 1}); err != nil { // off for a moment
							rt.Fatal(err)
						}
					}
					if err := b.SetConfig(budget.Config{MinPerSecond: float64(rate), TTL: time.Duration(seconds) * time.Second}); err != nil {
						rt.Fatal(err)
					}
					full = int64(rate*seconds) * token
					tokens = max(0, full-lacks)
					continue
				}
				if s < 10 {
					d := time.Duration(s) * 50 * time.Millisecond
					time.Sleep(d)
					tokens = min(full, tokens+int64(d.Seconds()*float64(rate)*token+0.5))
					continue
				}
				for range s {
					granted := b.Withdraw()
					if want := tokens >= token; granted != want && tokens%token > 10 && tokens%token < token-10 {
						rt.Fatalf("step %d: granted %v with %d millionths", n, granted, tokens)
					}
					if granted {
						tokens = max(0, tokens-token)
					}
				}
			}
		})
	})
}

// The reserve is used if the deposits don't hold a whole token. An extra call takes a token from
// one of them, never parts of both. All deposits of this test expire together, so every answer is
// determined.
func TestBudgetUsesDepositsBeforeReserve(t *testing.T) {
	const ttl, tick = 10 * time.Second, 50 * time.Millisecond
	rapid.Check(t, func(rt *rapid.T) {
		ratio := rapid.SampledFrom([]int64{50_000, 100_000, 500_000, 1_000_000, 2_500_000}).Draw(rt, "ratio")
		rate := rapid.SampledFrom([]int64{1, 2, 4}).Draw(rt, "MinPerSecond")
		steps := rapid.SliceOfN(rapid.IntRange(0, 20), 1, 200).Draw(rt, "steps")
		rapid.SyncTest(rt, func(rt *rapid.T) {
			b := budget.New(budget.Config{Ratio: float64(ratio) / token, MinPerSecond: float64(rate), TTL: ttl})
			full := rate * int64(ttl/time.Second) * token
			deposits, reserve, oldest := int64(0), full, time.Now()
			wait := func(d time.Duration) {
				time.Sleep(d)
				reserve = min(full, reserve+int64(d/tick)*rate*token/int64(time.Second/tick))
			}
			for n, s := range steps {
				switch {
				case s < 8:
					b.Deposit()
					deposits += ratio
				case s < 12:
					if d := 6 * tick * time.Duration(s-7); time.Since(oldest)+d < ttl*8/10 {
						wait(d)
						break
					}
					wait(ttl)
					deposits, oldest = 0, time.Now()
				default:
					calls := 1
					if s == 20 { // sometimes withdraw everything, which shows where each token came from
						calls = int(full/token) + 10
					}
					for range calls {
						from := &deposits
						if deposits < token {
							from = &reserve
						}
						want := *from >= token
						if granted := b.Withdraw(); granted != want {
							rt.Fatalf("step %d: granted %v with %d millionths deposited and %d in reserve", n, granted, deposits, reserve)
						}
						if want {
							*from -= token
						}
					}
				}
			}
		})
	})
}

// Any number of callers withdraw what was deposited, and no more.
func TestBudgetGrantsNoMoreThanDepositedUnderRace(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		callers := rapid.IntRange(1, 8).Draw(rt, "callers")
		each := rapid.IntRange(1, 200).Draw(rt, "deposits")
		b := budget.New(budget.Config{Ratio: 0.25, TTL: time.Hour})
		var granted atomic.Int64
		var g errgroup.Group
		for range callers {
			g.Go(func() error {
				for range each {
					b.Deposit()
					if b.Withdraw() {
						granted.Add(1)
					}
				}
				return nil
			})
		}
		g.Wait()
		for b.Withdraw() {
			granted.Add(1)
		}
		if want := int64(callers * each / 4); granted.Load() != want {
			rt.Fatal(fmt.Sprintf("got %d tokens for %d deposits of a quarter, want %d", granted.Load(), callers*each, want))
		}
	})
}

func TestMain(m *testing.M) { cases.Main(m, 1500, 0) }
