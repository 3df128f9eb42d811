package hedge

import "time"

// An Event describes one additional start of a call: see Config.OnHedge.
type Event struct {
	Name  string        // of the policy
	Start int           // the number of the start in the call: 2 for the first hedge
	After time.Duration // since the call's first start
	Err   error         // the failure that triggers the start; nil if the earlier starts are slow
}
