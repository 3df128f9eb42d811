// Package permanent recognizes the mark of cenkalti/backoff/v4 for errors that aren't retried.
package permanent

import (
	"errors"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience/internal/mark"
)

func init() {
	mark.Register(func(err error) (remark func(error) error, marked error) {
		if permanent, ok := err.(*backoff.PermanentError); ok && permanent != nil {
			return backoff.Permanent, permanent.Err
		}
		return nil, nil
	})
}

// New marks err as permanent, or returns nil if err is nil.
func New(err error) error { return backoff.Permanent(err) }

// Is reports whether a permanent error is anywhere in err's tree.
func Is(err error) bool {
	var permanent *backoff.PermanentError
	return errors.As(err, &permanent)
}

// Without returns err without an outermost mark.
func Without(err error) error {
	if permanent, ok := err.(*backoff.PermanentError); ok && permanent != nil && permanent.Err != nil {
		return permanent.Err
	}
	return err
}
