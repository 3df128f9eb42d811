package resiliencesql

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"

	"github.com/effector-go/resilience"
)

// runDo makes one attempt: fn on a connection.
func runDo[T any](ctx context.Context, c *call, fn func(context.Context, DBTX) (T, error)) (T, error) {
	s := &statements{attempt: attempt{ctx: ctx, config: &c.config}}
	if err := s.connect(c.db); err != nil {
		var zero T
		return zero, err
	}
	s.fnConn = s.conn
	fnCtx, cancel := context.WithCancel(ctx)
	s.cancel = cancel
	defer s.unwind()
	value, err := fn(fnCtx, s)
	return value, s.end(err)
}

// statements is one attempt of Do, and the connection that fn receives.
type statements struct {
	attempt
	fnConn *sql.Conn          // the connection, kept when it was given up: then its methods fail
	cancel context.CancelFunc // ends fn's context

	// Statements set these, on any goroutine of fn.
	effect atomic.Bool  // one may have had an effect
	broken atomic.Bool  // the driver panicked in one
	locked atomic.Int32 // read locks that such panics left locked

	mu    sync.Mutex         // guards the fields below
	until context.Context    // ends when fn returns; nil until a query needs it
	stop  context.CancelFunc // ends until
}

func (s *statements) ExecContext(ctx context.Context, query string, args ...any) (result sql.Result, err error) {
	returned := false
	defer func() { s.saw(returned, err) }()
	result, err = s.fnConn.ExecContext(ctx, query, args...)
	returned = true
	return result, err
}

func (s *statements) PrepareContext(ctx context.Context, query string) (stmt *sql.Stmt, err error) {
	returned := false
	defer func() { s.saw(returned, err) }()
	stmt, err = s.fnConn.PrepareContext(ctx, query)
	returned = true
	return stmt, err
}

func (s *statements) QueryContext(ctx context.Context, query string, args ...any) (rows *sql.Rows, err error) {
	returned := false
	defer func() { s.sawQuery(returned, err) }()
	rows, err = s.fnConn.QueryContext(s.ending(ctx), query, args...)
	returned = true
	return rows, err
}

func (s *statements) QueryRowContext(ctx context.Context, query string, args ...any) (row *sql.Row) {
	returned := false
	defer func() {
		if returned {
			s.sawQuery(true, row.Err())
		} else {
			s.sawQuery(false, nil)
		}
	}()
	row = s.fnConn.QueryRowContext(s.ending(ctx), query, args...)
	returned = true
	return row
}

// saw notes how a statement ended: with err, or with a panic or Goexit.
func (s *statements) saw(returned bool, err error) {
	if !returned {
		s.broken.Store(true)
		s.effect.Store(true)
		return
	}
	if err != nil {
		switch s.config.class(err) {
		case NotRun, RolledBack, Answered:
			return
		case Failed:
			if s.ctx.Err() != nil { // the context stopped the statement
				return
			}
		}
	}
	s.effect.Store(true)
}

// sawQuery is saw for a query, which holds a lock of database/sql while the driver runs.
func (s *statements) sawQuery(returned bool, err error) {
	if !returned {
		s.locked.Add(1)
	}
	s.saw(returned, err)
}

// ending returns ctx, or if ctx never ends, a context with its values that ends when fn returns, so
// that rows don't stay open.
func (s *statements) ending(ctx context.Context) context.Context {
	if ctx.Done() != nil {
		return ctx
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until, s.stop = context.WithCancel(context.WithoutCancel(s.ctx))
	}
	return untilReturn{s.until, ctx}
}

// untilReturn ends as its Context does and has the values of another one.
type untilReturn struct {
	context.Context
	values context.Context
}

func (c untilReturn) Value(key any) any { return c.values.Value(key) }

// finish ends the contexts of fn, which closes the rows that it left open, and unlocks what panics
// left locked.
func (s *statements) finish() {
	s.cancel()
	s.mu.Lock()
	if s.stop != nil {
		s.stop()
	}
	s.mu.Unlock()
	for range s.locked.Swap(0) {
		unlock(s.fnConn)
	}
}

// end gives up the connection after fn has returned err, and marks the error.
func (s *statements) end(err error) error {
	s.finish()
	if err == nil {
		s.release(!s.broken.Load())
		return nil
	}
	ended := s.ctx.Err() != nil
	effect := s.effect.Load()
	class := s.config.class(err)
	marked := isMarked(err)
	answered := true
	switch {
	case s.broken.Load() || class == NotRun || class == Ambiguous:
		answered = false
		s.release(false)
	case class == Unknown && !marked:
		answered = s.releaseAfterPing()
	default:
		s.release(true)
	}
	if marked {
		return kept(err, effect)
	}
	if ended && class != Answered {
		err = withContext(s.ctx, err)
		if class == Failed {
			class = NotRun
		}
	}
	switch {
	case class == Ambiguous || class == Unknown && !answered:
		return s.inDoubt(err)
	case class == Unknown: // the database is well, so the error is the program's own
		return resilience.NotFailure(err)
	case !effect || class == Answered || class == Failed:
		return undone(err, class)
	case class == NotRun:
		return err
	case s.config.repeatable(): // RolledBack
		return resilience.Contention(err)
	}
	return resilience.NotFailure(err)
}

// unwind gives up the connection after a panic or Goexit: of fn, of the driver, or of a function of
// Config.
func (s *statements) unwind() {
	s.cancel()
	if s.conn == nil {
		return
	}
	if s.locked.Load() == 0 && panickedInDriver() {
		s.broken.Store(true)
		s.locked.Store(1)
	}
	s.finish()
	defer func() { _ = recover() }() // fn's panic goes on, not one of the driver
	if s.broken.Load() {
		s.release(false)
	} else {
		s.releaseAfterPing()
	}
}
