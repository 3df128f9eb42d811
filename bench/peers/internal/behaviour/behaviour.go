// Package behaviour finds out what this library and those that a user would take instead do where a call goes wrong: by
// running each in virtual time, not by reading what it says of itself. The answers make the table in docs/performance.md.
package behaviour

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A Kind is what a library's part is for.
type Kind string

// The kinds, in the order of the tables.
const (
	Breaker  Kind = "breaker"
	Retry    Kind = "retry"
	Timeout  Kind = "timeout"
	Pipeline Kind = "pipeline"
	Client   Kind = "client for HTTP"
)

// Kinds are all of them, in the order of the tables.
var Kinds = []Kind{Breaker, Retry, Timeout, Pipeline, Client}

// A call is what the subjects guard.
type call[T any] = func(context.Context) (T, error)

// A guard makes a call as the subject would have it.
type guard[T any] = func(ctx context.Context, fn call[T]) (T, error)

// A want is what a probe asks a subject to be set to; a subject takes from it what it has a place for.
type want struct {
	failures int           // in a row that open, or the nearest to it
	openFor  time.Duration // with one probe at a time, one success closes
	slowCall time.Duration // a call that takes longer is slow, and half of them slow opens, if not 0
	attempts int           // the first included
	delay    time.Duration // between attempts, always the same
	limit    time.Duration // of each attempt
	hangs    bool          // the call ignores its ctx and may not come back
}

// A Subject is one library's way to guard a call.
type Subject struct {
	Kind Kind
	Name string

	share func(want) (guard[int], guard[string]) // of one policy
	make  func(want) guard[int]                  // where share is nil, or where alone the policy is used in another way
	over  transport                              // of a client for HTTP, in place of both
	lacks map[string]string                      // by the probe's ID, why the subject has no place for what it asks
}

// guard makes a guard as wanted.
func (s Subject) guard(w want) guard[int] {
	if s.make != nil {
		return s.make(w)
	}
	g, _ := s.share(w)
	return g
}

// A Probe asks one thing of every subject of a kind.
type Probe struct {
	ID   string
	Name string // the column's head, read after "does it"
	Asks string // what is done, and what counts as yes

	ask  func(Subject) bool
	tell func(Subject) (found string, ok bool) // in place of ask, where more can be told than yes or no
}

// An Answer is what a probe found of a subject.
type Answer struct {
	Kind    Kind
	Subject string // its Name
	Probe   string // its ID
	Verdict Verdict
	Found   string // more than Yes or No tells, if anything
	Why     string // of Cannot
}

// A Verdict is yes, no or cannot: the subject has no place for what is asked.
type Verdict string

// The verdicts.
const (
	Yes    Verdict = "yes"
	No     Verdict = "no"
	Cannot Verdict = "cannot"
)

// Run asks p of s, in a bubble of virtual time.
func (p Probe) Run(t *testing.T, s Subject) Answer {
	answer := Answer{Kind: s.Kind, Subject: s.Name, Probe: p.ID, Verdict: No}
	why, ok := s.Kind.Lacks(p.ID)
	if !ok {
		why, ok = s.lacks[p.ID]
	}
	if ok {
		answer.Verdict, answer.Why = Cannot, why
		return answer
	}
	synctest.Test(t, func(*testing.T) {
		ok := false
		if p.tell != nil {
			answer.Found, ok = p.tell(s)
		} else {
			ok = p.ask(s)
		}
		if ok {
			answer.Verdict = Yes
		}
		time.Sleep(100 * time.Hour) // what subjects left asleep ends
	})
	return answer
}

// Probes are those of a kind, in the order of the table's columns. Of every kind but Client the same is asked, be it that the kind as
// such has no place for it: see [Kind.Lacks].
func Probes(k Kind) []Probe {
	switch k {
	case Breaker:
		return []Probe{limitsProbes, survivesLostProbe, ignoresStale, ignoresCancellation, ignoresAnyErrorOfCancelled,
			sparesVainWait, keepsLastError, opensOnHungCalls, opensForRetryAfter, sharedBreaker}
	case Retry:
		return []Probe{limitsProbes, survivesLostProbe, ignoresStale, leavesCancelled,
			sparesVainWait, keepsLastError, opensOnHungCalls, waitsOutRetryAfter, sharedRetry}
	case Timeout:
		return []Probe{limitsProbes, survivesLostProbe, ignoresStale, tellsOwnLimit,
			sparesVainWait, keepsOwnError, returnsFromHungCall, waitsOutRetryAfter, sharedTimeout}
	case Client:
		return []Probe{sparesPost, handsOnAnswer, sparesVainRetryAfter, repeatsRefusedPost, leavesBody, keepsErrorOfAttempt,
			reusesConnection}
	default:
		return []Probe{limitsProbes, survivesLostProbe, ignoresStale, ignoresCancellation, ignoresAnyErrorOfCancelled,
			sparesVainWait, keepsLastError, opensOnHungCalls, waitsOutRetryAfter, sharedRetry}
	}
}

const (
	noAttempts = "makes a call once and waits for nothing before it"
	noRefusals = "refuses no calls"
	noHalfOpen = "has no half-open state"
)

// Lacks tells why no subject of the kind has a place for what the probe of that ID asks.
func (k Kind) Lacks(probe string) (why string, ok bool) {
	switch k {
	case Breaker:
		why = map[string]string{"deadline": noAttempts, "last-error": noAttempts}[probe]
	case Retry:
		why = map[string]string{"probes": noHalfOpen, "lost": noHalfOpen, "stale": noHalfOpen, "hung": noRefusals}[probe]
	case Timeout:
		why = map[string]string{
			"probes": noHalfOpen, "lost": noHalfOpen, "stale": noHalfOpen, "deadline": noAttempts, "retry-after": noAttempts,
		}[probe]
	}
	return why, why != ""
}

// Subjects are those of a kind, this library's first.
func Subjects(k Kind) []Subject {
	switch k {
	case Breaker:
		return breakers()
	case Retry:
		return retries()
	case Timeout:
		return timeouts()
	case Client:
		return clients()
	default:
		return pipelines()
	}
}
