// Package resiliencesql puts policies around database/sql: transactions that are repeated as a whole
// ([Tx]), statements on one connection ([Do]), and guarded dialing ([Connector]).
//
//	transfers := resilience.Pipeline{
//		timeout.After(3 * time.Second),
//		retry.New(retry.Config{MaxAttempts: 5, Backoff: retry.FullJitter(10*time.Millisecond, time.Second)}),
//		breaker.New(breaker.Config{Name: "db1"}),
//	}
//	balance, err := resiliencesql.Tx(ctx, db, transfers, resiliencesql.Config{},
//		func(ctx context.Context, tx *sql.Tx) (int64, error) { ... })
//
// A repeat is safe because each error is marked by its class ([Classify]) and by when it occurred:
//
//   - Until COMMIT is sent, nothing has taken effect. A lost connection, a deadlock, and a
//     serialization failure are repeated.
//   - If COMMIT's answer is lost, the outcome is unknown. The call ends with an [AmbiguousError] and
//     isn't repeated, unless [Config].Verify finds out what happened.
//   - Errors that are the caller's own, such as a violated constraint, are neither repeated nor
//     counted as failures of the database.
//
// The function that Tx and Do call may run more than once. Each time, it sets again whatever it sets
// outside itself, and it has no other effects than those in the database. It uses the context that it
// receives, returns the errors of its statements, and doesn't end its transaction: no Commit, no
// Rollback, no statement that commits, such as COMMIT as text or, in MySQL, DDL. It doesn't call Tx
// inside itself, which would wait for a second connection while it holds the first.
//
// A transaction costs at most 30 allocations more than one written manually, a statement with Do at
// most 15 (TestTxAllocatesLittle and TestDoAllocatesLittle in resiliencesql/dbtest).
package resiliencesql

import (
	"context"
	"database/sql"
	"reflect"
	"slices"

	"github.com/effector-go/resilience"
)

// Config states what a call may do. The zero Config is right for a transaction that writes, with the
// database's default isolation level.
type Config struct {
	// Options are those of the transaction. Default nil: the driver's defaults. [Do] panics if it is
	// set.
	Options *sql.TxOptions
	// Repeatable states that the call may take effect twice, so that it is repeated even if an
	// earlier attempt may have taken effect. Default false: the call is under
	// [resilience.AtMostOnce]. A read-only transaction (Options.ReadOnly) is always repeatable.
	Repeatable bool
	// Verify finds out whether an attempt took effect whose outcome is unknown. It is called once for
	// each such attempt, after the attempt's connection was given up. True means that the attempt
	// took effect: the call succeeds with the value that the function returned. False means that it
	// did not and never will, so that it may be repeated. An error means that this is still unknown.
	//
	// "Never will" matters: the server may still be committing. In PostgreSQL, query pg_xact_status;
	// in MySQL, use a locking read of a row that the transaction writes; or let the transaction write
	// a unique key, so that a repeat fails.
	//
	// Its context has the values of the attempt's context and ends with it, but not within 1 s.
	// Default none: the call ends with an [AmbiguousError].
	Verify func(ctx context.Context) (tookEffect bool, err error)
	// Classify returns the class of an error of the driver or of the function. It isn't called with
	// nil. Default [Classify]. A value that isn't one of the constants counts as [Unknown].
	Classify func(error) Class
}

func (c *Config) repeatable() bool {
	return c.Repeatable || c.Options != nil && c.Options.ReadOnly
}

func (c *Config) class(err error) Class {
	if c.Classify == nil {
		return Classify(err)
	}
	if err == nil {
		return Answered
	}
	if class := c.Classify(err); class > Unknown && int(class) < len(classes) {
		return class
	}
	return Unknown
}

// DBTX has the methods that *sql.DB, *sql.Conn, and *sql.Tx share. Code that sqlc generates accepts
// it.
type DBTX interface {
	// ExecContext runs a statement that returns no rows.
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	// PrepareContext prepares a statement.
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	// QueryContext runs a statement that returns rows.
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	// QueryRowContext runs a statement that returns at most one row.
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Tx runs fn in a transaction inside the policy, and commits it if fn returns nil. Each attempt is a
// whole transaction on its own connection, which is rolled back if fn returns an error, panics, or
// calls [runtime.Goexit], or if the attempt's context ends before fn returns. With an error, the
// value is the zero T.
//
// The errors of an attempt are marked for the policies by their class and by when they occurred; the
// table is in docs/sql.md. Unless config says that the transaction is repeatable, it is under
// [resilience.AtMostOnce], and if its outcome is unknown, the error is an [*AmbiguousError]. If fn
// ended the transaction itself, the outcome is unknown too.
//
// BEGIN ends with the attempt's context. COMMIT does too, but has at least 1 s. ROLLBACK has 1 s, and
// Tx waits for it for at most 2 s. If BEGIN finds that the connection is lost, the attempt takes
// another one: as many as are idle, and one more.
//
// Tx panics if db, policy, or fn is nil. It is safe for concurrent use.
func Tx[T any](ctx context.Context, db *sql.DB, policy resilience.Policy, config Config, fn func(ctx context.Context, tx *sql.Tx) (T, error)) (T, error) {
	c := newCall("Tx", db, policy, config, fn == nil)
	return zeroIf(resilience.Do(ctx, c, func(ctx context.Context) (T, error) { return runTx(ctx, c, fn) }))
}

// Do runs fn on one connection inside the policy, without a transaction: for a statement that takes
// effect alone. With an error, the value is the zero T.
//
// conn observes whether a statement may have taken effect: one that succeeded, also a query or a
// Prepare, or that failed other than as [NotRun], [RolledBack], or [Answered]. The error of an
// attempt is marked by this, by its class, and by its time; the table is in docs/sql.md. Unless
// config says that the call is repeatable, it is under [resilience.AtMostOnce], and if its outcome is
// unknown, the error is an [*AmbiguousError].
//
// fn's context ends when fn returns. This closes rows that fn left open. conn must not be used after
// fn has returned; within fn, it is safe for concurrent use.
//
// Do panics if db, policy, or fn is nil, or if config.Options is set. It is safe for concurrent use.
func Do[T any](ctx context.Context, db *sql.DB, policy resilience.Policy, config Config, fn func(ctx context.Context, conn DBTX) (T, error)) (T, error) {
	c := newCall("Do", db, policy, config, fn == nil)
	if config.Options != nil {
		panic("resiliencesql: Do: Config.Options is set, must be nil: Do begins no transaction")
	}
	return zeroIf(resilience.Do(ctx, c, func(ctx context.Context) (T, error) { return runDo(ctx, c, fn) }))
}

// A call is one call of Tx or Do. It is also the policy for it, which saves an allocation.
type call struct {
	db       *sql.DB
	config   Config
	policies [2]resilience.Policy // AtMostOnce and the caller's
}

// newCall returns a call. It panics if an argument of the function that the caller has called is nil.
func newCall(function string, db *sql.DB, policy resilience.Policy, config Config, noFn bool) *call {
	switch {
	case db == nil:
		panic("resiliencesql: " + function + ": db is nil, must be a *sql.DB")
	case isNil(policy):
		panic("resiliencesql: " + function + ": policy is nil or contains nil, must be a Policy")
	case noFn:
		panic("resiliencesql: " + function + ": fn is nil, must be a function")
	}
	return &call{db: db, config: config, policies: [2]resilience.Policy{resilience.AtMostOnce, policy}}
}

// Run runs the policies: under AtMostOnce, unless the call is repeatable.
func (c *call) Run(ctx context.Context, next resilience.Next) error {
	if c.config.repeatable() {
		return c.policies[1].Run(ctx, next)
	}
	return resilience.Pipeline(c.policies[:]).Run(ctx, next)
}

// isNil reports whether the policy, or one in a Pipeline, is nil, or a nil pointer or function.
func isNil(policy resilience.Policy) bool {
	if pipeline, ok := policy.(resilience.Pipeline); ok {
		return slices.ContainsFunc(pipeline, isNil)
	}
	v := reflect.ValueOf(policy)
	kind := v.Kind()
	return kind == reflect.Invalid || (kind == reflect.Pointer || kind == reflect.Func) && v.IsNil()
}

func zeroIf[T any](value T, err error) (T, error) {
	if err != nil {
		var zero T
		return zero, err
	}
	return value, nil
}
