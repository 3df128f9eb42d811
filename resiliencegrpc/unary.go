package resiliencegrpc

import (
	"context"
	"reflect"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/effector-go/resilience"
)

// A unaryCall is a unary call.
type unaryCall struct {
	call
	request, reply any
	invoker        grpc.UnaryInvoker
}

// unary is a grpc.UnaryClientInterceptor.
func (c *client) unary(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if c.config.Skip(method) {
		return invoker(hidden(ctx), method, request, reply, conn, opts...)
	}
	u := &unaryCall{
		call:    call{client: c, ctx: ctx, method: method, conn: conn, options: newOptions(opts)},
		request: request, reply: reply, invoker: invoker,
	}
	defer u.end() // also if a policy panics: it may have left an attempt running
	err := u.run()
	u.options.finished(err)
	return err
}

func (u *unaryCall) run() error {
	entry, err := u.acquire()
	if err != nil {
		return err
	}
	defer u.client.guards.Release(entry)
	last, err := resilience.Do(u.ctx, u.pipeline(entry.Value()), u.attempt)
	u.end()
	from, err := u.result(last, err)
	if from != nil {
		u.options.handOver(from.targets)
		if err == nil && from.forked {
			replace(u.reply, from.reply)
		}
	}
	return err
}

// attempt makes the call once.
func (u *unaryCall) attempt(ctx context.Context) (*attempt, error) {
	a := new(attempt)
	a.begin(&u.call, ctx)
	request, reply, rest := u.request, u.reply, u.options.rest
	if a.forked {
		var err error
		if request, reply, rest, err = u.copies(); err != nil {
			return nil, err
		}
	}
	rest, a.targets = u.options.forAttempt(rest)
	if err := u.invoker(a, u.method, request, reply, u.conn, rest...); err != nil {
		return a, a.fail(err)
	}
	a.reply = reply
	return a, nil
}

// copies returns what an attempt on a fork uses instead of what belongs to the caller.
func (u *unaryCall) copies() (request, reply any, rest []grpc.CallOption, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil, nil, nil, errEnded
	}
	if reply, err = newLike(u.reply); err != nil {
		return nil, nil, nil, resilience.CallerFault(err)
	}
	return copyOf(u.request), reply, slices.Clone(u.options.rest), nil
}

// errEnded is the error of an attempt that begins after its call has returned.
var errEnded = resilience.CallerFault(status.Error(codes.Canceled, "resiliencegrpc: the call has returned"))

// copyOf returns a copy of a request. It shares what isn't a proto.Message.
func copyOf(request any) any {
	if m, ok := request.(proto.Message); ok {
		return proto.Clone(m)
	}
	return request
}

// newLike returns a new message of reply's type.
func newLike(reply any) (any, error) {
	if m, ok := reply.(proto.Message); ok {
		return m.ProtoReflect().New().Interface(), nil
	}
	if t := reflect.TypeOf(reply); t != nil && t.Kind() == reflect.Pointer {
		return reflect.New(t.Elem()).Interface(), nil
	}
	return nil, status.Errorf(codes.Internal, "resiliencegrpc: the reply is a %T, must be a pointer, because the policies hedge or abandon", reply)
}

// replace makes reply equal to own, which newLike has returned for it.
func replace(reply, own any) {
	if m, ok := reply.(proto.Message); ok {
		proto.Reset(m)
		proto.Merge(m, own.(proto.Message))
		return
	}
	reflect.ValueOf(reply).Elem().Set(reflect.ValueOf(own).Elem())
}
