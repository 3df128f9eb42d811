package resiliencesql

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"github.com/effector-go/resilience"
)

// runTx makes one attempt: BEGIN, fn, COMMIT.
func runTx[T any](ctx context.Context, c *call, fn func(context.Context, *sql.Tx) (T, error)) (T, error) {
	t := &transaction{attempt: attempt{ctx: ctx, config: &c.config}}
	defer t.unwind()
	if err := t.begin(c.db); err != nil {
		var zero T
		return zero, err
	}
	value, err := fn(ctx, t.tx)
	return value, t.end(err)
}

// A transaction is one attempt of Tx. Two goroutines use it: the one that makes the attempt, and the
// one on which contextEnded runs.
type transaction struct {
	attempt
	tx *sql.Tx

	// cancel ends the context that the driver receives at BEGIN. Drivers use it for COMMIT and
	// ROLLBACK too, so it is detached from the attempt's context, whose end must not cancel ROLLBACK.
	cancel context.CancelCauseFunc
	stop   func() bool // keeps contextEnded from being called

	// mu guards the fields below. The goroutine that moves stage away from running decides how the
	// transaction ends: the attempt's goroutine when fn has returned, or contextEnded.
	mu         sync.Mutex
	stage      stage
	commitTill time.Time      // COMMIT isn't canceled before
	rollback   <-chan outcome // of ROLLBACK; set when stage becomes ending, then read without mu
}

// A stage is a part of a transaction. It decides what the end of the attempt's context does.
type stage int

const (
	beginning  stage = iota // BEGIN is canceled
	running                 // ROLLBACK begins
	ending                  // nothing: ROLLBACK has begun
	committing              // COMMIT is canceled, once it has had its time
)

// contextEnded runs on its own goroutine when the attempt's context ends.
func (t *transaction) contextEnded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.stage {
	case beginning:
		t.cancel(context.Cause(t.ctx))
	case running:
		t.startRollback()
	case committing:
		time.AfterFunc(time.Until(t.commitTill), func() { t.cancel(context.Cause(t.ctx)) })
	}
}

// startRollback begins ROLLBACK on its own goroutine. Its caller holds mu.
func (t *transaction) startRollback() {
	t.stage = ending
	limit := time.AfterFunc(answerTime, func() { t.cancel(context.DeadlineExceeded) })
	t.rollback = start(func() error {
		defer limit.Stop()
		err := t.tx.Rollback()
		if err == nil || err != sql.ErrTxDone && t.config.class(err) == Answered { // there is no transaction
			return nil
		}
		return err
	})
}

// begin takes a connection and begins the transaction. It replaces a connection that is lost, as all
// idle ones are after the server was restarted. The error is marked.
func (t *transaction) begin(db *sql.DB) error {
	driverCtx, cancel := context.WithCancelCause(context.WithoutCancel(t.ctx))
	t.cancel = cancel
	if t.ctx.Done() != nil {
		t.stop = context.AfterFunc(t.ctx, t.contextEnded)
	}
	for left := -1; ; left-- { // how many connections may still be lost; -1 until the first is
		if err := t.connect(db); err != nil {
			return err
		}
		tx, err := t.conn.BeginTx(driverCtx, t.config.Options)
		if err == nil {
			t.tx = tx
			return t.begun()
		}
		class := t.config.class(err)
		lost := class == Ambiguous && t.ctx.Err() == nil
		if lost && left < 0 {
			left = db.Stats().Idle + 1
		}
		t.releaseUnbegun(class)
		if !lost || left == 0 {
			return t.notBegun(err, class)
		}
	}
}

// releaseUnbegun gives up a connection whose BEGIN failed. If the database has answered, the
// connection is healthy. If the error is unknown, the answer to ROLLBACK decides.
func (t *transaction) releaseUnbegun(class Class) {
	switch class {
	case RolledBack, Answered, Failed:
		t.release(true)
	case NotRun, Ambiguous:
		t.release(false)
	default:
		if t.ctx.Err() != nil { // BEGIN was canceled
			t.release(false)
			return
		}
		t.releaseAfterRollback()
	}
}

// begun lets fn run, unless the context has ended although BEGIN succeeded.
func (t *transaction) begun() error {
	t.mu.Lock()
	ended := t.ctx.Err() != nil
	if ended {
		t.startRollback()
	} else {
		t.stage = running
	}
	t.mu.Unlock()
	if !ended {
		return nil
	}
	t.awaitRollback()
	t.release(false) // the driver's context may have ended before ROLLBACK
	return t.notBegun(nil, Ambiguous)
}

// end ends the transaction after fn has returned err: it commits, or waits for ROLLBACK. The error
// is marked.
func (t *transaction) end(err error) error {
	t.mu.Lock()
	ended := t.ctx.Err() != nil
	commit := err == nil && !ended
	if commit {
		t.stage = committing
		t.commitTill = time.Now().Add(commitTime)
	} else if t.stage == running {
		t.startRollback()
	}
	t.mu.Unlock()
	if commit {
		return t.commit()
	}

	class := Ambiguous // of the context's end
	if err != nil {
		class = t.config.class(err)
	}
	o := t.awaitRollback()
	if o.err == sql.ErrTxDone {
		t.release(false)
		return t.endedByFn(err)
	}
	t.release(o.err == nil && class != NotRun)
	switch {
	case isMarked(err):
		return kept(err, false)
	case ended && class != Answered:
		return resilience.NotMade(withContext(t.ctx, err))
	case class == Unknown && o.err == nil: // the database is well, so the error is the program's own
		return resilience.NotFailure(err)
	}
	return undone(err, class)
}

// commit sends COMMIT. Only an answer that says that nothing was committed is trusted.
func (t *transaction) commit() error {
	err := t.sendCommit()
	switch err {
	case nil:
		t.release(true)
		return nil
	case sql.ErrTxDone:
		t.release(false)
		return t.endedByFn(nil)
	}
	switch class := t.config.class(err); class {
	case RolledBack, Answered:
		t.releaseAfterRollback() // a transaction left open would be committed by MySQL's next BEGIN
		return undone(err, class)
	}
	t.release(false)
	return t.inDoubt(err)
}

// sendCommit calls Commit, which waits until fn's queries are closed. It closes those that fn left
// open. If the driver panicked in one and fn recovered, Commit waits forever: then sendCommit gives up
// the connection.
func (t *transaction) sendCommit() error {
	queries := closemu(t.tx)
	if isFree(queries) {
		return t.tx.Commit()
	}
	done := start(t.tx.Commit)
	o, ok := wait(done)
	switch {
	case ok:
	case isFree(queries): // COMMIT was sent, and has its own limit
		o = <-done
	default:
		t.abandon(done)
		return errUnclosed
	}
	if o.panicked {
		panic(o.value)
	}
	return o.err
}

// abandon gives up the connection, which is closed when the function that is still using it has ended.
func (t *transaction) abandon(done <-chan outcome) {
	conn := t.conn
	t.conn = nil
	go func() {
		<-done
		_ = discard(conn)
	}()
}

// endedByFn returns the error of an attempt whose fn committed or rolled back, and returned err.
func (t *transaction) endedByFn(err error) error {
	if err == nil {
		err = errEndedByFn
	} else {
		err = fmt.Errorf("%w: %w", errEndedByFn, err)
	}
	if t.config.Verify != nil {
		return t.inDoubt(err)
	}
	return resilience.CallerFault(&AmbiguousError{err})
}

// awaitRollback waits for ROLLBACK. If the driver panics, so does awaitRollback. If the driver doesn't
// return in time, the connection is given up; it is closed when the driver returns.
func (t *transaction) awaitRollback() outcome {
	o, ok := wait(t.rollback)
	switch {
	case !ok:
		t.abandon(t.rollback)
		return outcome{err: context.DeadlineExceeded}
	case o.panicked:
		unlock(t.conn)
		t.release(false)
		panic(o.value)
	}
	return o
}

// unwind releases what a panic or Goexit leaves behind: of fn, of the driver, or of a function of
// Config. After a normal end, only contexts are left.
func (t *transaction) unwind() {
	if t.stop != nil {
		t.stop()
	}
	if t.cancel != nil {
		defer t.cancel(nil)
	}
	if t.conn == nil {
		return
	}
	t.mu.Lock()
	stage := t.stage
	t.mu.Unlock()
	if stage == beginning || stage == committing {
		unlock(t.conn) // BEGIN or COMMIT panicked, or Classify did, and then nothing is locked
		t.release(false)
		return
	}
	inDriver := panickedInDriver()
	if inDriver {
		unlock(t.tx)
	}
	t.mu.Lock()
	if t.stage == running {
		t.startRollback()
	}
	t.mu.Unlock()
	defer func() { _ = recover() }() // fn's panic goes on, not one of ROLLBACK
	o := t.awaitRollback()
	t.release(o.err == nil && !inDriver)
}
