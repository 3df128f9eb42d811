package resilience

import (
	"log/slog"
	"time"
)

// A Reporter describes itself at this moment: its configuration, its state, and its gauges. Every
// policy of this module is one, except [Pipeline] and [PolicyFunc], and so are budgets. Report is safe
// for concurrent use; it is for views and metrics, not for hot paths.
type Reporter interface{ Report() Report }

// A Report describes a [Reporter] at one moment. The caller owns it.
type Report struct {
	Kind   string            // the package's name, such as "breaker"; or "at_most_once", "discard"
	Name   string            // of its Config; may be empty
	State  string            // such as "closed"; empty for kinds without states
	Values []Value           // gauges; their names and units are the same for all reports of a kind
	Config map[string]string // by field, with defaults, such as "OpenFor": "5s"; without functions, pointers, and Name
}

// A Value is one gauge of a [Report].
type Value struct {
	Name  string // in snake case, such as "running"
	Unit  string // a UCUM code: "{call}", "{call}/s", "{token}", "s", "1"
	Value float64
}

// LogValue returns a group of kind, name, state, and the values by name. An empty name or state is
// left out.
func (r Report) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, 3+len(r.Values))
	attrs = append(attrs, slog.String("kind", r.Kind))
	if r.Name != "" {
		attrs = append(attrs, slog.String("name", r.Name))
	}
	if r.State != "" {
		attrs = append(attrs, slog.String("state", r.State))
	}
	for _, v := range r.Values {
		attrs = append(attrs, slog.Float64(v.Name, v.Value))
	}
	return slog.GroupValue(attrs...)
}

// A Notifier reports changes of its state, as breakers do.
type Notifier interface {
	// Notify calls listen once for every later change, in order, under no lock, and after the
	// hooks of the Config, even if another listener panics. The returned function removes listen;
	// it can be called repeatedly, and by listen itself. Changes that follow are not delivered.
	Notify(listen func(Change)) (stop func())
}

// A Change is a change of state of a [Notifier].
type Change struct {
	Kind, Name string // as in [Report]
	From, To   string // states
	At         time.Time
	Cause      string // in words
	Err        error  // of the call that caused the change, nil if no error did
}

// Report describes the policy.
func (atMostOnce) Report() Report { return Report{Kind: "at_most_once"} }

// Report describes the policy.
func (d *discard[D]) Report() Report { return Report{Kind: "discard"} }
