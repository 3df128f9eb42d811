// Package outcome says what a call that ended tells of the dependency, where the user of a policy gives no rule of his own.
package outcome

import "context"

// Outcome is what a call tells of the dependency.
type Outcome int

// The outcomes.
const (
	Success Outcome = iota // the dependency did its work
	Failure                // it did not
	Ignored                // the call tells nothing
)

// Of is the outcome of a call that returned err to a caller with ctx. No error is a success, that of a call whose caller has gone too. Every
// other error is a failure, that of an expired deadline too, unless the caller went away.
func Of(ctx context.Context, err error) Outcome {
	if err == nil {
		return Success
	}
	return OfUnwind(ctx)
}

// OfUnwind is the outcome of a call that ended by panic or runtime.Goexit: a failure, unless the caller went away.
//
// That is asked of ctx and not of the error: net/http, gRPC and drivers return errors of all sorts when a call is canceled.
func OfUnwind(ctx context.Context) Outcome {
	if ctx.Err() == context.Canceled {
		return Ignored
	}
	return Failure
}
