package resiliencesql_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencesql"
	"github.com/effector-go/resilience/timeout"
)

// Rule 11.

func TestConnectorDials(t *testing.T) {
	d := &database{}
	db := sql.OpenDB(resiliencesql.Connector(d, none))
	if err := db.PingContext(t.Context()); err != nil || d.logged() != "1 PING" {
		t.Errorf("got %v after %s, want nil after 1 PING", err, d.logged())
	}
	checkClosed(t, db, d)
}

func TestConnectorOpenBreakerFailsPingImmediately(t *testing.T) {
	d := &database{on: func(_ context.Context, op string, _ int) error { return io.EOF }}
	db := sql.OpenDB(resiliencesql.Connector(d, breaker.New(breaker.Config{Consecutive: 1})))
	defer db.Close()
	if err := db.PingContext(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want %v", err, io.EOF)
	}
	if err := db.PingContext(t.Context()); !errors.Is(err, resilience.ErrRefused) || d.count("CONNECT") != 1 {
		t.Errorf("got %v after %d dials, want a refusal after 1", err, d.count("CONNECT"))
	}
}

func TestConnectorMarksErrors(t *testing.T) {
	for _, test := range []struct {
		err   error
		want  string // the marks that the policy sees
		dials int
	}{
		{io.EOF, "NotMade", 2},
		{tooMany, "NotMade", 2},
		{errOwn, "NotMade", 2},
		{serialization, "NotMade Contention", 2},
		{stateError("28P01"), "NotMade Permanent", 1}, // a wrong password
		{unique, "NotMade NotFailure", 1},
	} {
		d := &database{on: on("CONNECT", test.err, test.err)}
		var policy seen
		db := sql.OpenDB(resiliencesql.Connector(d, resilience.Pipeline{resilience.AtMostOnce, retries(2), &policy}))
		err := db.PingContext(t.Context())
		if !errors.Is(err, test.err) || marks(policy.err) != test.want || d.count("CONNECT") != test.dials {
			t.Errorf("%v: got %v (%s) after %d dials, want %s after %d", test.err, err, marks(policy.err), d.count("CONNECT"), test.want, test.dials)
		}
		db.Close()
	}
}

func TestConnectorErrorNeverMatchesErrBadConn(t *testing.T) {
	for _, bad := range []error{driver.ErrBadConn, fmt.Errorf("dial: %w", errors.Join(errOwn, driver.ErrBadConn, unique))} {
		d := &database{on: func(context.Context, string, int) error { return bad }}
		db := sql.OpenDB(resiliencesql.Connector(d, none))
		err := db.PingContext(t.Context())
		if err == nil || errors.Is(err, driver.ErrBadConn) || err.Error() != bad.Error() || d.count("CONNECT") != 1 {
			t.Errorf("got %v after %d dials, want an error with the text of %v, but not ErrBadConn, after 1", err, d.count("CONNECT"), bad)
		}
		var got, want stateError
		errors.As(err, &got)
		errors.As(bad, &want)
		if errors.Is(err, errOwn) != errors.Is(bad, errOwn) || got != want {
			t.Errorf("got %v, want an error that matches the rest of %v", err, bad)
		}
		if got, want := resiliencesql.Classify(err), resiliencesql.Classify(bad); got != want {
			t.Errorf("%v: got class %v, want %v", bad, got, want)
		}
		db.Close()
	}
}

func TestConnectorClosesLateConnection(t *testing.T) {
	for _, abandon := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			d := &database{on: func(_ context.Context, op string, _ int) error {
				if op == "CONNECT" {
					time.Sleep(time.Minute) // takes no context
				}
				return nil
			}}
			db := sql.OpenDB(resiliencesql.Connector(d, timeout.New(timeout.Config{Limit: time.Second, Abandon: abandon})))
			if err := db.PingContext(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("abandon %d: got %v, want %v", abandon, err, context.DeadlineExceeded)
			}
			time.Sleep(2 * time.Minute)
			if n := d.count("CLOSE"); n != 1 {
				t.Errorf("abandon %d: %d connections were closed, want 1", abandon, n)
			}
			checkClosed(t, db, d)
		})
	}
}

// withError returns a connection with its error.
type withError struct {
	*database
	conn driver.Conn
}

func (c withError) Connect(context.Context) (driver.Conn, error) { return c.conn, io.EOF }

func TestConnectorClosesConnectionWithError(t *testing.T) {
	d := &database{}
	conn, _ := d.Connect(t.Context())
	for _, c := range []driver.Conn{conn, nil, (*fakeConn)(nil)} {
		db := sql.OpenDB(resiliencesql.Connector(withError{d, c}, none))
		if err := db.PingContext(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want %v", err, io.EOF)
		}
		checkClosed(t, db, d)
	}
}

// closer counts its Closes.
type closer struct {
	*database
	closed int
}

func (c *closer) Close() error {
	c.closed++
	return errOwn
}

func TestConnectorPassesDriverAndCloserThrough(t *testing.T) {
	base := &closer{database: &database{}}
	db := sql.OpenDB(resiliencesql.Connector(base, none))
	if _, ok := db.Driver().(fakeDriver); !ok {
		t.Errorf("got driver %T, want fakeDriver", db.Driver())
	}
	if err := db.Close(); err != errOwn || base.closed != 1 {
		t.Errorf("got %v after %d closes, want %v after 1", err, base.closed, errOwn)
	}
	if _, ok := resiliencesql.Connector(&database{}, none).(io.Closer); ok {
		t.Error("it is an io.Closer, although base is not")
	}
}

func TestConnectorPanicsOnNil(t *testing.T) {
	const noPolicy = "resiliencesql: Connector: policy is nil or contains nil, must be a Policy"
	for _, test := range []struct {
		base   driver.Connector
		policy resilience.Policy
		want   string
	}{
		{nil, none, "resiliencesql: Connector: base is nil, must be a driver.Connector"},
		{&database{}, nil, noPolicy},
		{&database{}, resilience.Pipeline{(*breaker.Breaker)(nil)}, noPolicy},
	} {
		if got := panicOf(func() { resiliencesql.Connector(test.base, test.policy) }); got != test.want {
			t.Errorf("got panic %q, want %q", got, test.want)
		}
	}
}
