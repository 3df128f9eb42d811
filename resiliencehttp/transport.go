// Package resiliencehttp puts policies around net/http: a [Transport] for clients and [Middleware] for servers.
//
//	client := &http.Client{Transport: resiliencehttp.NewTransport(resiliencehttp.Config{
//		Policies: func(key string) resilience.Policy {
//			return resilience.Pipeline{
//				timeout.After(10 * time.Second),
//				retry.New(retry.Config{Budget: retries}),
//				breaker.New(breaker.Config{Name: key}),
//				timeout.After(2 * time.Second),
//			}
//		},
//	})}
//
// Each host has policies of its own. What fails inside them is an error or a bad status; what the caller gets is what a plain
// client would get, the server's last answer included. Requests that must not be sent twice are not.
package resiliencehttp

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/keyed"
)

// A Transport is an [http.RoundTripper] that sends requests through policies. It is made by [NewTransport] and safe for concurrent
// use. It holds no goroutine.
//
// The policies' time covers the way to the response's headers. From then on the body lives until it is read to its end or closed,
// however short an attempt's limit was; the request's own ctx still ends it. Request.Cancel, which [http.Client] uses for its Timeout, ends a
// request and what policies wait for as the ctx does.
//
// A failed response ([Config].Failed) is a [*StatusError] for the policies. The caller gets the response itself, its body unread, if that error is
// what the policies ended with: where they were out of attempts, say, or forbidden to wait for as long as the server asked. In every other
// case the caller gets an error, and no response is left open.
//
// A request that is not repeatable ([Config].Repeatable), or whose body cannot be replayed since it has no GetBody, runs under
// [resilience.AtMostOnce]: it is sent again only if no connection was got for it.
type Transport struct {
	config   Config // with defaults filled in
	policies *keyed.Store[string, resilience.Policy]
	discard  resilience.Policy
	make     func(key string) (resilience.Policy, bool)
}

// NewTransport gives a Transport. It panics with the text of [Config.Validate]'s error if there is one.
func NewTransport(config Config) *Transport {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	t := &Transport{config: config.withDefaults()}
	t.policies = keyed.New[string, resilience.Policy](t.config.MaxKeys, t.config.IdleAfter)
	t.discard = resilience.Discard((*answer).drop)
	t.make = t.newPolicy
	return t
}

// RoundTrip sends the request through the policies of its key: see [Transport]. It closes the request's body on every path, and does not
// modify the request. A request without host goes to Base as it is.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || req.URL.Host == "" {
		return t.config.Base.RoundTrip(req)
	}
	x := exchange{transport: t, request: req}
	defer x.closeUnsent() // panics of Key and Policies too
	key := t.config.Key(req)
	entry := t.policies.Acquire(key, t.make)
	if entry == nil {
		return nil, fmt.Errorf("resiliencehttp: Policies gave nil for %q, must give a Policy", key)
	}
	defer t.policies.Release(entry)
	return x.run(entry.Value())
}

func (t *Transport) newPolicy(key string) (resilience.Policy, bool) {
	policy := t.config.Policies(key)
	if policy == nil {
		return nil, false
	}
	resilience.Compose(func(context.Context) (*answer, error) { return nil, nil }, policy) // panics on a nil policy within
	return policy, true
}

// CloseIdleConnections closes the idle connections of Base, if that has a method to do so.
func (t *Transport) CloseIdleConnections() {
	if base, ok := t.config.Base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// Policy gives the policy that is in use for a key, to look at, and whether there is one. It makes none, and does not keep an
// idle key from falling away.
func (t *Transport) Policy(key string) (resilience.Policy, bool) {
	return t.policies.Look(key)
}

// defaultKey is the request's scheme, host and port.
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

// An exchange is one request on its way through the policies, to which it is the outermost policy.
type exchange struct {
	transport *Transport
	request   *http.Request
	ctx       context.Context // the request's, which Request.Cancel ends too
	once      bool            // runs under AtMostOnce
	unguarded bool            // by any of the user's policies
	policies  [4]resilience.Policy
	used      int // of policies

	kept    *StatusError // of the response that is to be the answer in place of an error
	instead error        // of which it is in place

	mu      sync.Mutex // guards the following: attempts may run beside one another
	starts  int
	failed  []*answer // whose bodies are open
	unmade  error     // the latest error marked as NotMade ...
	unmarks error     // ... and the same without the mark
}

func (x *exchange) run(policy resilience.Policy) (*http.Response, error) {
	ctx, end := callersContext(x.request)
	defer end()
	x.ctx = ctx
	x.once = !x.repeatable(ctx)
	if x.once {
		x.add(resilience.AtMostOnce)
	}
	x.add(x.transport.discard)
	if !x.transport.config.StatusErrors {
		x.add((*answering)(x))
	}
	x.add(policy)
	pipeline, ok := policy.(resilience.Pipeline)
	x.unguarded = ok && len(pipeline) == 0
	a, err := resilience.Do(ctx, resilience.Policy(x), x.attempt)
	switch {
	case err != nil:
		return nil, x.outward(err)
	case a == nil:
		return nil, fmt.Errorf("resiliencehttp: a policy for %s returned without an error and without a response", defaultKey(x.request))
	case x.kept != nil && a.failure != x.kept:
		a.drop()
		return nil, x.outward(x.instead)
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

// repeatable reports whether the request may be sent again after it may have had an effect.
func (x *exchange) repeatable(ctx context.Context) bool {
	if !x.replayable() {
		return false
	}
	if allowed, ok := ctx.Value(repeatKey{}).(bool); ok {
		return allowed
	}
	return x.transport.config.Repeatable(x.request)
}

// replayable reports whether there is a body for another attempt.
func (x *exchange) replayable() bool {
	body := x.request.Body
	return body == nil || body == http.NoBody || x.request.GetBody != nil
}

// closeUnsent closes the request's body if no attempt took it: Base closes what it gets.
func (x *exchange) closeUnsent() {
	x.mu.Lock()
	unsent := x.starts == 0
	x.starts++ // a start that comes later, of an effector left behind, gets a body of its own
	x.mu.Unlock()
	if unsent && x.request.Body != nil {
		x.request.Body.Close()
	}
}

// answering is the policy next to the user's that makes a failed response the answer: see [Transport].
type answering exchange

func (a *answering) Run(ctx context.Context, next resilience.Next) error {
	err := next.Run(ctx)
	x := (*exchange)(a)
	if err == nil || x.ctx.Err() != nil || refused(err) {
		return err
	}
	if x.kept = x.open(err); x.kept == nil {
		return err
	}
	x.instead = err
	return nil
}

// open gives the StatusError in err's tree whose response is still open.
func (x *exchange) open(err error) *StatusError {
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
