// Package resiliencehttp puts policies around net/http: a [Transport] for clients and [Middleware]
// for servers.
//
//	client := &http.Client{Transport: resiliencehttp.NewTransport(resiliencehttp.Config{
//		Policies: func(key string) resilience.Policy {
//			return resilience.Pipeline{
//				timeout.After(10 * time.Second),
//				retry.New(retry.Config{Budget: budget.New(budget.Config{Ratio: 0.1, MinPerSecond: 1})}),
//				breaker.New(breaker.Config{Name: key}),
//				timeout.After(2 * time.Second),
//			}
//		},
//	})}
//
// Each host has its own policies. To the policies, errors and failed statuses are failures. The
// caller receives what a plain client would receive, including the server's last response. A
// request that must not be repeated is sent only once.
package resiliencehttp

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/health"
	"github.com/effector-go/resilience/internal/keyed"
)

// A Transport is an [http.RoundTripper] that sends requests through policies. Create one with
// [NewTransport]. It is safe for concurrent use and keeps no goroutine running.
//
// The policies' timeouts cover a request until the response headers arrive. From then on, the body
// stays readable until it is read to the end or closed, however short the timeout of an attempt
// was. The request's own context still ends it. Request.Cancel, which [http.Client] uses for its
// Timeout, ends a request, and any wait of a policy, like the end of the context.
//
// A failed response (see [Config].Failed) is a [*StatusError] to the policies. If they end with
// this error, the caller receives the response itself, with its body unread. Examples are a retry
// that has no attempts left, and a retry that may not wait as long as the server asked. In every
// other case the caller receives an error, and no response is left open.
//
// Base's errors are the host's failures, with these exceptions, so that no client can open the breaker
// of a healthy host by what it sends:
//
//   - a request that can't be sent, and a request body that can't be read or that doesn't have the
//     declared length, are marked with [resilience.CallerFault];
//   - a certificate that doesn't verify is a failure that isn't retried;
//   - an error that Base marked keeps its mark.
//
// The caller receives the error without the marks that the Transport added. Every attempt has its own
// header map.
//
// If GetBody fails after a failed response, no attempt follows, and the caller receives that response.
//
// A request runs under [resilience.AtMostOnce] if it isn't repeatable (see [Config].Repeatable), or
// if its body cannot be replayed because it has no GetBody. Without GetBody it is sent only once.
// Otherwise it is sent again only if no connection was obtained for it, or if the server states that
// it didn't process it (see [Config].NotServed).
type Transport struct {
	config   Config // with defaults filled in
	policies *keyed.Store[string, resilience.Policy]
	discard  resilience.Policy
	make     func(key string) (resilience.Policy, bool)
}

// NewTransport returns a Transport with the given configuration. It panics with the text of
// [Config.Validate]'s error if the configuration is invalid.
func NewTransport(config Config) *Transport {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	t := &Transport{config: config.withDefaults()}
	t.policies = keyed.New[string, resilience.Policy](t.config.MaxKeys, t.config.IdleAfter)
	t.policies.KeepIf(health.Unhealthy)
	if t.config.OnEvict != nil {
		t.policies.OnRemove(t.config.OnEvict)
	}
	t.discard = resilience.Discard((*answer).drop)
	t.make = t.newPolicy
	return t
}

// RoundTrip sends the request through the policies of its key (see [Transport]). It always closes
// the request's body and never modifies the request. A request without a host is passed to Base
// unchanged, without policies.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || req.URL.Host == "" {
		return t.config.Base.RoundTrip(req)
	}
	x := exchange{transport: t, request: req}
	defer x.closeUnsent() // also if Key or Policies panics
	key := t.config.Key(req)
	entry := t.policies.Acquire(key, t.make)
	if entry == nil {
		return nil, fmt.Errorf("resiliencehttp: Policies returned nil for %q, must return a Policy", key)
	}
	defer t.policies.Release(entry)
	return x.run(entry.Value())
}

func (t *Transport) newPolicy(key string) (resilience.Policy, bool) {
	policy := t.config.Policies(key)
	if policy == nil {
		return nil, false
	}
	resilience.Compose(func(context.Context) (*answer, error) { return nil, nil }, policy) // panics if policy contains nil
	return policy, true
}

// CloseIdleConnections calls Base's method CloseIdleConnections, if it has one.
func (t *Transport) CloseIdleConnections() {
	if base, ok := t.config.Base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// Policy returns the policy in use for a key, for inspection, and whether there is one. It never
// creates a policy, and it doesn't count as a use: the key can still be evicted as idle.
func (t *Transport) Policy(key string) (resilience.Policy, bool) {
	return t.policies.Look(key)
}

// All returns the keys in use and their policies at the time when the iteration begins, in no
// particular order. Like [Transport.Policy], it doesn't count as a use. The loop may use the
// Transport.
func (t *Transport) All() iter.Seq2[string, resilience.Policy] {
	return func(yield func(string, resilience.Policy) bool) {
		for key, policy := range t.policies.All() {
			if !yield(key, policy) {
				return
			}
		}
	}
}

// defaultKey returns the request's scheme, host, and port.
func defaultKey(req *http.Request) string {
	scheme := strings.ToLower(req.URL.Scheme)
	host, port := strings.ToLower(req.URL.Hostname()), req.URL.Port()
	if port == "" {
		switch scheme {
		case "http":
			port = "80"
		case "https":
			port = "443"
		default:
			return scheme + "://" + strings.ToLower(req.URL.Host)
		}
	}
	if strings.Contains(host, ":") { // IPv6
		host = "[" + host + "]"
	}
	return scheme + "://" + host + ":" + port
}

// An exchange is one request that runs through the policies. It is itself the outermost policy.
type exchange struct {
	transport *Transport
	request   *http.Request
	ctx       context.Context // the request's context, which Request.Cancel cancels too

	atMostOnce bool // runs under AtMostOnce
	noPolicies bool // the user's pipeline is empty
	policies   [4]resilience.Policy
	used       int // number of policies

	chosen   *StatusError // the failure whose response is returned instead of an error
	replaced error        // the error that it replaces

	mu         sync.Mutex // guards the following: attempts may run concurrently
	starts     int
	ended      bool          // the call has returned
	failed     []*answer     // those with open bodies
	marks      []markedError // in the order in which they were added
	lastErr    error         // of the latest attempt that failed, without marks
	nextBody   io.ReadCloser // for the next attempt, nil if GetBody has not been called
	getBodyErr error         // GetBody failed, so no attempt can follow
}

func (x *exchange) run(policy resilience.Policy) (*http.Response, error) {
	ctx, end := requestContext(x.request)
	defer end()
	x.ctx = ctx
	x.atMostOnce = !x.repeatable(ctx)
	if x.atMostOnce {
		x.add(resilience.AtMostOnce)
	}
	x.add(x.transport.discard)
	if !x.transport.config.StatusErrors {
		x.add((*answerPolicy)(x))
	}
	x.add(policy)
	pipeline, ok := policy.(resilience.Pipeline)
	x.noPolicies = ok && len(pipeline) == 0
	a, err := resilience.Do(ctx, resilience.Policy(x), x.attempt)
	switch {
	case err != nil:
		return nil, x.forCaller(err)
	case a == nil:
		return nil, fmt.Errorf("resiliencehttp: a policy for %s returned without an error and without a response", defaultKey(x.request))
	case x.chosen != nil && a.failure != x.chosen:
		a.drop()
		return nil, x.forCaller(x.replaced)
	}
	a.response.Request = x.request
	return a.response, nil
}

func (x *exchange) add(policy resilience.Policy) {
	x.policies[x.used] = policy
	x.used++
}

// Run runs the exchange's policies.
func (x *exchange) Run(ctx context.Context, next resilience.Next) error {
	return resilience.Pipeline(x.policies[:x.used]).Run(ctx, next)
}

// repeatable reports whether the request may be sent again even though it may have had an effect.
func (x *exchange) repeatable(ctx context.Context) bool {
	if !x.replayable() {
		return false
	}
	if allowed, ok := ctx.Value(repeatKey{}).(bool); ok {
		return allowed
	}
	return x.transport.config.Repeatable(x.request)
}

// replayable reports whether another attempt can send the same body.
func (x *exchange) replayable() bool {
	body := x.request.Body
	return body == nil || body == http.NoBody || x.request.GetBody != nil
}

// closeUnsent closes the bodies that no attempt took. Base closes the bodies it receives.
func (x *exchange) closeUnsent() {
	x.mu.Lock()
	unsent := x.nextBody
	if x.starts == 0 {
		unsent = x.request.Body
	}
	x.starts++ // a later start, by a policy that has abandoned a fork, gets its body from GetBody
	x.ended, x.nextBody = true, nil
	x.mu.Unlock()
	if unsent != nil {
		unsent.Close()
	}
}

// answerPolicy is the policy around the user's. It turns a StatusError back into its response (see
// [Transport]).
type answerPolicy exchange

func (a *answerPolicy) Run(ctx context.Context, next resilience.Next) error {
	err := next.Run(ctx)
	x := (*exchange)(a)
	if err == nil || x.ctx.Err() != nil || refused(err) {
		return err
	}
	if x.chosen = x.openFailure(err); x.chosen == nil {
		return err
	}
	x.replaced = err
	return nil
}

// openFailure returns the StatusError in err's tree whose response is still open, or nil.
func (x *exchange) openFailure(err error) *StatusError {
	x.mu.Lock()
	defer x.mu.Unlock()
	var found *StatusError
	inTree(err, func(err error) bool {
		status, ok := err.(*StatusError)
		for _, a := range x.failed {
			if ok && a.failure == status {
				found = status
			}
		}
		return found != nil
	})
	return found
}
