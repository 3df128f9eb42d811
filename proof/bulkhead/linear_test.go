package bulkhead

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/bulkhead"
)

// A command is one step of the specification. A call that gets in or gives up takes two in one interval: it comes, and later it has its
// place or goes.
type command struct {
	verb  verb
	id    byte // of a call
	limit int  // of resize
}

type verb string

const (
	come     verb = "come"     // and is let in, or waits
	try      verb = "try"      // as come, but a call whose ctx is done does not find the queue full
	turnAway verb = "turnAway" // since the queue is full
	has      verb = "has"      // its place
	quit     verb = "quit"     // since its ctx ended
	release  verb = "release"
	resize   verb = "resize"
	look     verb = "look"
)

// A state is that of the specification. Calls are letters.
type state struct {
	limit   int
	running string
	waiting string
}

const queue = 3

func (s state) room() bool { return len(s.running) < s.limit }

func (s state) serve() state {
	for s.room() && s.waiting != "" {
		s.running += s.waiting[:1]
		s.waiting = s.waiting[1:]
	}
	return s
}

func (s state) without(id byte) state {
	s.running = strings.ReplaceAll(s.running, string(id), "")
	s.waiting = strings.ReplaceAll(s.waiting, string(id), "")
	return s.serve()
}

// step does the command, and reports whether it may be done, with what look saw.
func (s state) step(c command, saw bulkhead.Snapshot) (bool, state) {
	switch c.verb {
	case come:
		if s.room() {
			s.running += string(c.id)
		} else if s.waiting += string(c.id); len(s.waiting) > queue {
			return false, s
		}
	case try:
		if s.room() {
			s.running += string(c.id)
		} else if len(s.waiting) < queue {
			s.waiting += string(c.id)
		}
	case turnAway:
		return !s.room() && len(s.waiting) == queue, s
	case has:
		return strings.Contains(s.running, string(c.id)), s
	case quit, release:
		return true, s.without(c.id)
	case resize:
		s.limit = c.limit
		return true, s.serve()
	case look:
		return saw == bulkhead.Snapshot{Limit: s.limit, Queue: queue, Running: len(s.running), Waiting: len(s.waiting)}, s
	}
	return true, s
}

const (
	workers = 6
	calls   = 5 // of a worker
)

// TestABulkheadIsLinearizable: for what goroutines that race see of a bulkhead there is one order of their commands, one after the other, in
// which a plain queue does the same. So nobody overtakes, no place is lost, and none is given twice.
func TestABulkheadIsLinearizable(t *testing.T) {
	rounds, err := strconv.Atoi(flag.Lookup("rapid.checks").Value.String())
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		rounds /= 5 // as rapid does
	}
	for range rounds {
		limit := 1 + rand.IntN(3)
		model := porcupine.Model{
			Init: func() any { return state{limit: limit} },
			Step: func(s, input, output any) (bool, any) {
				ok, next := s.(state).step(input.(command), output.(bulkhead.Snapshot))
				return ok, next
			},
		}
		history := race(t, bulkhead.New(bulkhead.Config{Limit: limit, Queue: queue}))
		if !porcupine.CheckOperations(model, history) {
			t.Fatalf("no order of these commands explains what they returned, with a limit of %d at first:\n%s", limit, describe(history))
		}
	}
}

// race lets workers call, each one call at a time, so that whoever waits is served in the end, and records it.
func race(t *testing.T, b *bulkhead.Bulkhead) []porcupine.Operation {
	began := time.Now()
	var histories [workers][]porcupine.Operation
	start := make(chan struct{})
	var g errgroup.Group
	for w := range workers {
		g.Go(func() error {
			note := func(call time.Duration, saw bulkhead.Snapshot, commands ...command) {
				end := int64(time.Since(began))
				for _, c := range commands {
					histories[w] = append(histories[w], porcupine.Operation{ClientId: w, Input: c, Call: int64(call), Output: saw, Return: end})
				}
			}
			var none bulkhead.Snapshot
			<-start
			for n := range calls {
				id := byte('A' + w*calls + n)
				ctx, cancel := context.WithCancel(t.Context())
				if rand.IntN(3) == 0 {
					go cancel()
				}
				call := time.Since(began)
				permit, err := b.Acquire(ctx)
				switch {
				case errors.Is(err, bulkhead.ErrFull):
					note(call, none, command{verb: turnAway, id: id})
				case err != nil:
					note(call, none, command{verb: try, id: id}, command{verb: quit, id: id})
				default:
					note(call, none, command{verb: come, id: id}, command{verb: has, id: id})
				}
				cancel()
				switch call := time.Since(began); rand.IntN(4) {
				case 0:
					saw := b.Snapshot()
					note(call, saw, command{verb: look})
				case 1:
					limit := 1 + rand.IntN(3)
					b.Resize(limit)
					note(call, none, command{verb: resize, limit: limit})
				default:
					runtime.Gosched()
				}
				if err == nil {
					call := time.Since(began)
					permit.Release()
					note(call, none, command{verb: release, id: id})
				}
			}
			return nil
		})
	}
	close(start)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	end := int64(time.Since(began))
	last := porcupine.Operation{Input: command{verb: look}, Call: end, Output: b.Snapshot(), Return: end + 1}
	return append(slices.Concat(histories[:]...), last)
}

func describe(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var text strings.Builder
	for _, o := range history {
		c := o.Input.(command)
		fmt.Fprintf(&text, "%8d to %8d, worker %d: %s %c %d, saw %+v\n", o.Call, o.Return, o.ClientId, c.verb, c.id, c.limit, o.Output)
	}
	return text.String()
}
