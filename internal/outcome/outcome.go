// Package outcome classifies finished calls by the default rules, for policies without a Classify
// of the user.
package outcome

import (
	"context"

	"github.com/effector-go/resilience/internal/mark"
)

// Outcome is what a finished call says about the dependency.
type Outcome int

// The outcomes.
const (
	Success Outcome = iota // the dependency worked
	Failure                // the dependency failed
	Ignored                // the call says nothing about the dependency
)

// Of returns the outcome of a call that returned err to a caller with ctx:
//
//   - no error is a success, even if the caller has gone, and so is an error that is marked as
//     NotFailure or Contention;
//   - an error that is marked as CallerFault is ignored;
//   - an error is ignored if the caller canceled ctx;
//   - every other error is a failure, including that of an expired deadline.
func Of(ctx context.Context, err error) Outcome {
	if err == nil {
		return Success
	}
	switch mark.Of(err) {
	case mark.NotFailure, mark.Contention:
		return Success
	case mark.CallerFault:
		return Ignored
	}
	return OfUnwind(ctx)
}

// OfUnwind returns the outcome of a call that ended by panic or runtime.Goexit: a failure, unless
// the caller canceled ctx.
//
// The decision is based on ctx, not on the error: net/http, gRPC, and drivers return all kinds of
// errors when a call is canceled.
func OfUnwind(ctx context.Context) Outcome {
	if ctx.Err() == context.Canceled {
		return Ignored
	}
	return Failure
}
