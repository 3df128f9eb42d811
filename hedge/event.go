package hedge

import "time"

// An Event tells of one further start of a call: see Config.OnHedge.
type Event struct {
	Name  string        // of the policy
	Start int           // its number in the call: 2 for the first hedge
	After time.Duration // since the call's first start
	Err   error         // the failure that has it begin at once; nil if the starts before are slow
}
