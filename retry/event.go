package retry

import "time"

// An Event describes one retry that was decided on: see Config.OnRetry. With Config.ResetAfter,
// Attempt and Elapsed count from the beginning of the current series.
type Event struct {
	Name    string        // of the policy
	Attempt int           // the number of the attempt that failed or was refused, from 1
	Err     error         // the error of that attempt
	Delay   time.Duration // the wait before the next attempt
	Elapsed time.Duration // since the call's first failure; zero for the first failure itself
}
