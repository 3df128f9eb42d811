package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync/atomic"

	_ "modernc.org/sqlite"
)

// A lossyDriver connects to SQLite. If lose is set, it loses the answer to the next COMMIT: the
// database commits, and the caller receives driver.ErrBadConn.
type lossyDriver struct {
	base driver.Driver
	dsn  string
	lose atomic.Bool
}

func newLossyDriver(dsn string) (*lossyDriver, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	return &lossyDriver{base: db.Driver(), dsn: dsn}, db.Close()
}

func (d *lossyDriver) Driver() driver.Driver { return d.base }

func (d *lossyDriver) Connect(context.Context) (driver.Conn, error) {
	conn, err := d.base.Open(d.dsn)
	if err != nil {
		return nil, err
	}
	return &lossyConn{conn, d}, nil
}

type lossyConn struct {
	driver.Conn
	driver *lossyDriver
}

func (c *lossyConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &lossyTx{tx, c.driver}, nil
}

func (c *lossyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *lossyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

type lossyTx struct {
	driver.Tx
	driver *lossyDriver
}

func (t *lossyTx) Commit() error {
	err := t.Tx.Commit()
	if err == nil && t.driver.lose.Swap(false) {
		return driver.ErrBadConn
	}
	return err
}
