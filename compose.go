package resilience

import (
	"context"
	"fmt"
	"reflect"
)

// A Pipeline is a list of policies, outermost first, that runs as one [Policy]; pipelines nest to any depth, and an empty one
// adds nothing. [Do] panics on a nil policy in it.
type Pipeline []Policy

// Run runs next inside the policies of p.
func (p Pipeline) Run(ctx context.Context, next Next) error {
	switch {
	case len(next.policies) == 0 && !p.nests():
		next.policies = p
	case len(p) > 0: // the caller's list must not change
		flat := make([]Policy, 0, p.count()+len(next.policies))
		next.policies = append(p.unnested(flat), next.policies...)
	}
	return next.Run(ctx)
}

// nests reports whether a pipeline is among the policies, but for the last. All are laid flat at once then: one after another
// would copy the rest at each level.
func (p Pipeline) nests() bool {
	for i := range len(p) - 1 {
		if _, ok := p[i].(Pipeline); ok {
			return true
		}
	}
	return false
}

// count is how many policies p has, with those of nested pipelines.
func (p Pipeline) count() int {
	n := len(p)
	for _, policy := range p {
		if pipeline, ok := policy.(Pipeline); ok {
			n += pipeline.count() - 1
		}
	}
	return n
}

// unnested appends the policies to flat, those of nested pipelines in their place.
func (p Pipeline) unnested(flat []Policy) []Policy {
	for _, policy := range p {
		if pipeline, ok := policy.(Pipeline); ok {
			flat = pipeline.unnested(flat)
		} else {
			flat = append(flat, policy)
		}
	}
	return flat
}

// Compose gives an effector that runs the given one inside the policies, the outermost first. It keeps a copy of the list,
// with nested pipelines laid flat. Without policies it gives the effector itself.
//
// The composed effector returns the value beside whatever error the outermost policy returns: that of the effector's last
// run, the zero value if it never ran. If ctx is already done it makes no call and returns [ContextErr]. Each call allocates
// once, for the call's state.
//
// Compose panics if the effector or a policy, at any depth, is nil.
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

// flatten appends policies to flat, those of nested pipelines in their place. It panics on a nil one, which it names by its
// path.
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

// mustNotBeNil panics for a nil interface, and for a nil pointer or function in one: a policy that was never made.
func mustNotBeNil(path string, policy Policy) {
	v := reflect.ValueOf(policy)
	if k := v.Kind(); k == reflect.Invalid || (k == reflect.Pointer || k == reflect.Func) && v.IsNil() {
		panic(fmt.Sprintf("resilience: %s is nil (%T), must be a Policy", path, policy))
	}
}

// Do makes one call of the effector inside the policy and returns its value and error as a composed effector does: see
// [Compose]. It panics if the effector or the policy is nil, or a policy in a [Pipeline]; where a policy is a nil pointer, only
// when that is run.
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

// whole reports whether neither policy nor one nested in it is nil, as far as a look without reflection tells.
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

// Run is [Do] for a call that yields an error only.
func Run(ctx context.Context, policy Policy, fn func(context.Context) error) error {
	if fn == nil {
		panic("resilience: Run: fn is nil, must be a function")
	}
	_, err := Do(ctx, policy, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// AtMostOnce says of a call that it must not be made again once it may have had an effect: for writes. It stands outermost,
// so that Pipeline{AtMostOnce, guarded} serves writes with the pipeline that serves reads. Policies that would start the call
// again, retry and hedge among them, ask [Next.Repeatable], which is false once the effector was started and did not return
// an error that is [NotMade] at its outermost. The mark belongs to the call and not to its ctx: what the effector calls in
// turn is not concerned. It is safe for concurrent use.
var AtMostOnce Policy = atMostOnce{}

type atMostOnce struct{}

func (atMostOnce) Run(ctx context.Context, next Next) error {
	next.facts.atMostOnce = true
	return next.Run(ctx)
}

// Discard gives a policy that hands drop every value that nobody will get: one that a later run of the effector overwrote,
// one that stands beside an error (the caller then gets the zero value), one that retry held when it decided to wait, one of a
// fork that was given up or ended after its caller had gone, and one whose call panicked. So a value that holds a resource,
// a response body or a connection, does not leak:
//
//	resilience.Discard(func(r *http.Response) { if r != nil { r.Body.Close() } })
//
// It stands outermost. Each value is dropped at most once; drop hears zero values too, and may run on any goroutine, on
// several at once for different calls. Calls of a type T other than D are not concerned, whatever their values hold, unless D is an
// interface that T implements. Of several Discard policies the outermost that fits is the one that hears. Discard panics if drop is
// nil.
func Discard[D any](drop func(D)) Policy {
	if drop == nil {
		panic("resilience: Discard: drop is nil, must be a function")
	}
	return &discard[D]{drop}
}

type discard[D any] struct{ drop func(D) }

// discarder is a discard[D] for any D.
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
