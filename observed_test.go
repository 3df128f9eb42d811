package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

// A setting is a pipeline to be observed, and the policies inside it.
type setting struct{ policies, inside []resilience.PolicyFunc }

// An account is what the policies and the effector of a setting see of some calls.
type account struct {
	Entered  []uint64 // runs of each policy
	Attempts uint64   // runs of what is inside the pipeline
	Calls    []string // what each call returned
}

// run makes calls. Around turns the policies, which count their runs, into one policy. The effector
// fails at each third start and panics at each seventh.
func (s setting) run(ctx context.Context, around func(policies ...resilience.Policy) resilience.Policy) account {
	l := account{Entered: make([]uint64, len(s.policies))}
	counted := func(n *uint64, policy resilience.PolicyFunc) resilience.Policy {
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			*n++
			return policy(ctx, next)
		})
	}
	var policies []resilience.Policy
	for i, policy := range s.policies {
		policies = append(policies, counted(&l.Entered[i], policy))
	}
	var inside resilience.Pipeline
	for i, policy := range s.inside {
		if i == 0 {
			inside = append(inside, counted(&l.Attempts, policy))
		} else {
			inside = append(inside, policy)
		}
	}
	starts := 0
	effector := func(context.Context) (int, error) {
		if len(inside) == 0 {
			l.Attempts++
		}
		switch starts++; {
		case starts%7 == 0:
			panic("boom")
		case starts%3 == 0:
			return starts, resilience.NotMade(errDown)
		}
		return starts, nil
	}
	var said string // by the following policies
	drops := resilience.Discard(func(value int) { said += fmt.Sprint(", dropped ", value) })
	outer := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) (err error) {
		panicked := panicOf(func() { err = next.Run(ctx) })
		said += fmt.Sprintf(", panic %v, %d starts, repeatable %t", panicked, next.Starts(), next.Repeatable())
		return err
	})
	call := resilience.Compose(effector, resilience.AtMostOnce, drops, outer, around(policies...), inside)
	for range 10 {
		said = ""
		value, err := call(ctx)
		l.Calls = append(l.Calls, fmt.Sprint(value, ", ", err, said))
	}
	return l
}

// TestPipelineObservedRunsLikeBareOne: each call returns the same, and the observer counts what the
// policies do, whatever they do.
func TestPipelineObservedRunsLikeBareOne(t *testing.T) {
	obs := observe.New(observe.Config{})
	nested := resilience.PolicyFunc(obs.Pipeline("nested", pass, resilience.PolicyFunc(runAgain)).Run)
	many := func(n int) []resilience.PolicyFunc { return slices.Repeat([]resilience.PolicyFunc{pass}, n) }
	type list = []resilience.PolicyFunc
	for name, s := range map[string]setting{
		"no policy":                          {},
		"one policy":                         {policies: list{pass}},
		"runs the rest again":                {policies: list{pass, runAgain, pass}},
		"runs the rest runAgain, twice":      {policies: list{runAgain, runAgain}},
		"refuses":                            {policies: list{runAgain, refuse, pass}},
		"forks":                              {policies: list{pass, runForks, pass}},
		"forks a fork":                       {policies: list{runForks, runAgain, runForks}},
		"adopts no fork":                     {policies: list{runAgain, adoptNothing, pass}},
		"adopts a fork of another call":      {policies: list{pass, adoptForeign}},
		"policies inside":                    {policies: list{pass, runAgain, pass}, inside: list{runAgain, pass}},
		"forks, also inside":                 {policies: list{runForks, pass}, inside: list{runForks, pass}},
		"observed pipelines nested":          {policies: list{runAgain, nested, runForks}, inside: list{nested, pass}},
		"31 policies":                        {policies: many(31)},
		"32 policies":                        {policies: many(32)},
		"40 policies, the outermost repeats": {policies: append(list{runAgain}, many(39)...)},
		"40 policies, the innermost forks":   {policies: append(many(39), runForks)},
	} {
		bare := s.run(t.Context(), func(policies ...resilience.Policy) resilience.Policy { return resilience.Pipeline(policies) })
		seen := s.run(t.Context(), func(policies ...resilience.Policy) resilience.Policy { return obs.Pipeline(name, policies...) })
		if got, want := fmt.Sprintf("%+v", seen), fmt.Sprintf("%+v", bare); got != want {
			t.Errorf("%s, observed: got\n%s\nwant\n%s", name, got, want)
		}
		p := snapshotOf(obs, name)
		counted := account{make([]uint64, len(s.policies)), p.Attempts, bare.Calls}
		for i, layer := range p.Layers {
			counted.Entered[i] = layer.Entered
		}
		if got, want := fmt.Sprintf("%+v", counted), fmt.Sprintf("%+v", bare); got != want {
			t.Errorf("%s, counted: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

func snapshotOf(obs *observe.Observer, name string) observe.PipelineSnapshot {
	all := obs.Snapshot().Pipelines
	return all[slices.IndexFunc(all, func(p observe.PipelineSnapshot) bool { return p.Name == name })]
}

// The policies of settings.

func refuse(context.Context, resilience.Next) error { return resilience.ErrRefused }

// runAgain runs the rest again after an error or a panic.
func runAgain(ctx context.Context, next resilience.Next) (err error) {
	if panicked := panicOf(func() { err = next.Run(ctx) }); err == nil && panicked == nil {
		return nil
	}
	return next.Run(ctx)
}

// runForks returns the result of the last of three forks. It adopts that one twice, and one that
// didn't run.
func runForks(ctx context.Context, next resilience.Next) error {
	idle, loser, winner := next.Fork(), next.Fork(), next.Fork()
	_ = loser.Run(ctx)
	winner.FirstTime("asked in the winner")
	err := winner.Run(ctx)
	for _, fork := range []resilience.Next{idle, winner, winner} {
		next.Adopt(fork)
	}
	winner.Discard()
	if next.FirstTime("asked in the winner") {
		return errors.New("the call doesn't know what the winner was asked")
	}
	return err
}

func adoptNothing(_ context.Context, next resilience.Next) error {
	next.Adopt(resilience.Next{})
	return nil
}

func adoptForeign(ctx context.Context, next resilience.Next) error {
	var foreign resilience.Next
	keep := resilience.PolicyFunc(func(_ context.Context, next resilience.Next) error { foreign = next.Fork(); return nil })
	_ = resilience.Run(ctx, observe.New(observe.Config{}).Pipeline("other", keep), func(context.Context) error { return nil })
	next.Adopt(foreign)
	return nil
}

// TestPipelineObservedRunsKeptNext: a policy that uses its Next after the call runs the effector, and
// nothing is counted.
func TestPipelineObservedRunsKeptNext(t *testing.T) {
	obs := observe.New(observe.Config{})
	var kept resilience.Next
	keep := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		kept = next
		return next.Run(ctx)
	})
	starts := 0
	call := resilience.ComposeRun(func(context.Context) error { starts++; return nil }, obs.Pipeline("p", keep, pass))
	for n := range 3 {
		if err := call(t.Context()); err != nil || starts != 2*n+1 {
			t.Fatalf("got %v after %d starts, want nil after %d", err, starts, 2*n+1)
		}
		if err := kept.Run(t.Context()); err != nil || starts != 2*n+2 {
			t.Fatalf("kept: got %v after %d starts, want nil after %d", err, starts, 2*n+2)
		}
	}
	if p := snapshotOf(obs, "p"); p.Attempts != 3 || p.Layers[1].Entered != 3 {
		t.Errorf("got %d attempts, %d runs of the second policy, want 3 of each", p.Attempts, p.Layers[1].Entered)
	}
}

// A timeoutError is one of a timeout, as package observe sees it.
type timeoutError struct{ error }

func (timeoutError) ErrorType() string { return "timeout" }

// TestPipelineObservedCountsResultsAndEvents makes each call twice: the state of a call is used again.
func TestPipelineObservedCountsResultsAndEvents(t *testing.T) {
	obs := observe.New(observe.Config{})
	timesOut := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error { return timeoutError{next.Run(ctx)} })
	wraps := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error { return fmt.Errorf("wrapped: %w", next.Run(ctx)) })
	nested := obs.Pipeline("nested", wraps, timesOut)
	type policies = []resilience.Policy
	for _, c := range []struct {
		name     string
		policies []resilience.Policy
		effector error
		result   observe.Result
		position int // of the policy whose events are counted; 0 if there must be none
		event    observe.EventKind
	}{
		{"a success", policies{pass, pass}, nil, observe.Success, 0, 0},
		{"a failure", policies{pass, pass}, errDown, observe.Failure, 0, 0},
		{"the effector's own refusal", policies{pass, pass}, resilience.ErrRefused, observe.Failure, 0, 0},
		{"a policy's refusal", policies{pass, resilience.PolicyFunc(refuse), pass}, nil, observe.Refused, 2, observe.Refusal},
		{"another run", policies{pass, twice, pass}, nil, observe.Success, 2, observe.Retry},
		{"another run of a fork", policies{pass, resilience.PolicyFunc(runForks), pass}, nil, observe.Success, 2, observe.Retry},
		{"a timeout in a nested pipeline", policies{pass, nested}, errDown, observe.TimedOut, 0, 0},
	} {
		call := resilience.ComposeRun(func(context.Context) error { return c.effector }, obs.Pipeline(c.name, c.policies...))
		for range 2 {
			_ = call(t.Context())
		}
		p := snapshotOf(obs, c.name)
		if n := p.Calls[c.result].Count; n != 2 {
			t.Errorf("%s: got %d calls with result %v, want 2", c.name, n, c.result)
		}
		for _, layer := range p.Layers {
			for kind, n := range layer.Events {
				want := uint64(0)
				if layer.Position == c.position && kind == c.event {
					want = 2
				}
				if n != want {
					t.Errorf("%s: got %d events %v of policy %d, want %d", c.name, n, kind, layer.Position, want)
				}
			}
		}
	}
}

// TestPipelineObservedForgetsEarlierCalls: the state of a call that succeeds is used for the next one,
// which is refused.
func TestPipelineObservedForgetsEarlierCalls(t *testing.T) {
	obs := observe.New(observe.Config{})
	calls := 0
	refuseEven := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if calls++; calls%2 == 0 {
			return resilience.ErrRefused
		}
		return next.Run(ctx)
	})
	call := resilience.ComposeRun(func(context.Context) error { return nil }, obs.Pipeline("p", refuseEven))
	for range 20 {
		_ = call(t.Context())
	}
	p := snapshotOf(obs, "p")
	if success, refused := p.Calls[observe.Success].Count, p.Calls[observe.Refused].Count; success != 10 || refused != 10 {
		t.Errorf("got %d successes and %d refusals, want 10 of each", success, refused)
	}
}

func TestPipelineObservedAllocatesNothingMore(t *testing.T) {
	succeed := func(context.Context) error { return nil }
	for _, n := range []int{1, 2, 31} {
		policies := slices.Repeat([]resilience.Policy{pass}, n)
		bare, observed := resilience.ComposeRun(succeed, policies...), resilience.ComposeRun(succeed, observe.New(observe.Config{}).Pipeline("p", policies...))
		want := testing.AllocsPerRun(1000, func() { _ = bare(t.Context()) })
		if got := testing.AllocsPerRun(1000, func() { _ = observed(t.Context()) }); got > want {
			t.Errorf("%d policies: got %v allocations, want %v as without an observer", n, got, want)
		}
	}
}
