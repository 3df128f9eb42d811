package resiliencesql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/retry"
)

// An AmbiguousError is returned by [Tx] and [Do] if it is unknown whether the call took effect: the
// answer of COMMIT or of a statement was lost, and [Config].Verify wasn't set or failed. No retry
// repeats it, whether it is inside or outside the call: for retries, the error is permanent, at any
// depth of a tree.
type AmbiguousError struct{ Err error }

// Error contains the text of Err.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("resiliencesql: it is unknown whether the call took effect: %v", e.Err)
}

// Unwrap returns Err.
func (e *AmbiguousError) Unwrap() error { return e.Err }

// As makes the error permanent for [retry.Retry], without adding a mark that a retry would remove.
func (e *AmbiguousError) As(target any) bool {
	return reflect.TypeOf(target) == permanentTarget && errors.As(retry.Permanent(errPermanent), target)
}

var (
	errPermanent    = errors.New("resiliencesql: not repeated: it is unknown whether the call took effect")
	permanentType   = reflect.TypeOf(retry.Permanent(errPermanent))
	permanentTarget = reflect.PointerTo(permanentType)
)

var (
	errEndedByFn = errors.New("resiliencesql: the function ended its transaction, which Tx does")
	errUnclosed  = errors.New("resiliencesql: COMMIT waits for a query that doesn't end: the driver hangs or has panicked in it")
)

// contention marks an error of an attempt that had no effect and that another one may not have.
func contention(err error) error { return resilience.NotMade(resilience.Contention(err)) }

// isMarked reports whether err has an outer mark other than the time to wait.
func isMarked(err error) bool {
	if mark.Of(err) != mark.None || mark.IsNotMade(err) {
		return true
	}
	for {
		delay, ok := err.(*mark.Delay)
		if !ok {
			return reflect.TypeOf(err) == permanentType
		}
		err = delay.Unwrap()
	}
}

// kept returns err with the marks that the program put on it. Contention also becomes NotMade if the
// attempt had no effect, since only then AtMostOnce lets it be tried again.
func kept(err error, effect bool) error {
	if !effect && mark.Of(err) == mark.Contention {
		return resilience.NotMade(err)
	}
	return err
}

// withContext returns err as an error that also matches the error and the cause of ctx, which has
// ended. err may be nil.
func withContext(ctx context.Context, err error) error {
	ended := resilience.ContextErr(ctx)
	switch {
	case err == nil:
		return ended
	case errors.Is(err, ctx.Err()) && errors.Is(err, context.Cause(ctx)):
		return err
	}
	return fmt.Errorf("%w: %w", ended, err)
}

// A notBadConn is an error that doesn't match driver.ErrBadConn, although err does.
type notBadConn struct{ err error }

func (e *notBadConn) Error() string { return e.err.Error() }

func (e *notBadConn) Is(target error) bool {
	return target != driver.ErrBadConn && errors.Is(e.err, target)
}

func (e *notBadConn) As(target any) bool { return errors.As(e.err, target) }
