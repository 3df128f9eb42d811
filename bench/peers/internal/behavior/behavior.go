// Package behavior finds out what this library and its alternatives do when calls go wrong.
// It runs each library in virtual time instead of reading what its documentation says.
// The answers are the behavior tables in docs/performance.md.
package behavior

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A Kind is a kind of policy.
type Kind string

// The kinds, in the order of the tables.
const (
	Pipeline Kind = "pipeline"
	Breaker  Kind = "breaker"
	Retry    Kind = "retry"
	Timeout  Kind = "timeout"
	Client   Kind = "HTTP client"
)

// Kinds lists all kinds in the order of the tables.
var Kinds = []Kind{Pipeline, Breaker, Retry, Timeout, Client}

// A call is what subjects guard.
type call[T any] = func(context.Context) (T, error)

// A guard makes a call through the subject's policies.
type guard[T any] = func(ctx context.Context, fn call[T]) (T, error)

// A setup is how a question configures a subject. A subject ignores what it has no setting for.
type setup struct {
	failures int           // consecutive failures that open, or the nearest setting
	openFor  time.Duration // one probe runs at a time, and one success closes
	slowCall time.Duration // a longer call is slow, and half of the calls being slow opens; 0: no such rule
	attempts int           // the first included
	delay    time.Duration // between attempts, constant
	limit    time.Duration // of each attempt
	hangs    bool          // the call ignores its context and may never return
}

// A Subject is one way to guard a call with one library.
type Subject struct {
	Kind Kind
	Name string

	share  func(setup) (guard[int], guard[string]) // two guards with the same policy
	make   func(setup) guard[int]                  // set if share is nil, or if one guard alone is made in another way
	over   transport                               // of an HTTP client, instead of both
	cannot map[string]string                       // by a question's ID: why the subject has no setting for it
}

// guard makes a guard with this setup.
func (s Subject) guard(w setup) guard[int] {
	if s.make != nil {
		return s.make(w)
	}
	g, _ := s.share(w)
	return g
}

// A Question is asked of every subject of a kind.
type Question struct {
	ID   string
	Name string // the head of the row: what a subject that answers yes does
	Text string // what happens to the subject, and what counts as yes

	ask    func(Subject) bool
	detail func(Subject) (found string, ok bool) // instead of ask, if there is more to report than yes or no
}

// An Answer is what a question found out about a subject.
type Answer struct {
	Kind     Kind
	Subject  string // its Name
	Question string // its ID
	Verdict  Verdict
	Found    string // a detail, or ""
	Why      string // the reason for Cannot
}

// A Verdict is yes, no, or cannot: the subject has no setting for what is asked.
type Verdict string

// The verdicts.
const (
	Yes    Verdict = "yes"
	No     Verdict = "no"
	Cannot Verdict = "cannot"
)

// Ask asks q of s, in a bubble of virtual time.
func (q Question) Ask(t *testing.T, s Subject) Answer {
	answer := Answer{Kind: s.Kind, Subject: s.Name, Question: q.ID, Verdict: No}
	if why, ok := s.cannot[q.ID]; ok {
		answer.Verdict, answer.Why = Cannot, why
		return answer
	}
	synctest.Test(t, func(*testing.T) {
		ok := false
		if q.detail != nil {
			answer.Found, ok = q.detail(s)
		} else {
			ok = q.ask(s)
		}
		if ok {
			answer.Verdict = Yes
		}
		time.Sleep(100 * time.Hour) // ends goroutines and timers that a subject left behind
	})
	return answer
}

// Questions returns the questions for a kind in the order of the table's rows.
func Questions(k Kind) []Question {
	switch k {
	case Breaker:
		return []Question{limitsProbes, survivesLostProbe, ignoresStale, ignoresCancellation, ignoresErrorOfCanceled,
			refusesWhenCallsHang, opensForRetryAfter, sharesBreaker}
	case Retry:
		return []Question{stopsWhenCanceled, neverSleepsPastDeadline, keepsLastError, waitsForRetryAfter, sharesRetry}
	case Timeout:
		return []Question{distinguishesOwnLimit, keepsOwnError, returnsFromHungCall, sharesTimeout}
	case Client:
		return []Question{sendsPostOnce, returnsLastResponse, neverSleepsPastDeadlineHTTP, repeatsUnsentPost, leavesBody,
			keepsLastErrorHTTP, reusesConnection}
	default:
		return []Question{limitsProbes, survivesLostProbe, ignoresStale, ignoresCancellation, ignoresErrorOfCanceled,
			neverSleepsPastDeadline, keepsLastError, refusesWhenCallsHang, waitsForRetryAfter, sharesRetry}
	}
}

// Subjects returns the subjects of a kind, this library's first.
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
