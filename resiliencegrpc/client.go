// Package resiliencegrpc puts policies around gRPC: [DialOptions] for clients and [ServerOptions] for
// servers.
//
//	conn, err := grpc.NewClient(target, append(resiliencegrpc.DialOptions(resiliencegrpc.Config{
//		Policies: func(key string) resilience.Policy {
//			return resilience.Pipeline{
//				timeout.After(2 * time.Second),
//				retry.New(retry.Config{Budget: budget.New(budget.Config{Ratio: 0.1, MinPerSecond: 1})}),
//				breaker.New(breaker.Config{Name: key}),
//				timeout.After(500 * time.Millisecond),
//			}
//		},
//	}), creds)...)
//
// Each target has its own policies. The caller sees what a plain client would see: the server's
// status, its details, headers, and trailers. An error of the policies has a status too. A call that
// must not be repeated is sent only once, and a server that asks the client to wait, or not to retry,
// is obeyed.
//
// A call through the pipeline above makes seven allocations more than a bare call with the same
// deadline and a stats handler (TestUnaryAllocatesLittle).
package resiliencegrpc

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/health"
	"github.com/effector-go/resilience/internal/keyed"
	"github.com/effector-go/resilience/retry"
)

// DialOptions returns the options for [grpc.NewClient] with which every call runs through the
// policies of its key. It panics with the text of [Config.Validate]'s error if the configuration is
// invalid. Connections that are created with the same options share the policies.
//
// The options are interceptors for unary calls and for streams, a stats handler, and
// [grpc.WithDisableRetry]: retries of the service config would multiply those of the policies.
// Interceptors that are passed before these options see calls; those that are passed after them see
// attempts.
//
// # Errors
//
// An attempt's error that no policy has wrapped is gRPC's own error value, and so is every answer: an
// error that isn't a failure and isn't retried, such as NotFound, however late it comes. Any other
// error has a status and unwraps to the policies' error. Its status is the first that applies:
//
//   - Canceled or DeadlineExceeded, if the caller's context has ended;
//   - DeadlineExceeded, if a limit of package timeout has passed;
//   - Unavailable, if a policy refused the call, or ResourceExhausted if the refusal has an HTTPStatus
//     of 429; a RetryInfo detail states when to retry, where that is known;
//   - the server's status, if the error contains that of an attempt;
//   - what gRPC makes of the error.
//
// A policy that returns nil without making the call makes the call fail with Internal.
//
// # What the policies receive
//
// Failed and Retryable decide what an attempt's error is to the policies:
//
//   - failed and retryable: an unmarked error;
//   - failed and not retryable: [retry.Permanent];
//   - not failed but retryable: [resilience.Contention];
//   - neither: [resilience.NotFailure], an answer.
//
// The following come first:
//
//   - Canceled is a [resilience.CallerFault], unless the server sent it although neither the caller nor
//     a policy had canceled the attempt.
//   - Unavailable and DeadlineExceeded before anything was sent are [resilience.NotMade], whatever
//     the method and Retryable.
//   - DeadlineExceeded of an attempt whose context has ended is unmarked.
//   - Any other error before the message was sent is a CallerFault if the server didn't send it: a
//     message that is too large or can't be encoded, an unknown compressor, a credential.
//
// The server's pushback, the trailer grpc-retry-pushback-ms or a RetryInfo detail, is the error's
// RetryAfter. A pushback that is negative or invalid forbids retries.
//
// # Repeating
//
// A call runs under [resilience.AtMostOnce] unless [AllowRepeat] or [Config].Repeatable allows more.
// From the second attempt on, the metadata has grpc-previous-rpc-attempts.
//
// An attempt of a hedge, or of a timeout that abandons, works on copies of the messages. If a message
// isn't a [proto.Message], the reply is a new value of its type and the request is shared: it must
// not be changed after the call.
//
// # Streams
//
// If the client sends many messages, the policies cover the opening only. If it sends one, they cover
// the request and the wait for the first message or the end; until then, the stream may be opened
// again. Later failures are not reported to the policies. Once established, only the caller's
// context ends the stream, and the server sees only the caller's deadline.
//
// A limit that passes while the server has sent no headers ends the stream. So a stream that may be
// silent at first, such as a watch, must send its headers early, or needs a key without timeouts. A
// limit that passes later establishes the stream, except for a timeout with Abandon, which doesn't
// wait for that.
//
// A call with [grpc.WaitForReady] waits as long as the policies' timeouts allow. Without a timeout, it
// waits for a connection as long as the caller does, and a breaker never sees it fail.
func DialOptions(config Config) []grpc.DialOption {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	c := &client{config: config.withDefaults()}
	c.guards = keyed.New[string, guard](c.config.MaxKeys, c.config.IdleAfter)
	c.guards.KeepIf(func(g guard) (bool, int64) { return health.Unhealthy(g.policy) })
	c.make = c.newGuard
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
		grpc.WithStatsHandler(statsHandler{}),
		grpc.WithDisableRetry(),
	}
}

// A client holds what all calls with the same options share.
type client struct {
	config Config // with defaults
	guards *keyed.Store[string, guard]
	make   func(key string) (guard, bool)
}

// A guard is the policy of a key, and the pipelines for calls with this key. They are flat, so that a
// call doesn't have to flatten them.
type guard struct {
	policy     resilience.Policy
	repeatable resilience.Pipeline
	atMostOnce resilience.Pipeline
}

func (c *client) newGuard(key string) (g guard, ok bool) {
	policy := c.config.Policies(key)
	if policy == nil {
		return g, false
	}
	resilience.Compose(func(context.Context) (*attempt, error) { return nil, nil }, policy) // panics if policy contains nil
	flat := append(flattened(nil, policy), forkPolicy{})
	return guard{policy, flat, append(resilience.Pipeline{resilience.AtMostOnce}, flat...)}, true
}

// flattened appends the policies of a pipeline, at any depth, or the policy itself.
func flattened(flat resilience.Pipeline, policy resilience.Policy) resilience.Pipeline {
	pipeline, ok := policy.(resilience.Pipeline)
	if !ok {
		return append(flat, policy)
	}
	for _, inner := range pipeline {
		flat = flattened(flat, inner)
	}
	return flat
}

// A call is one call, with all of its attempts.
type call struct {
	client  *client
	ctx     context.Context // the caller's
	method  string
	conn    *grpc.ClientConn
	options options

	attempts atomic.Int32

	// mu guards the following. An attempt on a fork also holds it while it copies what belongs to the
	// caller: so end waits for the copies, and an attempt that begins later sees that the call has ended.
	mu     sync.Mutex
	ended  bool
	failed *attempt // the last one that failed
}

// acquire returns the entry of the call's key. The caller must release it.
func (c *call) acquire() (*keyed.Entry[string, guard], error) {
	key := c.client.config.Key(c.conn.Target(), c.method)
	entry := c.client.guards.Acquire(key, c.client.make)
	if entry == nil {
		return nil, status.Errorf(codes.Internal, "resiliencegrpc: Policies returned nil for %q, must return a Policy", key)
	}
	return entry, nil
}

// pipeline returns the policies for the call.
func (c *call) pipeline(g guard) resilience.Pipeline {
	repeatable := c.options.repeat
	if !c.options.overrides {
		repeatable = c.client.config.Repeatable(c.method)
	}
	if repeatable {
		return g.repeatable
	}
	return g.atMostOnce
}

// result returns the attempt whose result the caller receives, and the caller's error. last is the
// last attempt that was made, nil if there was none, and err the policies' error.
func (c *call) result(last *attempt, err error) (*attempt, error) {
	switch {
	case err != nil:
		return c.forCaller(err)
	case last == nil:
		c.mu.Lock()
		last = c.failed
		c.mu.Unlock()
		if last == nil {
			return nil, status.Errorf(codes.Internal, "resiliencegrpc: the policy for %s returned nil without making the call", c.method)
		}
	}
	if last.err != nil {
		return last, last.err.err
	}
	return last, nil
}

// end ends the call: from now on, no attempt reads or writes what belongs to the caller.
func (c *call) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
}

// An attempt is one attempt of a call, and the context for it.
type attempt struct {
	context.Context // the policies', with the attempt's metadata
	call            *call
	forked          bool // the call may return before the attempt ends
	targets         *targets
	trace           trace
	err             *attemptError  // nil unless it failed
	reply           any            // of a unary call
	stream          *streamAttempt // that this attempt is part of; nil for a unary call
}

// Value returns the attempt itself for attemptKey.
func (a *attempt) Value(key any) any {
	if key == (attemptKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// begin initializes an attempt. ctx is the policies' context.
func (a *attempt) begin(c *call, ctx context.Context) {
	if fork, ok := ctx.(forkContext); ok {
		ctx, a.forked = fork.Context, true
	}
	a.Context, a.call = ctx, c
	if n := c.attempts.Add(1); n > 1 {
		md, _ := metadata.FromOutgoingContext(ctx) // a copy
		if md == nil {
			md = metadata.MD{}
		}
		md.Set(previousKey, strconv.Itoa(int(n-1)))
		a.Context = metadata.NewOutgoingContext(ctx, md)
	}
}

// previousKey is the metadata that counts the attempts before this one (gRFC A6).
const previousKey = "grpc-previous-rpc-attempts"

// forkPolicy is the innermost policy. It passes on to the attempt whether it runs on a fork.
type forkPolicy struct{}

func (forkPolicy) Run(ctx context.Context, next resilience.Next) error {
	if next.Forked() {
		ctx = forkContext{ctx}
	}
	return next.Run(ctx)
}

type forkContext struct{ context.Context }

// fail returns the error that the policies receive for the error of an attempt.
func (a *attempt) fail(err error) error {
	seen := a.trace.seen()
	e := newAttemptError(err, seen.pushback)
	e.attempt, a.err = a, e
	e.marked = a.mark(e, seen)
	a.call.mu.Lock()
	a.call.failed = a
	a.call.mu.Unlock()
	return e.marked
}

// mark marks the error by what it means for the policies.
func (a *attempt) mark(e *attemptError, seen facts) error {
	code := e.status.Code()
	reset := strings.HasPrefix(e.status.Message(), resetText)
	seen.received = seen.received || reset
	unreached := code == codes.Unavailable || code == codes.DeadlineExceeded
	switch {
	case code == codes.Canceled && (!seen.ended && !reset || over(a.call.ctx) || over(a.Context)):
		return resilience.CallerFault(e)
	case unreached && seen.neverSent():
		return resilience.NotMade(e)
	case code == codes.DeadlineExceeded && over(a.Context):
		return e
	case !unreached && seen.local():
		return resilience.CallerFault(e)
	}
	config := &a.call.client.config
	retryable := !e.forbidden && config.Retryable(e)
	switch {
	case config.Failed(code) && retryable:
		return e
	case config.Failed(code):
		return retry.Permanent(e)
	case retryable:
		return resilience.Contention(e)
	}
	e.answer, e.after, e.stated = true, 0, false
	return resilience.NotFailure(e)
}
