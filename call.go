package resilience

import (
	"context"
	"reflect"
	"slices"
	"sync"

	"github.com/effector-go/resilience/internal/mark"
)

// A call is one call of an effector, or one fork of it, without the type of its value. At any time,
// one goroutine holds it.
type call interface {
	start(ctx context.Context) error // runs the effector and keeps its value
	fork(rest []Policy) *facts       // rest is what the fork will run
	adopt(fork *facts)
	discard()
	keep(policy discarder) (end func(answered bool))
}

// facts are what policies may know of a call.
type facts struct {
	call       call
	starts     int32 // of the effector, and one for each fork that isn't adopted
	effects    int32 // the starts that may have had an effect
	inherited  int32 // in a fork: the effects of the call when it was forked
	atMostOnce bool
	forked     bool // this is a fork, or a fork of a fork
	adopted    bool // in a fork
	holds      bool // with a keeper, which guards it: the value has not been handed out

	// asked holds the keys that firstTime was called with: nil, the one key, or a keyList. A list
	// is never changed, so forks share it.
	asked any
}

// countStart counts a start that ended with err.
func (f *facts) countStart(err error) {
	f.starts++
	if !mark.IsNotMade(err) {
		f.effects++
	}
}

func (f *facts) repeatable() bool { return !f.atMostOnce || f.effects+f.inherited == 0 }

// A keyList is a list of keys. Its type is unexported, so no key has it.
type keyList []any

func (f *facts) firstTime(key any) bool {
	switch asked := f.asked.(type) {
	case nil:
		f.asked = key
	case keyList:
		if slices.Contains(asked, key) {
			return false
		}
		f.asked = append(slices.Clip(asked), key)
	default:
		if asked == key {
			return false
		}
		f.asked = keyList{asked, key}
	}
	return true
}

// learn adds the keys that were asked in a fork.
func (f *facts) learn(asked any) {
	switch asked := asked.(type) {
	case nil:
	case keyList:
		for _, key := range asked {
			f.firstTime(key)
		}
	default:
		f.firstTime(asked)
	}
}

// A result is a call with its value: the one object that a call through a pipeline allocates.
type result[T any] struct {
	facts
	effector Effector[T]
	parent   *result[T] // in a fork: what it was forked from
	value    T
	keeper   *keeper[T] // set by a Discard policy
}

// do makes a call inside policy, the outermost one, and the inner ones, and returns the value and
// the error for its caller.
func do[T any](ctx context.Context, policy Policy, inner []Policy, effector Effector[T]) (T, error) {
	if ctx.Err() != nil {
		var zero T
		return zero, ContextErr(ctx)
	}
	r := &result[T]{effector: effector}
	r.call = r
	err := policy.Run(ctx, Next{&r.facts, inner})
	if err != nil {
		if r.keeper != nil {
			r.discard() // a policy outside Discard made the error
		}
		err = mark.WithoutNotMade(err)
	}
	return r.value, err
}

func (r *result[T]) start(ctx context.Context) error {
	// Counted before the effector runs: a panic leaves a start that may have had its effect.
	r.starts++
	r.effects++
	value, err := r.effector(ctx)
	if err != nil && mark.IsNotMade(err) {
		r.effects--
	}
	if r.keeper == nil {
		r.value = value
	} else {
		r.keeper.put(r, value)
	}
	return err
}

func (r *result[T]) fork([]Policy) *facts {
	f := &result[T]{effector: r.effector, parent: r, keeper: r.keeper}
	f.call = f
	f.forked = true
	f.atMostOnce = r.atMostOnce
	f.asked = r.asked
	f.inherited = r.effects + r.inherited
	r.starts++
	r.effects++
	if r.ended() {
		f.keeper = nil // a Discard policy inside the fork starts over
	}
	if f.keeper != nil {
		f.keeper.join(f)
	}
	return &f.facts
}

func (r *result[T]) adopt(fork *facts) {
	var f *result[T]
	if fork != nil {
		f, _ = unwatched(fork.call).(*result[T])
	}
	if f == nil || f.parent != r {
		panic("resilience: Adopt: fork is not a fork of this call")
	}
	if f.adopted {
		return
	}
	f.adopted = true
	r.starts += f.starts - 1
	r.effects += f.effects - 1
	r.atMostOnce = r.atMostOnce || f.atMostOnce
	if f.starts > 0 { // a fork that made no call has done nothing for it
		r.learn(f.asked)
	}
	if f.keeper == nil {
		if f.starts > 0 && r.keeper == nil {
			r.value = f.value
		} else if f.starts > 0 {
			r.keeper.put(r, f.value)
		}
		return
	}
	if r.keeper == nil { // a Discard policy inside the fork, which has returned
		r.keeper = &keeper[T]{drop: f.keeper.drop, owner: r, gone: true}
	}
	if value, holds := f.keeper.take(f); holds {
		r.keeper.put(r, value)
	} else if f.starts > 0 {
		r.discard() // the fork's last result was given up, and it is the call's last
	}
}

func (r *result[T]) discard() {
	if r.keeper == nil {
		return
	}
	if value, holds := r.keeper.take(r); holds {
		r.keeper.drop(value)
	}
}

// A keeper ensures that each value of a call and its forks is either returned to the caller or
// dropped, once. It lasts for one run of the Discard policy.
type keeper[T any] struct {
	drop  func(T)
	owner *result[T] // the call that the Discard policy received

	mu    sync.Mutex   // guards gone, forks, and value and holds of the owner and its forks
	gone  bool         // the policy has returned: values that forks still return are dropped
	forks []*result[T] // all of them, at any depth
}

func (k *keeper[T]) join(fork *result[T]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forks = append(k.forks, fork)
}

// put makes value the one that r holds. It drops what r held, or value itself if no caller will
// come for it.
func (k *keeper[T]) put(r *result[T], value T) {
	k.mu.Lock()
	drop, holds := value, true
	if !k.gone || r == k.owner {
		drop, holds = r.value, r.holds
		r.value, r.holds = value, true
	}
	k.mu.Unlock()
	if holds {
		k.drop(drop)
	}
}

// take empties r and reports whether it held a value.
func (k *keeper[T]) take(r *result[T]) (value T, holds bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	value, holds = r.value, r.holds
	var zero T
	r.value, r.holds = zero, false
	return value, holds
}

// end drops what the forks hold and, unless the caller receives it, what the owner holds.
func (k *keeper[T]) end(answered bool) {
	k.mu.Lock()
	k.gone = true
	forks := k.forks
	k.mu.Unlock()
	if !answered {
		defer k.owner.discard()
	}
	for _, f := range forks {
		defer f.discard() // each, even if drop panics
	}
}

// ended reports whether r's own keeper has done its work. Only end writes gone, on the goroutine
// that holds the keeper's owner. So the owner may read it without the lock. A fork of the owner may
// not, and need not: put drops what it returns then.
func (r *result[T]) ended() bool { return r.keeper != nil && r.keeper.owner == r && r.keeper.gone }

// keep sets a new keeper for the values of the call, for a Discard policy, and returns what ends
// it. It returns nil if there is one already, or if the policy is for values of another type.
func (r *result[T]) keep(policy discarder) (end func(answered bool)) {
	if r.keeper != nil && !r.ended() {
		return nil
	}
	var drop func(T)
	if same, ok := policy.(*discard[T]); ok {
		drop = same.drop
	} else if policy.takes(reflect.TypeFor[T]()) {
		drop = func(value T) { policy.dropAny(value) }
	} else {
		return nil
	}
	r.keeper = &keeper[T]{drop: drop, owner: r}
	return r.keeper.end
}
