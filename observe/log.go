package observe

import "log/slog"

// Log returns a listener that logs events and changes of state with l, in the group "resilience".
// Log panics if l is nil.
func Log(l *slog.Logger) Listener {
	panic("TODO")
}
