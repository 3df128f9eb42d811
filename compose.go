package resilience

import (
	"context"
	"fmt"
	"reflect"
)

// A Pipeline is a list of policies, outermost first, that runs as one [Policy]. Pipelines nest to
// any depth, and an empty one adds nothing. [Do] panics if it contains a nil policy.
type Pipeline []Policy

// Run runs next inside the policies of p.
func (p Pipeline) Run(ctx context.Context, next Next) error {
	switch {
	case len(next.policies) == 0 && !p.containsPipeline():
		next.policies = p
	case len(p) > 0: // the caller's list must not change
		flat := make([]Policy, 0, p.count()+len(next.policies))
		next.policies = append(p.flattened(flat), next.policies...)
	}
	return next.Run(ctx)
}

// containsPipeline reports whether any policy except the last one is a pipeline. If so, Run
// flattens all levels in one step; otherwise each level would copy the rest.
func (p Pipeline) containsPipeline() bool {
	for i := range len(p) - 1 {
		if _, ok := p[i].(Pipeline); ok {
			return true
		}
	}
	return false
}

// count returns how many policies p has, including those of nested pipelines.
func (p Pipeline) count() int {
	n := len(p)
	for _, policy := range p {
		if pipeline, ok := policy.(Pipeline); ok {
			n += pipeline.count() - 1
		}
	}
	return n
}

// flattened appends the policies to flat, with those of nested pipelines in their place.
func (p Pipeline) flattened(flat []Policy) []Policy {
	for _, policy := range p {
		if pipeline, ok := policy.(Pipeline); ok {
			flat = pipeline.flattened(flat)
		} else {
			flat = append(flat, policy)
		}
	}
	return flat
}

// Compose returns an effector that runs the given one inside the policies, outermost first. It
// keeps a copy of the list, with nested pipelines flattened. Without policies, it returns the
// effector itself.
//
// Composing a composed effector nests: the policies of the second Compose go around those of the
// first.
//
// With whatever error the outermost policy returns, the composed effector returns the value of the
// effector's last run, or the zero value if the effector never ran. If ctx is already done, it
// makes no call and returns [ContextErr]. It removes [NotMade] marks from the error. Each call
// allocates once, for the call's state.
//
// Compose panics if the effector or a policy, at any depth, is nil.
//
// The result is an [Effector], so its methods can follow: Compose(fetch).Check(check). Go infers T
// here, but not in a conversion: Effector[User](fetch).Check(check).
func Compose[T any](effector Effector[T], policies ...Policy) Effector[T] {
	if effector == nil {
		panic("resilience: Compose: effector is nil, must be a function")
	}
	flat := flatten(nil, "Compose: policies", policies)
	if len(flat) == 0 {
		return effector
	}
	return func(ctx context.Context) (T, error) { return do(ctx, flat[0], flat[1:], effector) }
}

// ComposeRun is [Compose] for a call that returns only an error.
func ComposeRun(fn func(ctx context.Context) error, policies ...Policy) func(ctx context.Context) error {
	if fn == nil {
		panic("resilience: ComposeRun: fn is nil, must be a function")
	}
	flat := flatten(nil, "ComposeRun: policies", policies)
	if len(flat) == 0 {
		return fn
	}
	effector := withoutValue(fn)
	return func(ctx context.Context) error {
		_, err := do(ctx, flat[0], flat[1:], effector)
		return err
	}
}

// withoutValue returns fn as an effector with an empty value.
func withoutValue(fn func(context.Context) error) Effector[struct{}] {
	return func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) }
}

// flatten appends policies to flat, with those of nested pipelines in their place. It panics on a
// nil policy, which it names by its path.
func flatten(flat []Policy, path string, policies []Policy) []Policy {
	for i, policy := range policies {
		here := fmt.Sprintf("%s[%d]", path, i)
		if pipeline, ok := policy.(Pipeline); ok {
			flat = flatten(flat, here, pipeline)
			continue
		}
		mustNotBeNil(here, policy)
		flat = append(flat, policy)
	}
	return flat
}

// mustNotBeNil panics for a nil interface, and for a nil pointer or function in an interface: a
// policy that was never created.
func mustNotBeNil(path string, policy Policy) {
	v := reflect.ValueOf(policy)
	if k := v.Kind(); k == reflect.Invalid || (k == reflect.Pointer || k == reflect.Func) && v.IsNil() {
		panic(fmt.Sprintf("resilience: %s is nil (%T), must be a Policy", path, policy))
	}
}

// Do makes one call of the effector inside the policy and returns its value and error as a composed
// effector does: see [Compose]. It panics if the effector, the policy, or a policy in a [Pipeline]
// is nil. A [Policy] that holds a nil pointer panics only when it runs.
func Do[T any](ctx context.Context, policy Policy, effector Effector[T]) (T, error) {
	if effector == nil {
		panic("resilience: Do: effector is nil, must be a function")
	}
	if !whole(policy) {
		if pipeline, ok := policy.(Pipeline); ok {
			flatten(nil, "Do: policy", pipeline)
		}
		mustNotBeNil("Do: policy", policy)
	}
	return do(ctx, policy, nil, effector)
}

// whole reports whether neither policy nor one nested in it is nil, as far as can be seen without
// reflection.
func whole(policy Policy) bool {
	switch policy := policy.(type) {
	case nil:
		return false
	case PolicyFunc:
		return policy != nil
	case Pipeline:
		for _, p := range policy {
			if !whole(p) {
				return false
			}
		}
	}
	return true
}

// Run is [Do] for a call that returns only an error.
func Run(ctx context.Context, policy Policy, fn func(context.Context) error) error {
	if fn == nil {
		panic("resilience: Run: fn is nil, must be a function")
	}
	_, err := Do(ctx, policy, withoutValue(fn))
	return err
}

// AtMostOnce states that a call must not be made again once it may have had an effect: for writes.
// It belongs outermost, so that Pipeline{AtMostOnce, guarded} serves writes with the pipeline that
// serves reads. Policies that would start the call again, such as retry and hedge, check
// [Next.Repeatable], which is false once the effector was started and did not return an error
// marked with [NotMade]. The statement applies to the call, not to its context: calls that the
// effector makes are not affected. AtMostOnce is safe for concurrent use.
var AtMostOnce Policy = atMostOnce{}

type atMostOnce struct{}

func (atMostOnce) Run(ctx context.Context, next Next) error {
	next.facts.atMostOnce = true
	return next.Run(ctx)
}

// Discard returns a policy that calls drop with every value that no caller will receive: one that a
// later run of the effector replaced, one that accompanies an error (the caller then receives the
// zero value), one that retry held when it decided to wait, one of a fork that was given up or that
// ended after its caller had left, and one whose call panicked. So a value that holds a resource,
// such as a response body or a connection, does not leak:
//
//	resilience.Discard(func(r *http.Response) { if r != nil { r.Body.Close() } })
//
// It belongs outermost. Each value is dropped at most once. Drop is called with zero values too,
// and it may be called on any goroutine, for different calls concurrently. Calls of a type T other
// than D are not affected, whatever their values hold, unless D is an interface that T implements.
// Of several Discard policies, the outermost one of a matching type drops. Discard panics if drop
// is nil.
func Discard[D any](drop func(D)) Policy {
	if drop == nil {
		panic("resilience: Discard: drop is nil, must be a function")
	}
	return &discard[D]{drop}
}

type discard[D any] struct{ drop func(D) }

// A discarder is a discard[D] for any D.
type discarder interface {
	takes(t reflect.Type) bool
	dropAny(value any)
}

func (d *discard[D]) Run(ctx context.Context, next Next) error {
	end := next.facts.call.keep(d)
	if end == nil {
		return next.Run(ctx)
	}
	answered := false
	defer func() { end(answered) }() // panics and Goexit too
	err := next.Run(ctx)
	answered = err == nil
	return err
}

func (d *discard[D]) takes(t reflect.Type) bool {
	want := reflect.TypeFor[D]()
	return want.Kind() == reflect.Interface && t.Implements(want)
}

func (d *discard[D]) dropAny(value any) {
	v, _ := value.(D) // a nil value of interface type is D's nil
	d.drop(v)
}
