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

// A command is one step of the specification. A call that is admitted or gives up takes two steps
// in one interval: it arrives, and later it runs or leaves.
type command struct {
	verb  verb
	id    byte // of a call
	limit int  // of resize and configure
	queue int  // of configure
}

type verb string

const (
	come    verb = "come"   // the call is admitted, or waits
	try     verb = "try"    // like come, but a call whose context is done doesn't find the queue full
	refuse  verb = "refuse" // the queue is full
	has     verb = "has"    // the call runs
	quit    verb = "quit"   // the call's context has ended
	release verb = "release"
	resize  verb = "resize"
	look    verb = "look"

	configure verb = "configure"
)

// A state is a state of the specification. Each letter is a call.
type state struct {
	limit   int
	queue   int
	running string
	waiting string
}

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

// step does the command. It reports whether the command is possible, given what look saw.
func (s state) step(c command, saw bulkhead.Snapshot) (bool, state) {
	switch c.verb {
	case come:
		if s.room() {
			s.running += string(c.id)
		} else if s.waiting += string(c.id); len(s.waiting) > s.queue {
			return false, s
		}
	case try:
		if s.room() {
			s.running += string(c.id)
		} else if len(s.waiting) < s.queue {
			s.waiting += string(c.id)
		}
	case refuse:
		return !s.room() && len(s.waiting) >= s.queue, s
	case has:
		return strings.Contains(s.running, string(c.id)), s
	case quit, release:
		return true, s.without(c.id)
	case resize:
		s.limit = c.limit
		return true, s.serve()
	case configure:
		s.limit, s.queue = c.limit, c.queue
		return true, s.serve()
	case look:
		return saw == bulkhead.Snapshot{Limit: s.limit, Queue: s.queue, Running: len(s.running), Waiting: len(s.waiting)}, s
	}
	return true, s
}

const (
	workers = 6
	calls   = 5 // per worker
)

// There must be a sequential order of the racing goroutines' commands in which a plain queue
// returns the same answers. So no call overtakes another, no place is lost, and none is taken
// twice.
func TestBulkheadIsLinearizable(t *testing.T) {
	rounds, err := strconv.Atoi(flag.Lookup("rapid.checks").Value.String())
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		rounds /= 5 // as rapid does
	}
	for range rounds {
		limit, queue := 1+rand.IntN(3), 3
		model := porcupine.Model{
			Init: func() any { return state{limit: limit, queue: queue} },
			Step: func(s, input, output any) (bool, any) {
				ok, next := s.(state).step(input.(command), output.(bulkhead.Snapshot))
				return ok, next
			},
		}
		history := race(t, bulkhead.New(bulkhead.Config{Limit: limit, Queue: queue}))
		if !porcupine.CheckOperations(model, history) {
			t.Fatalf("no order of these commands explains what they returned, with an initial limit of %d:\n%s", limit, describe(history))
		}
	}
}

// race runs workers that make one call after the other, and records the calls. Each worker releases
// its call, so waiting calls are admitted in the end.
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
					note(call, none, command{verb: refuse, id: id})
				case err != nil:
					note(call, none, command{verb: try, id: id}, command{verb: quit, id: id})
				default:
					note(call, none, command{verb: come, id: id}, command{verb: has, id: id})
				}
				cancel()
				switch call := time.Since(began); rand.IntN(5) {
				case 0:
					saw := b.Snapshot()
					note(call, saw, command{verb: look})
				case 1:
					limit := 1 + rand.IntN(3)
					b.Resize(limit)
					note(call, none, command{verb: resize, limit: limit})
				case 2:
					limit, queue := 1+rand.IntN(3), rand.IntN(5)
					if err := b.SetConfig(bulkhead.Config{Limit: limit, Queue: queue}); err != nil {
						return err
					}
					note(call, none, command{verb: configure, limit: limit, queue: queue})
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
		fmt.Fprintf(&text, "%8d to %8d, worker %d: %s %c %d %d, saw %+v\n", o.Call, o.Return, o.ClientId, c.verb, c.id, c.limit, c.queue, o.Output)
	}
	return text.String()
}
