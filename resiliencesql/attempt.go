package resiliencesql

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/retry"
)

// An attempt is what one attempt of Tx or Do has: a context, and a connection while it needs one.
type attempt struct {
	ctx    context.Context
	config *Config
	conn   *sql.Conn // nil before connect and after release
}

// connect takes a connection from the pool. The error is marked.
func (a *attempt) connect(db *sql.DB) error {
	// If the pool is full, Conn waits for a connection. Otherwise, it may dial: then others may have
	// filled the pool by the time the dial has failed.
	waits := isFull(db)
	conn, err := db.Conn(a.ctx)
	if err == nil {
		a.conn = conn
		return nil
	}
	class := a.config.class(err)
	if waits && class != Answered && err == a.ctx.Err() && isFull(db) {
		return resilience.CallerFault(a.notBegun(err, class))
	}
	return a.notBegun(err, class)
}

// isFull reports whether all connections that db may open are in use.
func isFull(db *sql.DB) bool {
	stats := db.Stats()
	return stats.MaxOpenConnections > 0 && stats.InUse >= stats.MaxOpenConnections
}

// release gives up the connection, if there still is one: to the pool if it is healthy.
func (a *attempt) release(healthy bool) {
	conn := a.conn
	a.conn = nil
	switch {
	case conn == nil:
	case healthy && isFree(closemu(conn)):
		_ = conn.Close() // fails only if database/sql has closed the connection already
	case healthy:
		// Close waits for rows that fn left open. If fn recovered a panic of the driver, it waits forever.
		_, _ = within(conn.Close)
	default:
		_, _ = within(func() error { return discard(conn) })
	}
}

// releaseAfterPing gives up the connection, and reports whether the database still answers on it.
func (a *attempt) releaseAfterPing() bool { return a.releaseAfter((*sql.Conn).PingContext) }

// releaseAfterRollback gives up the connection after ROLLBACK, which it sends as a statement, and
// reports whether the database answers. That there is no transaction is an answer too.
func (a *attempt) releaseAfterRollback() bool {
	return a.releaseAfter(func(conn *sql.Conn, ctx context.Context) error {
		_, err := conn.ExecContext(ctx, "ROLLBACK")
		return err
	})
}

// releaseAfter gives up the connection: to the pool if the database answers ask. It reports whether it
// does. If the driver panics, so does releaseAfter.
func (a *attempt) releaseAfter(ask func(conn *sql.Conn, ctx context.Context) error) (answered bool) {
	conn := a.conn
	a.conn = nil
	err, ok := within(func() error {
		returned := false
		defer func() {
			if !returned {
				unlock(conn)
				_ = discard(conn)
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), answerTime)
		defer cancel()
		err := ask(conn, ctx)
		answered := a.config.class(err) == Answered
		returned = true
		if !answered {
			_ = discard(conn)
			return err
		}
		_ = conn.Close()
		return nil
	})
	return ok && err == nil
}

// notBegun marks the error of an attempt that didn't begin. err may be nil if the context has ended.
func (a *attempt) notBegun(err error, class Class) error {
	if a.ctx.Err() != nil && class != Answered {
		return resilience.NotMade(withContext(a.ctx, err))
	}
	return undone(err, class)
}

// undone marks an error of an attempt that had no effect.
func undone(err error, class Class) error {
	switch class {
	case RolledBack:
		return contention(err)
	case Answered:
		return resilience.NotFailure(err)
	case Failed:
		return retry.Permanent(err)
	}
	return resilience.NotMade(err)
}

// inDoubt returns what becomes of an attempt that failed with err and may have taken effect: nil if
// it is known that it did.
func (a *attempt) inDoubt(err error) error {
	if a.config.Verify == nil {
		if a.config.repeatable() {
			return err
		}
		return &AmbiguousError{err}
	}
	ctx, cancel := atLeast(a.ctx, commitTime)
	defer cancel()
	tookEffect, failed := a.config.Verify(ctx)
	switch {
	case failed != nil:
		return &AmbiguousError{fmt.Errorf("%w; and it can't be verified: %w", err, failed)}
	case tookEffect:
		return nil
	}
	return contention(err)
}

// atLeast returns a context with the values of ctx that ends when ctx does, but not within d.
func atLeast(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	till := time.Now().Add(d)
	detached, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(time.Until(till), func() { cancel(context.Cause(ctx)) })
	})
	return detached, func() {
		stop()
		cancel(nil)
	}
}
