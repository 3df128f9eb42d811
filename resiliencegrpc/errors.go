package resiliencegrpc

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/timeout"
)

// pushbackKey is the trailer with which a server states when to retry (gRFC A6).
const pushbackKey = "grpc-retry-pushback-ms"

// An attemptError is the error of an attempt, as the policies receive it, except for its mark.
type attemptError struct {
	err    error // gRPC's own
	status *status.Status
	marked error // what the policies received: the attemptError itself or its mark
	answer bool  // marked as NotFailure

	after     time.Duration // how long the server wants the client to wait
	stated    bool          // the server has stated that time, which may be 0
	forbidden bool          // the server forbids retries

	attempt *attempt // nil for an error that no attempt returned
}

// newAttemptError returns the error with what the server states about retries. pushback holds the
// values of the trailer.
func newAttemptError(err error, pushback []string) *attemptError {
	e := &attemptError{err: err, status: statusOf(err)}
	switch len(pushback) {
	case 0:
		e.after = retryInfo(e.status)
		e.stated = e.after > 0
	case 1:
		e.after, e.stated = parsePushback(pushback[0])
		e.forbidden = !e.stated
	default:
		e.forbidden = true
	}
	return e
}

func (e *attemptError) Error() string              { return e.err.Error() }
func (e *attemptError) Unwrap() error              { return e.err }
func (e *attemptError) GRPCStatus() *status.Status { return e.status }

// ErrorType returns the code, such as "UNAVAILABLE", the type of the error in logs and metrics.
func (e *attemptError) ErrorType() string { return errorType(e.status) }

// RetryAfter returns how long the server wants the client to wait.
func (e *attemptError) RetryAfter() time.Duration { return e.after }

// parsePushback returns the value of the trailer, and whether it allows a retry: it is an integer
// that isn't negative.
func parsePushback(text string) (after time.Duration, ok bool) {
	ms, err := strconv.ParseInt(text, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) && ms > 0 && isInteger(text), err == nil && ms > math.MaxInt64/int64(time.Millisecond):
		return math.MaxInt64, true
	case err != nil || ms < 0:
		return 0, false
	}
	return time.Duration(ms) * time.Millisecond, true
}

// isInteger reports whether a text consists of digits after its sign, if it has one. ParseInt stops at
// the digit that is out of range.
func isInteger(text string) bool {
	for _, c := range strings.TrimLeft(text, "+-") {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// retryInfo returns the longest time of the RetryInfo details, 0 if there is none.
func retryInfo(s *status.Status) (longest time.Duration) {
	if len(s.Proto().GetDetails()) == 0 {
		return 0
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			longest = max(longest, info.GetRetryDelay().AsDuration())
		}
	}
	return longest
}

// statusOf returns what gRPC makes of an error. An error is never OK.
func statusOf(err error) *status.Status {
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	if s.Code() == codes.OK {
		s = status.New(codes.Unknown, err.Error())
	}
	return s
}

// errorType returns the name of the status's code in google.rpc.Code.
func errorType(s *status.Status) string {
	if name, ok := code.Code_name[int32(s.Code())]; ok {
		return name
	}
	return strconv.Itoa(int(s.Code()))
}

// own returns the attempt error that err is, without a mark, or nil if a policy has wrapped it.
func own(err error) *attemptError {
	if e, ok := err.(*attemptError); ok {
		return e
	}
	if e, ok := errors.Unwrap(err).(*attemptError); ok && err == e.marked {
		return e
	}
	return nil
}

// A callError is an error of the policies with a status.
type callError struct {
	error
	status *status.Status
}

func (e *callError) Unwrap() error              { return e.error }
func (e *callError) GRPCStatus() *status.Status { return e.status }

// forCaller returns the error that the caller of c receives for err, the policies' error, and the
// attempt that it comes from, nil if it comes from the policies.
func (c *call) forCaller(err error) (*attempt, error) {
	if e := own(err); e != nil && e.of(c) {
		return e.attempt, e.err
	}
	var failed *attemptError // the first one in the tree, or the answer
	walk(err, func(err error) bool {
		if e, ok := err.(*attemptError); ok && e.of(c) && (failed == nil || e.answer) {
			failed = e
		}
		return failed != nil && failed.answer
	})
	if failed != nil && failed.answer {
		return failed.attempt, failed.err
	}
	with := func(s *status.Status) error { return &callError{err, s} }
	text := strings.ToValidUTF8(err.Error(), "�")
	switch ended := c.ctx.Err(); {
	case ended != nil:
		return nil, with(status.New(status.FromContextError(ended).Code(), text))
	case policyIs(err, timeout.ErrTimeout):
		return nil, with(status.New(codes.DeadlineExceeded, text))
	case policyIs(err, resilience.ErrRefused):
		s, _ := refusal(err, text)
		return nil, with(s)
	case failed != nil:
		return failed.attempt, with(failed.status)
	}
	return nil, with(statusOf(err))
}

// of reports whether an attempt of c returned e.
func (e *attemptError) of(c *call) bool { return e.attempt != nil && e.attempt.call == c }

// refusal returns the status of a policy's refusal, and the time after which to retry, 0 if it isn't
// known.
func refusal(err error, text string) (*status.Status, time.Duration) {
	refused := codes.Unavailable
	var after time.Duration
	policyErrors(err, func(err error) bool {
		if e, ok := err.(interface{ HTTPStatus() int }); ok && e.HTTPStatus() == http.StatusTooManyRequests {
			refused = codes.ResourceExhausted
		}
		if e, ok := err.(interface{ RetryAfter() time.Duration }); ok {
			after = max(after, e.RetryAfter())
		}
		return false
	})
	s := status.New(refused, text)
	if after > 0 {
		if detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); err == nil {
			s = detailed
		}
	}
	return s, after
}

// policyIs is errors.Is for the policies' part of err's tree.
func policyIs(err, target error) bool {
	return policyErrors(err, func(err error) bool {
		if err == target {
			return true
		}
		e, ok := err.(interface{ Is(error) bool })
		return ok && e.Is(target)
	})
}

// policyErrors calls visit for err and the errors that it wraps, until visit returns true. It leaves
// out the errors of attempts and of handlers, and what they wrap.
func policyErrors(err error, visit func(error) bool) bool {
	return walk(err, func(err error) bool {
		if isResult(err) {
			return false
		}
		return visit(err)
	})
}

// isResult reports whether err is the error of an attempt or of a handler, not of a policy.
func isResult(err error) bool {
	switch err.(type) {
	case *attemptError, *handlerError:
		return true
	}
	return false
}

// walk calls visit for err and the errors that it wraps, in the order of errors.Is, until visit
// returns true. It calls visit for the errors of attempts and handlers, but not for what they wrap.
func walk(err error, visit func(error) bool) bool {
	if err == nil {
		return false
	}
	if visit(err) {
		return true
	}
	if isResult(err) {
		return false
	}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		return walk(err.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, err := range err.Unwrap() {
			if walk(err, visit) {
				return true
			}
		}
	}
	return false
}

// over reports whether the context has ended, even if its timer is late.
func over(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	deadline, ok := ctx.Deadline()
	return ok && !time.Now().Before(deadline)
}
