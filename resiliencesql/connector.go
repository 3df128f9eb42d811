package resiliencesql

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/retry"
)

// Connector returns a [driver.Connector] that dials with base inside the policy, for [sql.OpenDB]:
//
//	db := sql.OpenDB(resiliencesql.Connector(base, policy))
//
// While a breaker of the policy is open, calls that need a new connection fail immediately, with an
// error that matches [resilience.ErrRefused]. A failed dial has no effect, so it is repeated even
// under [resilience.AtMostOnce], unless the database refused for good, as for a wrong password. A
// connection that arrives after its context has ended, or that base returned with an error, is
// closed. No error matches [driver.ErrBadConn], for which database/sql would dial up to three times.
//
// Give the policy a timeout and few retries: database/sql dials on one goroutine for callers that
// wait for a free connection, without a deadline. Use another breaker than for [Tx] and [Do]: a
// half-open one would admit Tx as its probe and then refuse the dial that Tx needs.
//
// If base is an [io.Closer], so is the result. Connector panics if base or policy is nil. The result
// is as safe for concurrent use as base.
func Connector(base driver.Connector, policy resilience.Policy) driver.Connector {
	switch {
	case base == nil:
		panic("resiliencesql: Connector: base is nil, must be a driver.Connector")
	case isNil(policy):
		panic("resiliencesql: Connector: policy is nil or contains nil, must be a Policy")
	}
	c := &connector{base, resilience.Pipeline{resilience.Discard(closeConn), policy}}
	if closer, ok := base.(io.Closer); ok {
		return &closingConnector{c, closer}
	}
	return c
}

type connector struct {
	base   driver.Connector
	policy resilience.Policy
}

type closingConnector struct {
	*connector
	io.Closer
}

func (c *connector) Driver() driver.Driver { return c.base.Driver() }

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := resilience.Do(ctx, c.policy, c.dial)
	if err == nil {
		return conn, nil
	}
	if errors.Is(err, driver.ErrBadConn) {
		err = &notBadConn{err}
	}
	return nil, err
}

func (c *connector) dial(ctx context.Context) (driver.Conn, error) {
	conn, err := c.base.Connect(ctx)
	switch {
	case err == nil && ctx.Err() != nil: // too late; with an error, Discard closes it
		return conn, resilience.NotMade(resilience.ContextErr(ctx))
	case err == nil:
		return conn, nil
	}
	err = resilience.NotMade(err)
	switch Classify(err) {
	case Answered:
		err = resilience.NotFailure(err)
	case Failed:
		err = retry.Permanent(err) // outermost, so that retry removes it
	case RolledBack:
		err = resilience.Contention(err)
	}
	return conn, err
}

// closeConn closes a connection that nobody will use. A nil pointer in the interface is what a
// Connect that passes on another function's results returns with an error.
func closeConn(conn driver.Conn) {
	if v := reflect.ValueOf(conn); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return
	}
	_ = conn.Close() // it was never used
}
