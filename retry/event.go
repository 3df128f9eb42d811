package retry

import "time"

// An Event tells of one retry that was decided on: see Config.OnRetry.
type Event struct {
	Name    string        // of the policy
	Attempt int           // the number of the attempt that failed, from 1; of the one that was refused
	Err     error         // what it failed with
	Delay   time.Duration // the wait before the next
	Elapsed time.Duration // since the first failure of the call, zero at the first
}
