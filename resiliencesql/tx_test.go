package resiliencesql_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencesql"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// none is no policy.
var none = resilience.Pipeline{}

// insert is a transaction with one statement. It returns 7 with whatever error.
func insert(ctx context.Context, tx *sql.Tx) (int, error) {
	_, err := tx.ExecContext(ctx, "INSERT")
	return 7, err
}

func TestTxCommitsWhatFnDid(t *testing.T) {
	d := &database{}
	db := opened(t, d)
	config := resiliencesql.Config{Options: &sql.TxOptions{Isolation: sql.LevelSerializable}}
	got, err := resiliencesql.Tx(t.Context(), db, none, config, insert)
	if want := "1 BEGIN Serializable, 1 INSERT, 1 COMMIT"; got != 7 || err != nil || d.logged() != want {
		t.Errorf("got %v, %v after %s, want 7, nil after %s", got, err, d.logged(), want)
	}
	if idle := db.Stats().Idle; idle != 1 {
		t.Errorf("got %d idle connections, want 1", idle)
	}
}

func TestTxReturnsZeroValueWithError(t *testing.T) {
	db := opened(t, &database{on: on("INSERT", unique)})
	got, err := resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, insert)
	if got != 0 || !errors.Is(err, unique) {
		t.Errorf("got %v, %v, want 0, %v", got, err, unique)
	}
}

func TestTxPanicsOnNil(t *testing.T) {
	db := opened(t, &database{})
	const noPolicy = "resiliencesql: Tx: policy is nil or contains nil, must be a Policy"
	for _, test := range []struct {
		db     *sql.DB
		policy resilience.Policy
		fn     func(context.Context, *sql.Tx) (int, error)
		want   string
	}{
		{nil, none, insert, "resiliencesql: Tx: db is nil, must be a *sql.DB"},
		{db, nil, insert, noPolicy},
		{db, resilience.PolicyFunc(nil), insert, noPolicy},
		{db, (*breaker.Breaker)(nil), insert, noPolicy},
		{db, resilience.Pipeline{none, resilience.Pipeline{nil}}, insert, noPolicy},
		{db, none, nil, "resiliencesql: Tx: fn is nil, must be a function"},
	} {
		for _, repeatable := range []bool{false, true} {
			config := resiliencesql.Config{Repeatable: repeatable}
			if got := panicOf(func() { resiliencesql.Tx(t.Context(), test.db, test.policy, config, test.fn) }); got != test.want {
				t.Errorf("got panic %q, want %q", got, test.want)
			}
		}
	}
}

// Rule 1.

func TestTxAttemptIsWholeTransaction(t *testing.T) {
	d := &database{on: both(on("INSERT", serialization), on("COMMIT", serialization))}
	got, err := resiliencesql.Tx(t.Context(), opened(t, d), retries(3), resiliencesql.Config{}, insert)
	want := "1 BEGIN, 1 INSERT, 1 ROLLBACK, 1 BEGIN, 1 INSERT, 1 COMMIT, 1 ROLLBACK, 1 BEGIN, 1 INSERT, 1 COMMIT"
	if got != 7 || err != nil || d.logged() != want {
		t.Errorf("got %v, %v after\n%s, want\n%s", got, err, d.logged(), want)
	}
}

// idle opens n connections and returns them to the pool.
func idle(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	db.SetMaxIdleConns(n)
	conns := make([]*sql.Conn, n)
	for i := range conns {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = conn
	}
	for _, conn := range conns {
		conn.Close()
	}
}

func TestTxBeginReplacesLostConnections(t *testing.T) {
	for _, lost := range []error{driver.ErrBadConn, io.EOF, shutdown} {
		d := &database{}
		db := opened(t, d)
		idle(t, db, 3)
		d.on = func(_ context.Context, op string, conn int) error {
			if op == "BEGIN" && conn <= 3 { // the server was restarted
				return lost
			}
			return nil
		}
		got, err := resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, insert)
		if got != 7 || err != nil || d.count("BEGIN") != 4 {
			t.Errorf("%v: got %v, %v after %s, want 7, nil after 4 BEGIN", lost, got, err, d.logged())
		}
	}
}

func TestTxBeginTakesOneConnectionMoreThanAreIdle(t *testing.T) {
	for idleConns, want := range []int{2, 2, 3, 4} { // the first one and, then idle, one fewer; and one more
		d := &database{}
		db := opened(t, d)
		if idleConns > 0 {
			idle(t, db, idleConns)
		}
		d.on = func(_ context.Context, op string, _ int) error {
			if op == "BEGIN" {
				return io.EOF
			}
			return nil
		}
		var policy seen
		_, err := resiliencesql.Tx(t.Context(), db, &policy, resiliencesql.Config{}, insert)
		if !errors.Is(err, io.EOF) || d.count("BEGIN") != want || marks(policy.err) != "NotMade" {
			t.Errorf("%d idle: got %v (%s) after %d BEGIN, want %d", idleConns, err, marks(policy.err), d.count("BEGIN"), want)
		}
	}
}

func TestTxBeginDoesNotReplaceHealthyConnections(t *testing.T) {
	for _, err := range []error{unique, diskFull, serialization} {
		d := &database{on: on("BEGIN", err)}
		db := opened(t, d)
		if _, got := resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, insert); !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
		if d.logged() != "1 BEGIN" || db.Stats().Idle != 1 {
			t.Errorf("%v: got %s and %d idle, want one BEGIN and 1 idle", err, d.logged(), db.Stats().Idle)
		}
	}
}

func TestTxBeginRollsBackAfterUnknownError(t *testing.T) {
	d := &database{on: on("BEGIN", errOwn)}
	db := opened(t, d)
	resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, insert)
	if d.logged() != "1 BEGIN, 1 ROLLBACK" || db.Stats().Idle != 1 {
		t.Errorf("got %s and %d idle, want a ROLLBACK after BEGIN and 1 idle", d.logged(), db.Stats().Idle)
	}
}

// Rule 2.

func TestTxBeginEndsWithAttempt(t *testing.T) {
	for _, failure := range []error{context.DeadlineExceeded, errOwn} {
		synctest.Test(t, func(t *testing.T) {
			d := &database{on: func(ctx context.Context, op string, _ int) error {
				if op != "BEGIN" {
					return nil
				}
				<-ctx.Done()
				return failure
			}}
			db := sql.OpenDB(d)
			began := time.Now()
			var policy seen
			_, err := resiliencesql.Tx(t.Context(), db, resilience.Pipeline{timeout.After(5 * time.Second), &policy}, resiliencesql.Config{}, insert)
			if took := time.Since(began); took != 5*time.Second || !errors.Is(err, failure) || marks(policy.err) != "NotMade" {
				t.Errorf("got %v (%s) after %v, want %v (NotMade) after 5s", err, marks(policy.err), took, failure)
			}
			if d.logged() != "1 BEGIN" || db.Stats().OpenConnections != 0 {
				t.Errorf("%v: got %s and %d connections, want 1 BEGIN and none", failure, d.logged(), db.Stats().OpenConnections)
			}
			synctest.Wait()
			checkClosed(t, db, d)
		})
	}
}

func TestTxBeginThatSucceedsTooLateIsRolledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &database{on: func(ctx context.Context, op string, _ int) error {
			if op == "BEGIN" {
				<-ctx.Done()
			}
			return nil
		}}
		db := sql.OpenDB(d)
		var policy seen
		_, err := resiliencesql.Tx(t.Context(), db, resilience.Pipeline{timeout.After(time.Second), &policy}, resiliencesql.Config{}, insert)
		if d.logged() != "1 BEGIN, 1 ROLLBACK" || !errors.Is(err, context.DeadlineExceeded) || marks(policy.err) != "NotMade" {
			t.Errorf("got %v (%s) after %s, want the context's error (NotMade) after BEGIN and ROLLBACK", err, marks(policy.err), d.logged())
		}
		if n := db.Stats().OpenConnections; n != 0 {
			t.Errorf("got %d connections, want 0: the driver's context may have ended before ROLLBACK", n)
		}
		synctest.Wait()
		checkClosed(t, db, d)
	})
}

func TestTxBeginContextIsDetached(t *testing.T) {
	type key struct{}
	var begin context.Context
	db := opened(t, &database{on: func(ctx context.Context, op string, _ int) error {
		if op == "BEGIN" {
			begin = ctx
		}
		return nil
	}})
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, 1), time.Hour)
	defer cancel()
	_, err := resiliencesql.Tx(ctx, db, none, resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
		if _, ok := begin.Deadline(); ok || begin.Value(key{}) != 1 {
			t.Errorf("the driver's context has a deadline (%v), or not the value (%v)", ok, begin.Value(key{}))
		}
		cancel()
		if begin.Err() != nil {
			t.Errorf("the driver's context ended with the attempt's: %v", begin.Err())
		}
		return 0, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestTxRollsBackWhileFnRunsWhenContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var rolledBack time.Duration
		d := &database{on: func(ctx context.Context, op string, _ int) error {
			if op == "ROLLBACK" {
				rolledBack = time.Since(began)
			}
			return nil
		}}
		db := sql.OpenDB(d)
		_, err := resiliencesql.Tx(t.Context(), db, timeout.After(time.Second), resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
			time.Sleep(10 * time.Second)
			return 0, nil
		})
		if rolledBack != time.Second || err == nil || d.logged() != "1 BEGIN, 1 ROLLBACK" {
			t.Errorf("got %v, ROLLBACK after %v, %s, want it after 1s", err, rolledBack, d.logged())
		}
		if idle := db.Stats().Idle; idle != 1 {
			t.Errorf("got %d idle connections, want 1", idle)
		}
		checkClosed(t, db, d)
	})
}

func TestTxCommitHasAtLeastOneSecond(t *testing.T) {
	for _, test := range []struct{ fn, commit time.Duration }{ // when fn returns, when COMMIT is canceled
		{0, 5 * time.Second},
		{3 * time.Second, 5 * time.Second},
		{4500 * time.Millisecond, 5500 * time.Millisecond},
		{4999 * time.Millisecond, 5999 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			d := &database{on: func(ctx context.Context, op string, _ int) error {
				if op != "COMMIT" {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}}
			db := sql.OpenDB(d)
			_, err := resiliencesql.Tx(t.Context(), db, timeout.After(5*time.Second), resiliencesql.Config{}, func(context.Context, *sql.Tx) (int, error) {
				time.Sleep(test.fn)
				return 0, nil
			})
			var ambiguous *resiliencesql.AmbiguousError
			if took := time.Since(began); took != test.commit || !errors.As(err, &ambiguous) {
				t.Errorf("fn took %v: got %v after %v, want an AmbiguousError after %v", test.fn, err, took, test.commit)
			}
			checkClosed(t, db, d)
		})
	}
}

func TestTxRollbackHasOneSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d := &database{on: both(on("INSERT", unique), func(ctx context.Context, op string, _ int) error {
			if op != "ROLLBACK" {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})}
		db := sql.OpenDB(d)
		_, err := resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, insert)
		if took := time.Since(began); took != time.Second || !errors.Is(err, unique) {
			t.Errorf("got %v after %v, want %v after 1s", err, took, unique)
		}
		if idle := db.Stats().Idle; idle != 0 {
			t.Errorf("got %d idle connections, want 0: ROLLBACK failed", idle)
		}
		checkClosed(t, db, d)
	})
}

func TestTxWaitsTwoSecondsForRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d := &database{on: both(on("INSERT", errOwn), func(_ context.Context, op string, _ int) error {
			if op == "ROLLBACK" {
				time.Sleep(time.Minute) // takes no context
			}
			return nil
		})}
		db := sql.OpenDB(d)
		var policy seen
		_, err := resiliencesql.Tx(t.Context(), db, &policy, resiliencesql.Config{}, insert)
		if took := time.Since(began); took != 2*time.Second || !errors.Is(err, errOwn) || marks(policy.err) != "NotMade" {
			t.Errorf("got %v (%s) after %v, want %v (NotMade) after 2s", err, marks(policy.err), took, errOwn)
		}
		time.Sleep(2 * time.Minute)
		checkClosed(t, db, d) // the connection was closed when the driver returned
	})
}

// Rule 3.

func TestTxRollsBackOnPanicAndGoexit(t *testing.T) {
	for name, leave := range map[string]func(){"panic": func() { panic("leave") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			d := &database{}
			db := opened(t, d)
			ended := make(chan any)
			go func() {
				defer func() { ended <- recover() }()
				resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
					leave()
					return 0, nil
				})
			}()
			if value := <-ended; (value == "leave") != (name == "panic") {
				t.Errorf("recovered %v, want leave after a panic only", value)
			}
			if d.logged() != "1 BEGIN, 1 ROLLBACK" || db.Stats().Idle != 1 {
				t.Errorf("got %s and %d idle, want a ROLLBACK and 1 idle", d.logged(), db.Stats().Idle)
			}
		})
	}
}

func TestTxDriverPanicLeavesNothing(t *testing.T) {
	query := func(ctx context.Context, tx *sql.Tx) (int, error) {
		var n int
		return n, tx.QueryRowContext(ctx, "SELECT").Scan(&n)
	}
	statement := func(ctx context.Context, tx *sql.Tx) (int, error) {
		stmt, err := tx.PrepareContext(ctx, "P")
		if err != nil {
			return 0, err
		}
		_, err = stmt.ExecContext(ctx)
		return 0, err
	}
	rows := func(ctx context.Context, tx *sql.Tx) (int, error) {
		rows, err := tx.QueryContext(ctx, "SELECT")
		if err != nil {
			return 0, err
		}
		for rows.Next() {
		}
		return 0, rows.Close()
	}
	failing := func(ctx context.Context, tx *sql.Tx) (int, error) { return 0, errOwn }
	for _, test := range []struct {
		op      string
		fn      func(context.Context, *sql.Tx) (int, error)
		pooled  bool
		classes func(error) resiliencesql.Class
	}{
		{op: "BEGIN", fn: insert},
		{op: "INSERT", fn: insert, pooled: true}, // ROLLBACK succeeded
		{op: "SELECT", fn: query},
		{op: "STMT P", fn: statement},
		{op: "NEXT", fn: rows, pooled: true},
		{op: "CLOSE ROWS", fn: rows},
		{op: "COMMIT", fn: insert},
		{op: "ROLLBACK", fn: failing},
	} {
		for name, leave := range map[string]func(){"panic": func() { panic("driver") }, "Goexit": runtime.Goexit} {
			if name == "Goexit" && test.op == "ROLLBACK" {
				continue // it ends another goroutine
			}
			t.Run(test.op+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					left := false
					d := &database{on: func(_ context.Context, op string, _ int) error {
						if op == test.op && !left {
							left = true
							leave()
						}
						return nil
					}}
					db := sql.OpenDB(d)
					ended := make(chan any)
					go func() {
						defer func() { ended <- recover() }()
						resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, test.fn)
					}()
					if value := <-ended; (value == "driver") != (name == "panic") {
						t.Errorf("recovered %v, want driver after a panic only", value)
					}
					if pooled := db.Stats().Idle == 1; pooled != test.pooled {
						t.Errorf("pooled is %v, want %v; log: %v", pooled, test.pooled, d.log)
					}
					synctest.Wait()
					checkClosed(t, db, d)
				})
			})
		}
	}
}

// TestTxEndsAfterDriverPanicThatFnRecovered runs outside of a bubble: there, time would stand still
// while COMMIT or ROLLBACK waits for the query's lock, which stays locked.
func TestTxEndsAfterDriverPanicThatFnRecovered(t *testing.T) {
	for want, returned := range map[string]error{"Ambiguous": nil, "NotMade": errOwn} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			db := sql.OpenDB(&database{on: func(_ context.Context, op string, _ int) error {
				if op == "SELECT" {
					panic("driver")
				}
				return nil
			}})
			defer db.Close()
			var policy seen
			_, err := resiliencesql.Tx(t.Context(), db, &policy, resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
				func() {
					defer func() { _ = recover() }()
					tx.QueryContext(ctx, "SELECT")
				}()
				return 0, returned
			})
			if marks(policy.err) != want || !errors.Is(err, returned) && returned != nil {
				t.Errorf("got %v (%s), want %v (%s)", err, marks(policy.err), returned, want)
			}
		})
	}
}

// TestTxDriverPanicAfterContextEnded runs outside of a bubble: there, time would stand still while
// ROLLBACK waits for the query's lock.
func TestTxDriverPanicAfterContextEnded(t *testing.T) {
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		db := opened(t, &database{on: func(ctx context.Context, op string, _ int) error {
			if op == "SELECT" {
				cancel()
				<-ctx.Done()
				panic("driver")
			}
			return nil
		}})
		func() {
			defer func() {
				if value := recover(); value != "driver" {
					t.Errorf("recovered %v, want driver", value)
				}
			}()
			resiliencesql.Tx(ctx, db, none, resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
				var n int
				return n, tx.QueryRowContext(ctx, "SELECT").Scan(&n)
			})
		}()
	}
}

func TestTxClassifyPanicLeavesNothing(t *testing.T) {
	for _, op := range []string{"CONNECT", "BEGIN", "INSERT", "COMMIT", "ROLLBACK"} {
		t.Run(op, func(t *testing.T) {
			broken := errors.New("Classify panics")
			d := &database{on: both(on(op, broken), on("INSERT", unique))}
			db := opened(t, d)
			if op == "COMMIT" {
				d.on = on(op, broken)
			}
			defer func() {
				if value := recover(); value != "Classify" {
					t.Errorf("recovered %v, want Classify", value)
				}
			}()
			resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{Classify: func(err error) resiliencesql.Class {
				if errors.Is(err, broken) {
					panic("Classify")
				}
				return resiliencesql.Classify(err)
			}}, insert)
		})
	}
}

func TestTxClosesConnectionWhoseRollbackFailed(t *testing.T) {
	for _, test := range []struct {
		rollback error
		idle     int
	}{{nil, 1}, {stateError("25P01"), 1}, {io.EOF, 0}, {errOwn, 0}, {diskFull, 0}, {driver.ErrBadConn, 0}} {
		d := &database{on: both(on("INSERT", unique), on("ROLLBACK", test.rollback))}
		db := opened(t, d)
		resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, insert)
		if got := db.Stats().Idle; got != test.idle || d.count("ROLLBACK") != 1 {
			t.Errorf("ROLLBACK answered %v: got %d idle connections, want %d", test.rollback, got, test.idle)
		}
	}
}

func TestTxClosesConnectionWhoseCommitIsInDoubt(t *testing.T) {
	for _, err := range []error{io.EOF, driver.ErrBadConn, errOwn, tooMany, diskFull, context.DeadlineExceeded} {
		d := &database{on: on("COMMIT", err)}
		db := opened(t, d)
		resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, insert)
		if got := db.Stats().OpenConnections; got != 0 {
			t.Errorf("COMMIT answered %v: got %d connections, want 0", err, got)
		}
	}
}

func TestTxSendsRollbackAfterCommitFailed(t *testing.T) {
	for _, err := range []error{serialization, unique} {
		for _, rollback := range []error{nil, stateError("25P01"), io.EOF} {
			d := &database{on: both(on("COMMIT", err), on("ROLLBACK", rollback))}
			db := opened(t, d)
			_, got := resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, insert)
			if want := "1 BEGIN, 1 INSERT, 1 COMMIT, 1 ROLLBACK"; !errors.Is(got, err) || d.logged() != want {
				t.Errorf("got %v after %s, want %v after %s", got, d.logged(), err, want)
			}
			if pooled, want := db.Stats().Idle == 1, rollback != io.EOF; pooled != want {
				t.Errorf("ROLLBACK answered %v: pooled is %v, want %v", rollback, pooled, want)
			}
		}
	}
}

func TestTxClosesRowsThatFnLeftOpen(t *testing.T) {
	for _, commit := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			d := &database{on: func(_ context.Context, op string, _ int) error {
				if op == "COMMIT" {
					time.Sleep(commit) // takes no context
				}
				return nil
			}}
			db := sql.OpenDB(d)
			_, err := resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
				rows, err := tx.QueryContext(context.Background(), "SELECT")
				if err == nil {
					rows.Next()
				}
				return 0, err
			})
			if err != nil || d.count("CLOSE ROWS") != 1 || d.count("COMMIT") != 1 || db.Stats().Idle != 1 {
				t.Errorf("COMMIT takes %v: got %v after %s, %d idle, want nil, closed rows, 1 COMMIT, 1 idle", commit, err, d.logged(), db.Stats().Idle)
			}
			checkClosed(t, db, d)
		})
	}
}

// Rule 4.

func TestTxRepeatsUntilCommitIsSent(t *testing.T) {
	for _, err := range []error{io.EOF, driver.ErrBadConn, shutdown, tooMany, serialization} {
		for _, op := range []string{"CONNECT", "INSERT"} {
			d := &database{on: on(op, err)}
			got, failed := resiliencesql.Tx(t.Context(), opened(t, d), retries(2), resiliencesql.Config{}, insert)
			if got != 7 || failed != nil || d.count("COMMIT") != 1 {
				t.Errorf("%s failed with %v: got %v, %v after %s, want 7, nil after 1 COMMIT", op, err, got, failed, d.logged())
			}
		}
	}
}

func TestTxNeverRepeatsAfterUnknownOutcome(t *testing.T) {
	for _, err := range []error{io.EOF, driver.ErrBadConn, shutdown, errOwn, tooMany, diskFull, stateError("40003"), resilience.ErrRefused} {
		d := &database{on: on("COMMIT", err)}
		db := opened(t, d)
		inner := resilience.Pipeline{retries(3), breaker.New(breaker.Config{})}
		call := func(ctx context.Context) (int, error) {
			return resiliencesql.Tx(ctx, db, inner, resiliencesql.Config{}, insert)
		}
		_, got := resilience.Do(t.Context(), resilience.Pipeline{retries(3), retries(3)}, call)
		var ambiguous *resiliencesql.AmbiguousError
		if !errors.As(got, &ambiguous) || !errors.Is(got, err) || d.count("BEGIN") != 1 {
			t.Errorf("COMMIT answered %v: got %v after %s, want an AmbiguousError after 1 BEGIN", err, got, d.logged())
		}
	}
}

func TestAmbiguousErrorIsPermanentAtAnyDepth(t *testing.T) {
	wrapped := fmt.Errorf("transfer: %w", errors.Join(errOwn, &resiliencesql.AmbiguousError{Err: io.EOF}))
	runs := 0
	err := resilience.Run(t.Context(), retries(3), func(context.Context) error {
		runs++
		return wrapped
	})
	if runs != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("got %v after %d runs, want 1", err, runs)
	}
	var state stateError
	if errors.As(&resiliencesql.AmbiguousError{Err: io.EOF}, &state) {
		t.Error("it matches a type that is not in its tree")
	}
	if !errors.As(&resiliencesql.AmbiguousError{Err: unique}, &state) || state != unique {
		t.Errorf("got %v, want %v", state, unique)
	}
}

// Rule 5.

func TestTxVerifySettlesOutcome(t *testing.T) {
	errVerify := errors.New("can't verify")
	for _, test := range []struct {
		tookEffect bool
		err        error
		value      int
		marks      string // of the attempt's error
	}{
		{true, nil, 7, "none"},
		{false, nil, 0, "NotMade Contention"},
		{false, errVerify, 0, "Ambiguous"},
		{true, errVerify, 0, "Ambiguous"},
	} {
		d := &database{on: on("COMMIT", io.EOF)}
		db := opened(t, d)
		var policy seen
		calls := 0
		got, err := resiliencesql.Tx(t.Context(), db, &policy, resiliencesql.Config{Verify: func(context.Context) (bool, error) {
			calls++
			if n := db.Stats().OpenConnections; n != 0 {
				t.Errorf("Verify was called while %d connections were open, want 0", n)
			}
			return test.tookEffect, test.err
		}}, insert)
		if got != test.value || marks(policy.err) != test.marks || calls != 1 {
			t.Errorf("got %v, %v (%s) after %d calls, want %v (%s)", got, err, marks(policy.err), calls, test.value, test.marks)
		}
		if test.err != nil && !(errors.Is(err, io.EOF) && errors.Is(err, errVerify)) {
			t.Errorf("got %v, want an error that matches both", err)
		}
	}
}

func TestTxVerifyIsCalledOnceEachTime(t *testing.T) {
	d := &database{on: on("COMMIT", io.EOF, io.EOF)}
	calls := 0
	got, err := resiliencesql.Tx(t.Context(), opened(t, d), retries(3), resiliencesql.Config{Verify: func(context.Context) (bool, error) {
		calls++
		return calls == 2, nil
	}}, insert)
	if got != 7 || err != nil || calls != 2 || d.count("COMMIT") != 2 {
		t.Errorf("got %v, %v after %d calls and %s, want 7, nil after 2 calls and 2 COMMIT", got, err, calls, d.logged())
	}
}

func TestTxVerifyIsNotCalledIfCommitWasAnswered(t *testing.T) {
	for _, err := range []error{nil, serialization, unique} {
		resiliencesql.Tx(t.Context(), opened(t, &database{on: on("COMMIT", err)}), none, resiliencesql.Config{Verify: func(context.Context) (bool, error) {
			t.Errorf("called after COMMIT answered %v", err)
			return false, nil
		}}, insert)
	}
}

func TestTxVerifyContextEndsAsThatOfCommit(t *testing.T) {
	type key struct{}
	for _, test := range []struct{ fn, want time.Duration }{{time.Second, 5 * time.Second}, {4900 * time.Millisecond, 5900 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			d := &database{on: on("COMMIT", io.EOF)}
			db := sql.OpenDB(d)
			ctx := context.WithValue(t.Context(), key{}, 1)
			resiliencesql.Tx(ctx, db, timeout.After(5*time.Second), resiliencesql.Config{Verify: func(ctx context.Context) (bool, error) {
				if ctx.Value(key{}) != 1 {
					t.Error("the context lacks the attempt's values")
				}
				<-ctx.Done()
				return false, ctx.Err()
			}}, func(context.Context, *sql.Tx) (int, error) {
				time.Sleep(test.fn)
				return 0, nil
			})
			if took := time.Since(began); took != test.want {
				t.Errorf("it ended after %v, want %v", took, test.want)
			}
			checkClosed(t, db, d)
		})
	}
}

// Rule 6.

func TestTxEndedByFnIsInDoubt(t *testing.T) {
	for name, end := range map[string]func(*sql.Tx) error{"Commit": (*sql.Tx).Commit, "Rollback": (*sql.Tx).Rollback} {
		for _, returned := range []error{nil, errOwn, unique} {
			fn := func(_ context.Context, tx *sql.Tx) (int, error) {
				end(tx)
				return 7, returned
			}
			var policy seen
			d := &database{}
			db := opened(t, d)
			got, err := resiliencesql.Tx(t.Context(), db, &policy, resiliencesql.Config{Repeatable: true}, fn)
			if got != 0 || marks(policy.err) != "CallerFault Ambiguous" || !errors.Is(err, returned) && returned != nil {
				t.Errorf("%s, %v: got %v, %v (%s), want 0 (CallerFault Ambiguous)", name, returned, got, err, marks(policy.err))
			}
			if n := db.Stats().OpenConnections; n != 0 {
				t.Errorf("got %d connections, want 0", n)
			}
			verify := func(context.Context) (bool, error) { return true, nil }
			got, err = resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{Verify: verify}, fn)
			if got != 7 || err != nil {
				t.Errorf("%s, %v: got %v, %v, want 7 by Verify", name, returned, got, err)
			}
		}
	}
}

// Rule 7.

func TestTxCommitDecidesAboutSwallowedErrors(t *testing.T) {
	for _, text := range []string{"commit unexpectedly resulted in rollback", "pq: could not complete operation in a failed transaction"} {
		d := &database{on: both(on("INSERT", unique), on("COMMIT", errors.New(text)))}
		var policy seen
		_, err := resiliencesql.Tx(t.Context(), opened(t, d), &policy, resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
			tx.ExecContext(ctx, "INSERT")
			return 0, nil
		})
		if marks(policy.err) != "NotMade Contention" {
			t.Errorf("got %v (%s), want Contention", err, marks(policy.err))
		}
	}
}

// Rule 9, for Tx.

func TestTxMarksErrorsByClassAndTime(t *testing.T) {
	classErrors := []error{tooMany, serialization, io.EOF, unique, diskFull, errOwn}
	for _, test := range []struct {
		op         string
		repeatable bool
		want       [6]string
	}{
		{"CONNECT", false, [6]string{"NotMade", "NotMade Contention", "NotMade", "NotFailure", "Permanent", "NotMade"}},
		{"BEGIN", false, [6]string{"NotMade", "NotMade Contention", "none", "NotFailure", "Permanent", "NotMade"}}, // a lost connection was replaced
		{"INSERT", false, [6]string{"NotMade", "NotMade Contention", "NotMade", "NotFailure", "Permanent", "NotFailure"}},
		{"COMMIT", false, [6]string{"Ambiguous", "NotMade Contention", "Ambiguous", "NotFailure", "Ambiguous", "Ambiguous"}},
		{"COMMIT", true, [6]string{"none", "NotMade Contention", "none", "NotFailure", "none", "none"}},
	} {
		for i, err := range classErrors {
			d := &database{on: on(test.op, err)}
			var policy seen
			_, got := resiliencesql.Tx(t.Context(), opened(t, d), &policy, resiliencesql.Config{Repeatable: test.repeatable}, insert)
			if marks(policy.err) != test.want[i] {
				t.Errorf("%s failed with %v: got %v (%s), want %s", test.op, err, got, marks(policy.err), test.want[i])
			}
		}
	}
}

func TestTxJudgesUnknownErrorsByRollback(t *testing.T) {
	for _, test := range []struct {
		rollback error
		want     string
	}{{nil, "NotFailure"}, {stateError("25P01"), "NotFailure"}, {io.EOF, "NotMade"}, {errOwn, "NotMade"}} {
		d := &database{on: both(on("INSERT", errOwn), on("ROLLBACK", test.rollback))}
		var policy seen
		resiliencesql.Tx(t.Context(), opened(t, d), &policy, resiliencesql.Config{}, insert)
		if marks(policy.err) != test.want {
			t.Errorf("ROLLBACK answered %v: got %s, want %s", test.rollback, marks(policy.err), test.want)
		}
	}
}

func TestTxNotRunClosesConnection(t *testing.T) {
	for _, err := range []error{tooMany, stateError("25006")} {
		d := &database{on: on("INSERT", err)}
		db := opened(t, d)
		resiliencesql.Tx(t.Context(), db, none, resiliencesql.Config{}, insert)
		if n := db.Stats().OpenConnections; n != 0 || d.count("ROLLBACK") != 1 {
			t.Errorf("%v: got %d connections after %d ROLLBACK, want 0 after 1", err, n, d.count("ROLLBACK"))
		}
	}
}

func TestTxReadOnlyIsRepeatable(t *testing.T) {
	d := &database{on: on("COMMIT", io.EOF)}
	config := resiliencesql.Config{Options: &sql.TxOptions{ReadOnly: true}}
	got, err := resiliencesql.Tx(t.Context(), opened(t, d), retries(2), config, insert)
	if got != 7 || err != nil || d.count("COMMIT") != 2 {
		t.Errorf("got %v, %v after %s, want 7, nil after 2 COMMIT", got, err, d.logged())
	}
}

func TestTxKeepsMarksOfFn(t *testing.T) {
	for want, err := range map[string]error{
		"NotFailure":         resilience.NotFailure(serialization),
		"CallerFault":        resilience.CallerFault(serialization),
		"NotMade":            resilience.NotMade(unique),
		"Permanent":          retry.Permanent(serialization),
		"NotMade Contention": resilience.Contention(unique), // undone, so it can be tried again
	} {
		var policy seen
		_, got := resiliencesql.Tx(t.Context(), opened(t, &database{}), &policy, resiliencesql.Config{}, func(context.Context, *sql.Tx) (int, error) {
			return 0, err
		})
		if marks(policy.err) != want {
			t.Errorf("got %v (%s), want %s", got, marks(policy.err), want)
		}
	}
	// A mark inside another error isn't outermost, and a time to wait is no statement.
	for _, err := range []error{fmt.Errorf("x: %w", resilience.NotFailure(serialization)), resilience.WithRetryAfter(serialization, time.Second)} {
		var policy seen
		resiliencesql.Tx(t.Context(), opened(t, &database{}), &policy, resiliencesql.Config{}, func(context.Context, *sql.Tx) (int, error) {
			return 0, err
		})
		if marks(policy.err) != "NotMade Contention" {
			t.Errorf("fn returned %v: got %s, want NotMade Contention", err, marks(policy.err))
		}
	}
}

func TestTxContextThatEndedBeforeCommitIsNotMade(t *testing.T) {
	cause := errors.New("shutting down")
	for _, test := range []struct {
		err  error // of fn
		want string
	}{{nil, "NotMade"}, {errOwn, "NotMade"}, {canceled, "NotMade"}, {serialization, "NotMade"}, {tooMany, "NotMade"}, {unique, "NotFailure"}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		var policy seen
		d := &database{}
		_, err := resiliencesql.Tx(ctx, opened(t, d), &policy, resiliencesql.Config{}, func(context.Context, *sql.Tx) (int, error) {
			cancel(cause)
			return 0, test.err
		})
		if marks(policy.err) != test.want || d.count("COMMIT") != 0 || test.err != nil && !errors.Is(err, test.err) {
			t.Errorf("fn returned %v: got %v (%s), want %s", test.err, err, marks(policy.err), test.want)
		}
		if matches := errors.Is(err, context.Canceled) && errors.Is(err, cause); matches != (test.err != unique) {
			t.Errorf("fn returned %v: got %v, which matches the context: %v, want %v", test.err, err, matches, test.err != unique)
		}
	}
}

func TestTxContextThatEndedInFullPoolIsCallerFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &database{}
		db := sql.OpenDB(d)
		db.SetMaxOpenConns(1)
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var policy seen
		_, err = resiliencesql.Tx(t.Context(), db, resilience.Pipeline{timeout.After(time.Second), &policy}, resiliencesql.Config{}, insert)
		if marks(policy.err) != "NotMade CallerFault" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v (%s), want CallerFault", err, marks(policy.err))
		}
		conn.Close()
		checkClosed(t, db, d)
	})
}

// waitForConn is another caller, which waits until the connection of the only one that db may have
// is free, or its dial or BEGIN has ended.
func waitForConn(t *testing.T, db *sql.DB, next chan<- *sql.Conn) {
	time.Sleep(time.Millisecond)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Error(err)
	}
	next <- conn
}

// TestTxContextThatEndedInDialIsNoCallerFault, also if another caller, which waits for the connection,
// takes its place. Otherwise no breaker would see that a server hangs, once the pool is full of dials.
func TestTxContextThatEndedInDialIsNoCallerFault(t *testing.T) {
	for _, waiters := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			d := &database{on: func(ctx context.Context, op string, conn int) error {
				if op == "CONNECT" && conn == 1 {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}}
			db := sql.OpenDB(d)
			db.SetMaxOpenConns(1)
			next := make(chan *sql.Conn)
			for range waiters {
				go waitForConn(t, db, next)
			}
			var policy seen
			_, err := resiliencesql.Tx(t.Context(), db, resilience.Pipeline{timeout.After(time.Second), &policy}, resiliencesql.Config{}, insert)
			if marks(policy.err) != "NotMade" {
				t.Errorf("%d waiters: got %v (%s), want NotMade", waiters, err, marks(policy.err))
			}
			for range waiters {
				(<-next).Close()
			}
			checkClosed(t, db, d)
		})
	}
}

// TestTxContextThatEndedInBeginIsNoCallerFault, although another caller takes the connection's place.
func TestTxContextThatEndedInBeginIsNoCallerFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &database{on: func(ctx context.Context, op string, _ int) error {
			if op == "BEGIN" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		db := sql.OpenDB(d)
		db.SetMaxOpenConns(1)
		next := make(chan *sql.Conn)
		go waitForConn(t, db, next)
		var policy seen
		_, err := resiliencesql.Tx(t.Context(), db, resilience.Pipeline{timeout.After(time.Second), &policy}, resiliencesql.Config{}, insert)
		if marks(policy.err) != "NotMade" || d.count("BEGIN") != 1 {
			t.Errorf("got %v (%s) after %d BEGIN, want NotMade after 1", err, marks(policy.err), d.count("BEGIN"))
		}
		(<-next).Close()
		checkClosed(t, db, d)
	})
}

func TestTxAnsweredStaysAfterContextEndedInConnect(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	db := opened(t, &database{on: func(_ context.Context, op string, _ int) error {
		cancel()
		return unique
	}})
	var policy seen
	_, err := resiliencesql.Tx(ctx, db, &policy, resiliencesql.Config{}, insert)
	if marks(policy.err) != "NotFailure" || errors.Is(err, context.Canceled) {
		t.Errorf("got %v (%s), want NotFailure", err, marks(policy.err))
	}
}

func TestTxClassifyIsNotCalledWithNil(t *testing.T) {
	classify := func(err error) resiliencesql.Class {
		if err == nil {
			t.Error("called with nil")
		}
		return resiliencesql.RolledBack
	}
	for _, op := range []string{"CONNECT", "BEGIN", "INSERT", "COMMIT"} {
		d := &database{on: on(op, errOwn)}
		got, err := resiliencesql.Tx(t.Context(), opened(t, d), retries(2), resiliencesql.Config{Classify: classify}, insert)
		if got != 7 || err != nil {
			t.Errorf("%s failed: got %v, %v, want 7, nil: errors are RolledBack", op, got, err)
		}
	}
}

func TestTxInvalidClassIsUnknown(t *testing.T) {
	for _, class := range []resiliencesql.Class{-1, 6} {
		var policy seen
		d := &database{on: on("INSERT", serialization)}
		resiliencesql.Tx(t.Context(), opened(t, d), &policy, resiliencesql.Config{Classify: func(error) resiliencesql.Class { return class }}, insert)
		if marks(policy.err) != "NotFailure" {
			t.Errorf("%v: got %s, want NotFailure, as for Unknown", class, marks(policy.err))
		}
	}
}
