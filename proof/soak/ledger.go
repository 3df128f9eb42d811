package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/effector-go/resilience/breaker"
)

// An ending is how a call ended.
type ending int

const (
	succeeded ending = iota
	failed           // after attempts
	refused          // not made
	canceled         // by the caller
	late             // after the caller's deadline
	panicked
	exited
	endings
)

var endingNames = [endings]string{"succeeded", "failed", "refused", "canceled", "too late", "panicked", "exited"}

// A violation is a broken rule that is noticed while the load runs.
type violation int

const (
	foreignAnswer violation = iota
	unexplained
	deadMade
	wrongNumber
	tooMany
	afterPermanent
	wrongTransition
	wrongObservation
	violations
)

var violationNames = [violations]string{
	foreignAnswer:    "a call gets its own answer",
	unexplained:      "an error says what happened, and wraps the last attempt's",
	deadMade:         "a call whose context has ended is not made",
	wrongNumber:      "retry.Attempt is the attempt's number",
	tooMany:          "no call makes more than MaxAttempts",
	afterPermanent:   "no attempt follows a permanent error",
	wrongObservation: "listeners see calls, attempts, and events as they are",
	wrongTransition:  "transitions are reported in order, never concurrently, with their causes",
}

// A ledger holds the counts of all parties.
type ledger struct {
	workers int

	// Counted by the callers.
	calls, answered atomic.Int64
	ended           [endings]atomic.Int64
	got             atomic.Int64 // values

	// Counted by policies between the others: runs of the pipeline, Next.Starts summed over the
	// calls, calls with at least one start, runs outside and inside the guard, and its refusals. decided is counted by
	// retry's OnRetry: the retries it decided on.
	runs, starts, made        atomic.Int64
	asked, admitted, refusals atomic.Int64
	decided                   atomic.Int64

	// Counted by the effector: its starts and ends, requests that were written completely and the
	// sum of their mix, values.
	attempts, attemptsEnded atomic.Int64
	sent                    atomic.Int64
	sentSum                 atomic.Uint64
	handed                  atomic.Int64

	// Counted by the server.
	received, repeated atomic.Int64
	receivedSum        atomic.Uint64

	// Counted by Discard's function. twice is values that were returned or dropped a second time.
	dropped, twice atomic.Int64

	observed     observed
	tallies      [2]tallied
	guard        breaker.Snapshot // at the end
	lastReported breaker.State    // as reported to OnStateChange
	transitions  int
	closedAgain  bool
	leftBehind   int

	elapsed           time.Duration // while the budget was in use
	heapWarm, heapEnd int64
	goroutines        error // names those that were left

	violationCounts [violations]atomic.Int64
	mu              sync.Mutex // guards notes
	notes           []string   // of the first violations
}

// tallied holds the counts of a tally and its breaker.
type tallied struct {
	made, calls, failures, ignored int64
	snapshot                       breaker.Snapshot
}

func newLedger(cfg config) *ledger { return &ledger{workers: cfg.workers} }

const maxNotes = 20

func (l *ledger) violated(what violation, format string, args ...any) {
	l.violationCounts[what].Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.notes) < maxNotes {
		l.notes = append(l.notes, fmt.Sprintf(format, args...))
	}
}

// take records that a value was returned or dropped, and adds one to the respective count.
func (l *ledger) take(value *lease, count *atomic.Int64) {
	count.Add(1)
	if value.back.Swap(true) {
		l.twice.Add(1)
	}
}

// allowed returns how many retries the budget may have granted.
func (l *ledger) allowed() int64 {
	return int64(retryRatio*float64(l.made.Load()) + retryPerSecond*(budgetTTL+l.elapsed).Seconds() + 1)
}

// heapAllowed returns how much more memory may be in use than after the warm-up. Tables keep the
// size of the largest crowd they have seen, which may come later. A leak of 100 bytes for each call
// shows after ten seconds.
func (l *ledger) heapAllowed() int64 { return 512<<10 + int64(l.workers)<<10 }

// A check is a rule that must hold for a ledger.
type check struct {
	name  string
	holds func(l *ledger) (figures string, ok bool)
}

// checks returns all rules.
func checks() []check {
	list := []check{
		{"every call is answered once", func(l *ledger) (string, bool) {
			calls, answered, sum := l.calls.Load(), l.answered.Load(), int64(0)
			for i := range l.ended {
				sum += l.ended[i].Load()
			}
			return fmt.Sprintf("%d calls, %d answered, %d endings", calls, answered, sum), calls > 0 && calls == answered && calls == sum
		}},
		{"Next.Starts agrees with the effector", func(l *ledger) (string, bool) {
			return same("by Starts", l.starts.Load(), "started", l.attempts.Load())
		}},
		{"every attempt ends", func(l *ledger) (string, bool) {
			return same("started", l.attempts.Load(), "ended", l.attemptsEnded.Load())
		}},
		{"the server's count agrees with the client's", func(l *ledger) (string, bool) {
			figures, ok := same("sent", l.sent.Load(), "received", l.received.Load())
			return figures, ok && l.sentSum.Load() == l.receivedSum.Load()
		}},
		{"no write is sent twice", func(l *ledger) (string, bool) { return none("repeated", l.repeated.Load()) }},
		{"every value is returned or dropped", func(l *ledger) (string, bool) {
			handed, got, dropped := l.handed.Load(), l.got.Load(), l.dropped.Load()
			return fmt.Sprintf("%d created, %d returned, %d dropped", handed, got, dropped), handed == got+dropped
		}},
		{"no value is returned or dropped twice", func(l *ledger) (string, bool) { return none("twice", l.twice.Load()) }},
		{"every success has its value", func(l *ledger) (string, bool) {
			return same("succeeded", l.ended[succeeded].Load(), "returned", l.got.Load())
		}},
		{"the guard admits or refuses", func(l *ledger) (string, bool) {
			asked, admitted, refusals := l.asked.Load(), l.admitted.Load(), l.refusals.Load()
			return fmt.Sprintf("%d calls, %d admitted, %d refused", asked, admitted, refusals), asked == admitted+refusals
		}},
		{"a window counts every call", func(l *ledger) (string, bool) { return l.tallies[0].check() }},
		{"also if callers cancel", func(l *ledger) (string, bool) { return l.tallies[1].check() }},
		{"no breaker counts running calls at the end", func(l *ledger) (string, bool) {
			return none("running", int64(max(abs(l.guard.Running), abs(l.tallies[0].snapshot.Running), abs(l.tallies[1].snapshot.Running))))
		}},
		{"the guard closes again", func(l *ledger) (string, bool) {
			return fmt.Sprintf("%v after %d transitions, last reported %v", l.guard.State, l.transitions, l.lastReported),
				l.closedAgain && l.guard.State == breaker.Closed && l.lastReported == breaker.Closed
		}},
		{"retries stay within the budget", func(l *ledger) (string, bool) {
			return fmt.Sprintf("%d granted, %d allowed", l.decided.Load(), l.allowed()), l.decided.Load() <= l.allowed()
		}},
		{"every additional attempt was granted", func(l *ledger) (string, bool) {
			additional := l.attempts.Load() - l.made.Load()
			return fmt.Sprintf("%d granted, %d made", l.decided.Load(), additional), additional >= 0 && additional <= l.decided.Load()
		}},
		{"no effector is left behind", func(l *ledger) (string, bool) { return none("left", int64(l.leftBehind)) }},
		{"memory is flat", func(l *ledger) (string, bool) {
			more := l.heapEnd - l.heapWarm
			return fmt.Sprintf("%d KiB after warm-up, %+d KiB since, %d KiB allowed", l.heapWarm>>10, more>>10, l.heapAllowed()>>10),
				more <= l.heapAllowed()
		}},
		{"no goroutine is left", func(l *ledger) (string, bool) {
			if l.goroutines != nil {
				return "see below", false
			}
			return "0 left", true
		}},
	}
	list = append(list, observedChecks()...)
	for what, name := range violationNames {
		list = append(list, check{name, func(l *ledger) (string, bool) { return none("violations", l.violationCounts[what].Load()) }})
	}
	return list
}

func same(a string, n int64, b string, m int64) (string, bool) {
	return fmt.Sprintf("%d %s, %d %s", n, a, m, b), n == m
}

func none(what string, n int64) (string, bool) { return fmt.Sprintf("%d %s", n, what), n == 0 }

func abs(n int) int { return max(n, -n) }

func (t tallied) check() (string, bool) {
	return fmt.Sprintf("%d made: %d of %d failed, Snapshot has %d of %d", t.made, t.failures, t.calls, t.snapshot.Failures, t.snapshot.Calls),
		t.made == t.calls+t.ignored && t.calls == int64(t.snapshot.Calls) && t.failures == int64(t.snapshot.Failures)
}

// report writes the ledger and its checks as tables. It returns true if all checks hold.
func report(w io.Writer, cfg config, l *ledger) bool {
	fmt.Fprintf(w, "%d workers for %v, seed %d\n\n", cfg.workers, l.elapsed.Round(100*time.Millisecond), cfg.seed)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "calls\t%d\n", l.calls.Load())
	for i, name := range endingNames {
		fmt.Fprintf(table, "  %s\t%d\n", name, l.ended[i].Load())
	}
	fmt.Fprintf(table, "attempts\t%d\n", l.attempts.Load())
	fmt.Fprintf(table, "  retries\t%d\n", l.attempts.Load()-l.made.Load())
	fmt.Fprintf(table, "  requests\t%d\n", l.sent.Load())
	fmt.Fprintf(table, "refused by the guard\t%d\n", l.refusals.Load())
	fmt.Fprintf(table, "refused by Abandon\t%d\n", l.admitted.Load()-l.tallies[0].made-l.tallies[1].made)
	fmt.Fprintln(table)
	table.Flush()

	all := true
	for _, c := range checks() {
		figures, ok := c.holds(l)
		verdict := "ok"
		if !ok {
			verdict, all = "FAILED", false
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", verdict, c.name, figures)
	}
	table.Flush()
	for _, note := range l.notes {
		fmt.Fprintln(w, note)
	}
	if l.goroutines != nil {
		fmt.Fprintln(w, l.goroutines)
	}
	return all
}
