// Package observe counts and reports what policies do, for logs, metrics, and traces.
//
//	obs := observe.New(observe.Config{Listeners: []observe.Listener{observe.Log(slog.Default())}})
//	users := obs.Pipeline("users", retry.New(retry.Config{}), breaker.New(breaker.Config{Name: "users"}))
//
//	getUser := resilience.Compose(fetchUser, users)
package observe

import (
	"github.com/effector-go/resilience"
)

// An Observer counts the calls of its pipelines and what their policies do, and calls its
// listeners. It keeps no pipeline and no policy alive. Create an Observer with [New]; it is safe for
// concurrent use.
type Observer struct {
	config Config
}

// New creates an Observer. It panics with the text of [Config.Validate] if the config is invalid.
func New(config Config) *Observer {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	return &Observer{config: config.withDefaults()}
}

// Pipeline returns a policy that runs the given ones, outermost first, and counts what they do
// under the name. Pipelines of one name are counted together. The list is copied, with nested
// [resilience.Pipeline] values flattened. The result is a [resilience.Reporter] of kind "pipeline".
// Pipeline panics if a policy is nil.
func (o *Observer) Pipeline(name string, policies ...resilience.Policy) resilience.Policy {
	panic("TODO")
}

// Watch adds policies and budgets that are used outside pipelines of o, so that snapshots contain
// them. Watching one again changes nothing. Watch panics if a reporter is nil.
func (o *Observer) Watch(reporters ...resilience.Reporter) {
	panic("TODO")
}

// Snapshot returns what o has counted, and a report of each live policy. The caller owns it.
func (o *Observer) Snapshot() Snapshot {
	panic("TODO")
}

// Live returns the live policies and budgets of the kind and name, in the order in which o first
// saw them. It returns nil for those that are counted as "other" because of Config.MaxNames.
func (o *Observer) Live(kind, name string) []resilience.Reporter {
	panic("TODO")
}
