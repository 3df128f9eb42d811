package resiliencesql_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencesql"
	"github.com/effector-go/resilience/timeout"
)

// update is one statement. It returns 7 with whatever error.
func update(ctx context.Context, conn resiliencesql.DBTX) (int, error) {
	_, err := conn.ExecContext(ctx, "UPDATE")
	return 7, err
}

// updates is a statement that succeeds and the one that may fail.
func updates(ctx context.Context, conn resiliencesql.DBTX) (int, error) {
	if _, err := conn.ExecContext(ctx, "INSERT"); err != nil {
		return 0, err
	}
	return update(ctx, conn)
}

func TestDoRunsStatement(t *testing.T) {
	d := &database{}
	db := opened(t, d)
	got, err := resiliencesql.Do(t.Context(), db, none, resiliencesql.Config{}, update)
	if got != 7 || err != nil || d.logged() != "1 UPDATE" || db.Stats().Idle != 1 {
		t.Errorf("got %v, %v after %s, %d idle, want 7, nil after 1 UPDATE, 1 idle", got, err, d.logged(), db.Stats().Idle)
	}
}

func TestDoPanicsOnNilAndOptions(t *testing.T) {
	db := opened(t, &database{})
	for want, call := range map[string]func(){
		"resiliencesql: Do: db is nil, must be a *sql.DB": func() {
			resiliencesql.Do(t.Context(), nil, none, resiliencesql.Config{}, update)
		},
		"resiliencesql: Do: policy is nil or contains nil, must be a Policy": func() {
			resiliencesql.Do(t.Context(), db, nil, resiliencesql.Config{}, update)
		},
		"resiliencesql: Do: fn is nil, must be a function": func() {
			resiliencesql.Do[int](t.Context(), db, none, resiliencesql.Config{}, nil)
		},
		"resiliencesql: Do: Config.Options is set, must be nil: Do begins no transaction": func() {
			resiliencesql.Do(t.Context(), db, none, resiliencesql.Config{Options: &sql.TxOptions{}}, update)
		},
	} {
		if got := panicOf(call); got != want {
			t.Errorf("got panic %q, want %q", got, want)
		}
	}
}

// Rule 8.

func TestDoRunsStatementOnceAfterErrBadConn(t *testing.T) {
	d := &database{on: on("UPDATE", driver.ErrBadConn, driver.ErrBadConn, driver.ErrBadConn)}
	db := opened(t, d)
	got, err := resiliencesql.Do(t.Context(), db, retries(3), resiliencesql.Config{}, update)
	var ambiguous *resiliencesql.AmbiguousError
	if got != 0 || !errors.As(err, &ambiguous) || d.count("UPDATE") != 1 {
		t.Errorf("got %v, %v after %s, want an AmbiguousError after 1 UPDATE", got, err, d.logged())
	}
}

func TestDoObservesEffects(t *testing.T) {
	exec := func(ctx context.Context, conn resiliencesql.DBTX) error {
		_, err := conn.ExecContext(ctx, "FIRST")
		return err
	}
	query := func(ctx context.Context, conn resiliencesql.DBTX) error {
		rows, err := conn.QueryContext(ctx, "FIRST")
		if err == nil {
			err = rows.Close()
		}
		return err
	}
	row := func(ctx context.Context, conn resiliencesql.DBTX) error {
		return conn.QueryRowContext(ctx, "FIRST").Scan(new(int))
	}
	prepare := func(ctx context.Context, conn resiliencesql.DBTX) error {
		_, err := conn.PrepareContext(ctx, "FIRST")
		return err
	}
	for name, first := range map[string]func(context.Context, resiliencesql.DBTX) error{"Exec": exec, "Query": query, "QueryRow": row, "Prepare": prepare} {
		for err, effect := range map[error]bool{
			nil: true, io.EOF: true, errOwn: true, diskFull: true,
			tooMany: false, serialization: false, unique: false,
		} {
			d := &database{on: both(on("FIRST", err), on("PREPARE FIRST", err))}
			var policy seen
			resiliencesql.Do(t.Context(), opened(t, d), &policy, resiliencesql.Config{}, func(ctx context.Context, conn resiliencesql.DBTX) (int, error) {
				first(ctx, conn) // whatever it returns
				return 0, serialization
			})
			want := "NotMade Contention"
			if effect {
				want = "NotFailure"
			}
			if marks(policy.err) != want {
				t.Errorf("%s answered %v: got %s, want %s", name, err, marks(policy.err), want)
			}
		}
	}
}

func TestDoEndsContextOfFn(t *testing.T) {
	d := &database{}
	db := opened(t, d)
	var kept context.Context
	for name, of := range map[string]func(context.Context) context.Context{
		"fn's":                func(ctx context.Context) context.Context { return ctx },
		"context.Background":  func(context.Context) context.Context { return context.Background() },
		"context.WithoutDone": context.WithoutCancel,
	} {
		_, err := resiliencesql.Do(t.Context(), db, none, resiliencesql.Config{}, func(ctx context.Context, conn resiliencesql.DBTX) (int, error) {
			kept = ctx
			rows, err := conn.QueryContext(of(ctx), "SELECT")
			if err == nil && !rows.Next() {
				err = rows.Err()
			}
			return 0, err
		})
		if err != nil || kept.Err() == nil || db.Stats().Idle != 1 {
			t.Errorf("%s: got %v, context's error %v, %d idle, want nil, an ended context, 1 idle", name, err, kept.Err(), db.Stats().Idle)
		}
	}
	if n := d.count("CLOSE ROWS"); n != 3 {
		t.Errorf("%d rows were closed, want 3", n)
	}
}

func TestDoVerifySettlesOutcome(t *testing.T) {
	errVerify := errors.New("can't verify")
	for _, test := range []struct {
		tookEffect bool
		err        error
		value      int
		marks      string
	}{{true, nil, 7, "none"}, {false, nil, 0, "NotMade Contention"}, {false, errVerify, 0, "Ambiguous"}} {
		d := &database{on: on("UPDATE", io.EOF)}
		db := opened(t, d)
		var policy seen
		got, err := resiliencesql.Do(t.Context(), db, &policy, resiliencesql.Config{Verify: func(context.Context) (bool, error) {
			if n := db.Stats().OpenConnections; n != 0 {
				t.Errorf("Verify was called while %d connections were open, want 0", n)
			}
			return test.tookEffect, test.err
		}}, update)
		if got != test.value || marks(policy.err) != test.marks || test.err != nil && !(errors.Is(err, io.EOF) && errors.Is(err, errVerify)) {
			t.Errorf("got %v, %v (%s), want %v (%s)", got, err, marks(policy.err), test.value, test.marks)
		}
	}
}

func TestDoDriverPanicLeavesNothing(t *testing.T) {
	query := func(ctx context.Context, conn resiliencesql.DBTX) (int, error) {
		return 0, conn.QueryRowContext(ctx, "SELECT").Scan(new(int))
	}
	statement := func(ctx context.Context, conn resiliencesql.DBTX) (int, error) {
		stmt, err := conn.PrepareContext(ctx, "P")
		if err == nil {
			_, err = stmt.ExecContext(ctx)
		}
		return 0, err
	}
	unknown := func(context.Context, resiliencesql.DBTX) (int, error) { return 0, errOwn }
	for _, test := range []struct {
		op     string
		fn     func(context.Context, resiliencesql.DBTX) (int, error)
		pooled bool
	}{
		{op: "UPDATE", fn: update},
		{op: "SELECT", fn: query},
		{op: "PREPARE P", fn: statement},
		{op: "STMT P", fn: statement},
		{op: "NEXT", fn: query, pooled: true}, // it answers a Ping
		{op: "CLOSE ROWS", fn: query},
		{op: "PING", fn: unknown},
	} {
		for name, leave := range map[string]func(){"panic": func() { panic("driver") }, "Goexit": runtime.Goexit} {
			if name == "Goexit" && test.op == "PING" {
				continue // it ends another goroutine
			}
			t.Run(test.op+" "+name, func(t *testing.T) {
				left := false
				d := &database{on: func(_ context.Context, op string, _ int) error {
					if op == test.op && !left {
						left = true
						leave()
					}
					return nil
				}}
				db := opened(t, d)
				ended := make(chan any)
				go func() {
					defer func() { ended <- recover() }()
					resiliencesql.Do(t.Context(), db, none, resiliencesql.Config{}, test.fn)
				}()
				if value := <-ended; (value == "driver") != (name == "panic") {
					t.Errorf("recovered %v, want driver after a panic only", value)
				}
				if pooled := db.Stats().Idle == 1; pooled != test.pooled {
					t.Errorf("pooled is %v, want %v; log: %v", pooled, test.pooled, d.log)
				}
			})
		}
	}
}

func TestDoDriverPanicThatFnRecoveredClosesConnection(t *testing.T) {
	for _, query := range []bool{true, false} {
		d := &database{on: func(_ context.Context, op string, _ int) error {
			if op == "X" {
				panic("driver")
			}
			return nil
		}}
		db := opened(t, d)
		got, err := resiliencesql.Do(t.Context(), db, none, resiliencesql.Config{}, func(ctx context.Context, conn resiliencesql.DBTX) (n int, err error) {
			defer func() { n, _ = 7, recover() }()
			if query {
				conn.QueryContext(ctx, "X")
			} else {
				conn.ExecContext(ctx, "X")
			}
			return 0, nil
		})
		if got != 7 || err != nil || db.Stats().OpenConnections != 0 {
			t.Errorf("got %v, %v, %d connections, want 7, nil, 0", got, err, db.Stats().OpenConnections)
		}
	}
}

// TestDoEndsAfterDriverPanicThatFnRecovered is about panics that conn doesn't see. It runs outside of a
// bubble: there, time would stand still while the connection waits for the statement's lock, which
// stays locked.
func TestDoEndsAfterDriverPanicThatFnRecovered(t *testing.T) {
	db := sql.OpenDB(&database{on: func(_ context.Context, op string, _ int) error {
		if op == "STMT P" {
			panic("driver")
		}
		return nil
	}})
	defer db.Close()
	got, err := resiliencesql.Do(t.Context(), db, none, resiliencesql.Config{}, func(ctx context.Context, conn resiliencesql.DBTX) (int, error) {
		stmt, err := conn.PrepareContext(ctx, "P")
		if err != nil {
			return 0, err
		}
		defer func() { _ = recover() }()
		_, err = stmt.ExecContext(ctx)
		return 0, err
	})
	if got != 0 || err != nil {
		t.Errorf("got %v, %v, want 0, nil", got, err)
	}
}

func TestDoPanicOfFnReturnsConnection(t *testing.T) {
	d := &database{}
	db := opened(t, d)
	func() {
		defer func() { recover() }()
		resiliencesql.Do(t.Context(), db, none, resiliencesql.Config{}, func(context.Context, resiliencesql.DBTX) (int, error) { panic("fn") })
	}()
	if db.Stats().Idle != 1 {
		t.Errorf("got %d idle connections, want 1", db.Stats().Idle)
	}
}

// Rule 9, for Do.

func TestDoMarksErrorsByClassAndEffect(t *testing.T) {
	errs := []error{tooMany, serialization, io.EOF, unique, diskFull, errOwn}
	for _, test := range []struct {
		name       string
		fn         func(context.Context, resiliencesql.DBTX) (int, error)
		repeatable bool
		lost       bool // Ping gets no answer
		want       [6]string
	}{
		{"no effect", update, false, false, [6]string{"NotMade", "NotMade Contention", "Ambiguous", "NotFailure", "Permanent", "NotFailure"}},
		{"no effect, lost", update, false, true, [6]string{"NotMade", "NotMade Contention", "Ambiguous", "NotFailure", "Permanent", "Ambiguous"}},
		{"no effect, repeatable", update, true, true, [6]string{"NotMade", "NotMade Contention", "none", "NotFailure", "Permanent", "none"}},
		{"effect", updates, false, false, [6]string{"none", "NotFailure", "Ambiguous", "NotFailure", "Permanent", "NotFailure"}},
		{"effect, lost", updates, false, true, [6]string{"none", "NotFailure", "Ambiguous", "NotFailure", "Permanent", "Ambiguous"}},
		{"effect, repeatable", updates, true, true, [6]string{"none", "Contention", "none", "NotFailure", "Permanent", "none"}},
	} {
		for i, err := range errs {
			d := &database{on: on("UPDATE", err)}
			if test.lost {
				d.on = both(d.on, on("PING", io.EOF))
			}
			var policy seen
			_, got := resiliencesql.Do(t.Context(), opened(t, d), &policy, resiliencesql.Config{Repeatable: test.repeatable}, test.fn)
			if marks(policy.err) != test.want[i] || !errors.Is(got, err) {
				t.Errorf("%s, %v: got %v (%s), want %s", test.name, err, got, marks(policy.err), test.want[i])
			}
		}
	}
}

func TestDoMarksErrorsOfConnect(t *testing.T) {
	for err, want := range map[error]string{
		tooMany: "NotMade", serialization: "NotMade Contention", io.EOF: "NotMade", unique: "NotFailure", diskFull: "Permanent", errOwn: "NotMade",
	} {
		var policy seen
		resiliencesql.Do(t.Context(), opened(t, &database{on: on("CONNECT", err)}), &policy, resiliencesql.Config{}, update)
		if marks(policy.err) != want {
			t.Errorf("%v: got %s, want %s", err, marks(policy.err), want)
		}
	}
}

func TestDoPingHasOneSecond(t *testing.T) {
	for _, ignoresContext := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := &database{on: func(ctx context.Context, op string, _ int) error {
				if op == "UPDATE" {
					return errOwn
				}
				if op == "PING" && ignoresContext {
					time.Sleep(time.Hour)
				} else if op == "PING" {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}}
			db := sql.OpenDB(d)
			began := time.Now()
			_, err := resiliencesql.Do(t.Context(), db, none, resiliencesql.Config{}, update)
			want := time.Second
			if ignoresContext {
				want = 2 * time.Second
			}
			var ambiguous *resiliencesql.AmbiguousError
			if took := time.Since(began); took != want || !errors.As(err, &ambiguous) {
				t.Errorf("got %v after %v, want an AmbiguousError after %v", err, took, want)
			}
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			db.Close()
		})
	}
}

func TestDoContextThatEndedMatches(t *testing.T) {
	cause := errors.New("shutting down")
	for _, test := range []struct {
		err    error
		effect bool
		want   string
	}{
		{canceled, false, "NotMade"}, // the context stopped the statement
		{canceled, true, "none"},
		{tooMany, false, "NotMade"},
		{serialization, false, "NotMade Contention"},
		{serialization, true, "NotFailure"},
		{io.EOF, false, "Ambiguous"},
		{errOwn, false, "NotFailure"},
		{unique, false, "NotFailure"},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		d := &database{on: func(_ context.Context, op string, _ int) error {
			if op != "UPDATE" {
				return nil
			}
			cancel(cause)
			return test.err
		}}
		fn := update
		if test.effect {
			fn = updates
		}
		var policy seen
		_, err := resiliencesql.Do(ctx, opened(t, d), &policy, resiliencesql.Config{}, fn)
		if marks(policy.err) != test.want || !errors.Is(err, test.err) {
			t.Errorf("%v: got %v (%s), want %s", test.err, err, marks(policy.err), test.want)
		}
		if matches := errors.Is(err, context.Canceled) && errors.Is(err, cause); matches != (test.err != unique) {
			t.Errorf("%v: got %v, which matches the context: %v, want %v", test.err, err, matches, test.err != unique)
		}
	}
}

func TestDoContextThatEndedInFullPoolIsCallerFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &database{}
		db := sql.OpenDB(d)
		db.SetMaxOpenConns(1)
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var policy seen
		_, err = resiliencesql.Do(t.Context(), db, resilience.Pipeline{timeout.After(time.Second), &policy}, resiliencesql.Config{}, update)
		if marks(policy.err) != "NotMade CallerFault" {
			t.Errorf("got %v (%s), want CallerFault", err, marks(policy.err))
		}
		conn.Close()
		checkClosed(t, db, d)
	})
}

func TestDoKeepsMarksOfFn(t *testing.T) {
	for _, test := range []struct {
		fn   func(context.Context, resiliencesql.DBTX) (int, error)
		want string
	}{{update, "NotMade Contention"}, {updates, "Contention"}} {
		d := &database{on: on("UPDATE", unique)}
		var policy seen
		_, err := resiliencesql.Do(t.Context(), opened(t, d), &policy, resiliencesql.Config{}, func(ctx context.Context, conn resiliencesql.DBTX) (int, error) {
			n, err := test.fn(ctx, conn)
			return n, resilience.Contention(err)
		})
		if marks(policy.err) != test.want {
			t.Errorf("got %v (%s), want %s", err, marks(policy.err), test.want)
		}
	}
}

func TestDoNotRunClosesConnection(t *testing.T) {
	d := &database{on: on("UPDATE", stateError("25006"))} // a primary that became a replica
	db := opened(t, d)
	got, err := resiliencesql.Do(t.Context(), db, retries(2), resiliencesql.Config{}, update)
	if got != 7 || err != nil || d.logged() != "1 UPDATE, 2 UPDATE" {
		t.Errorf("got %v, %v after %s, want 7, nil on a second connection", got, err, d.logged())
	}
}
