package resiliencesql_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/internal/permanent"
	"github.com/effector-go/resilience/resiliencesql"
	"github.com/effector-go/resilience/retry"
)

// A database is a fake server and its driver. It logs what arrives, with the number of the
// connection: "1 BEGIN". on, if set, is called before each operation with its name, and decides how
// it ends. It receives the context that the driver has.
type database struct {
	on func(ctx context.Context, op string, conn int) error

	mu    sync.Mutex
	log   []string
	conns int // opened so far
	open  int
}

func (d *database) do(ctx context.Context, op string, conn int) error {
	d.mu.Lock()
	d.log = append(d.log, fmt.Sprint(conn, " ", op))
	d.mu.Unlock()
	if d.on == nil {
		return nil
	}
	return d.on(ctx, op, conn)
}

// logged returns the log without connects and closes, in one line.
func (d *database) logged() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(slices.DeleteFunc(slices.Clone(d.log), func(line string) bool {
		return strings.HasSuffix(line, "CONNECT") || strings.HasSuffix(line, "CLOSE")
	}), ", ")
}

func (d *database) count(op string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, line := range d.log {
		if _, logged, _ := strings.Cut(line, " "); logged == op {
			n++
		}
	}
	return n
}

func (d *database) Driver() driver.Driver { return fakeDriver{} }

type fakeDriver struct{}

func (fakeDriver) Open(string) (driver.Conn, error) { return nil, errors.New("not used") }

func (d *database) Connect(ctx context.Context) (driver.Conn, error) {
	d.mu.Lock()
	d.conns++
	c := &fakeConn{d: d, id: d.conns}
	d.mu.Unlock()
	if err := d.do(ctx, "CONNECT", c.id); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.open++
	d.mu.Unlock()
	return c, nil
}

type fakeConn struct {
	d  *database
	id int
}

func (c *fakeConn) Prepare(query string) (driver.Stmt, error) {
	return &fakeStmt{c, query}, c.d.do(context.Background(), "PREPARE "+query, c.id)
}

func (c *fakeConn) Close() error {
	c.d.mu.Lock()
	c.d.open--
	c.d.mu.Unlock()
	return c.d.do(context.Background(), "CLOSE", c.id)
}

func (c *fakeConn) Begin() (driver.Tx, error) { return nil, errors.New("not used") }

func (c *fakeConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	op := "BEGIN"
	if opts.ReadOnly {
		op += " READ ONLY"
	}
	if opts.Isolation != 0 {
		op += " " + sql.IsolationLevel(opts.Isolation).String()
	}
	if err := c.d.do(ctx, op, c.id); err != nil {
		return nil, err
	}
	return &fakeTx{c, ctx}, nil
}

func (c *fakeConn) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), c.d.do(ctx, query, c.id)
}

func (c *fakeConn) QueryContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	if err := c.d.do(ctx, query, c.id); err != nil {
		return nil, err
	}
	return &fakeRows{c: c, left: 1}, nil
}

func (c *fakeConn) Ping(ctx context.Context) error { return c.d.do(ctx, "PING", c.id) }

type fakeTx struct {
	c   *fakeConn
	ctx context.Context
}

func (t *fakeTx) Commit() error   { return t.c.d.do(t.ctx, "COMMIT", t.c.id) }
func (t *fakeTx) Rollback() error { return t.c.d.do(t.ctx, "ROLLBACK", t.c.id) }

type fakeStmt struct {
	c     *fakeConn
	query string
}

func (s *fakeStmt) Close() error                               { return nil }
func (s *fakeStmt) NumInput() int                              { return -1 }
func (s *fakeStmt) Exec([]driver.Value) (driver.Result, error) { return nil, errors.New("not used") }
func (s *fakeStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, errors.New("not used") }
func (s *fakeStmt) ExecContext(ctx context.Context, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), s.c.d.do(ctx, "STMT "+s.query, s.c.id)
}

// fakeRows has one row with the number 1.
type fakeRows struct {
	c    *fakeConn
	left int
}

func (r *fakeRows) Columns() []string { return []string{"n"} }
func (r *fakeRows) Close() error      { return r.c.d.do(context.Background(), "CLOSE ROWS", r.c.id) }
func (r *fakeRows) Next(dest []driver.Value) error {
	if err := r.c.d.do(context.Background(), "NEXT", r.c.id); err != nil {
		return err
	}
	if r.left == 0 {
		return io.EOF
	}
	r.left--
	dest[0] = int64(1)
	return nil
}

// on returns a function that fails the n-th operation (from 1) with the name op with the n-th error.
func on(op string, errs ...error) func(context.Context, string, int) error {
	var mu sync.Mutex
	return func(_ context.Context, got string, _ int) error {
		mu.Lock()
		defer mu.Unlock()
		if got != op || len(errs) == 0 {
			return nil
		}
		err := errs[0]
		errs = errs[1:]
		return err
	}
}

// both calls all functions until one returns an error.
func both(fs ...func(context.Context, string, int) error) func(context.Context, string, int) error {
	return func(ctx context.Context, op string, conn int) error {
		for _, f := range fs {
			if err := f(ctx, op, conn); err != nil {
				return err
			}
		}
		return nil
	}
}

// opened returns d as a *sql.DB. At the end of the test, it is checked by checkClosed.
func opened(t *testing.T, d *database) *sql.DB {
	t.Helper()
	db := sql.OpenDB(d)
	t.Cleanup(func() { checkClosed(t, db, d) })
	return db
}

// checkClosed checks that no connection of db is in use, closes db, and checks that no connection of d
// is open.
func checkClosed(t *testing.T, db *sql.DB, d *database) {
	t.Helper()
	if n := db.Stats().InUse; n != 0 {
		t.Errorf("%d connections are in use, want 0", n)
	}
	db.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open != 0 {
		t.Errorf("%d connections are open, want 0; log: %v", d.open, d.log)
	}
}

// retries returns a retry policy with n attempts and no delay to speak of.
func retries(n int) resilience.Policy {
	return retry.New(retry.Config{MaxAttempts: n, Backoff: retry.Constant(time.Nanosecond)})
}

// A stateError is an error with an SQLSTATE.
type stateError string

func (e stateError) Error() string    { return "state " + string(e) }
func (e stateError) SQLState() string { return string(e) }

const (
	serialization = stateError("40001") // RolledBack
	unique        = stateError("23505") // Answered
	diskFull      = stateError("53100") // Failed
	shutdown      = stateError("57P01") // Ambiguous
	tooMany       = stateError("53300") // NotRun
	canceled      = stateError("57014") // Failed
)

var errOwn = errors.New("the program's own")

// panicOf calls the function and returns the text of its panic, "<nil>" if there is none.
func panicOf(call func()) (text string) {
	defer func() { text = fmt.Sprint(recover()) }()
	call()
	return ""
}

// marks names the outer marks of err.
func marks(err error) string {
	var names []string
	if mark.IsNotMade(err) {
		names = append(names, "NotMade")
	}
	if kind := mark.Of(err); kind != mark.None {
		names = append(names, map[mark.Kind]string{mark.NotFailure: "NotFailure", mark.Contention: "Contention", mark.CallerFault: "CallerFault"}[kind])
	}
	if permanent.Without(err) != err {
		names = append(names, "Permanent")
	}
	var ambiguous *resiliencesql.AmbiguousError
	if errors.As(err, &ambiguous) {
		names = append(names, "Ambiguous")
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, " ")
}

// seen is a policy that keeps the error of its last run.
type seen struct{ err error }

func (s *seen) Run(ctx context.Context, next resilience.Next) error {
	s.err = next.Run(ctx)
	return s.err
}
