package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencesql"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// each runs the test for every server, or for those with the names.
func each(t *testing.T, test func(t *testing.T, s *server), names ...string) {
	t.Helper()
	for _, s := range servers(t) {
		if names != nil && !slices.Contains(names, s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			s.need(t)
			test(t, s)
		})
	}
}

// prepared returns the server's database with a table of one row.
func prepared(t *testing.T, s *server) *sql.DB {
	t.Helper()
	db := s.open(t, "")
	t.Cleanup(func() {
		if n := db.Stats().InUse; n != 0 {
			t.Errorf("%d connections are in use, want 0", n)
		}
		db.Close()
	})
	execAll(t, db, "DROP TABLE IF EXISTS item; CREATE TABLE item (id INT PRIMARY KEY); INSERT INTO item VALUES (1)")
	return db
}

func count(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM item").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// retries counts attempts.
func retries(attempts *int) resilience.Policy {
	return retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.Constant(time.Millisecond), OnRetry: func(_ context.Context, e retry.Event) { *attempts = e.Attempt }})
}

func TestClassifyErrorsOfDrivers(t *testing.T) {
	each(t, func(t *testing.T, s *server) {
		db := prepared(t, s)
		for statement, want := range map[string]resiliencesql.Class{
			"INSERT INTO item VALUES (1)": resiliencesql.Answered,
			"no statement":                resiliencesql.Answered,
			"SELECT * FROM nowhere":       resiliencesql.Answered,
		} {
			_, err := db.ExecContext(t.Context(), statement)
			if got := resiliencesql.Classify(err); err == nil || got != want {
				t.Errorf("%s: got %v of class %v, want %v", statement, err, got, want)
			}
		}
		err := db.QueryRowContext(t.Context(), "SELECT id FROM item WHERE id = 9").Scan(new(int))
		if got := resiliencesql.Classify(err); got != resiliencesql.Answered {
			t.Errorf("got %v of class %v, want answered", err, got)
		}
	})
}

// TestClassifyRefusedConnections: nobody listens.
func TestClassifyRefusedConnections(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	url := "postgres://test@" + address + "/test?sslmode=disable"
	pgxConfig, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	pqConnector, err := pq.NewConnector(url)
	if err != nil {
		t.Fatal(err)
	}
	mysqlConnector, err := mysql.NewConnector(&mysql.Config{Net: "tcp", Addr: address})
	if err != nil {
		t.Fatal(err)
	}
	for name, db := range map[string]*sql.DB{"pgx": stdlib.OpenDB(*pgxConfig), "pq": sql.OpenDB(pqConnector), "mysql": sql.OpenDB(mysqlConnector)} {
		err := db.PingContext(t.Context())
		if got := resiliencesql.Classify(err); got != resiliencesql.NotRun {
			t.Errorf("%s: got %v of class %v, want not run", name, err, got)
		}
		db.Close()
	}
}

// TestTxCommitsOrRollsBack: what fn did is there if it returned nil, and otherwise is not.
func TestTxCommitsOrRollsBack(t *testing.T) {
	each(t, func(t *testing.T, s *server) {
		db := prepared(t, s)
		errOwn := errors.New("the program's own")
		for _, test := range []struct {
			err   error
			panic bool
			rows  int
		}{{nil, false, 2}, {errOwn, false, 2}, {nil, true, 2}} {
			func() {
				defer func() {
					if value := recover(); (value != nil) != test.panic {
						t.Errorf("recovered %v, want a panic: %v", value, test.panic)
					}
				}()
				_, err := resiliencesql.Tx(t.Context(), db, resilience.Pipeline{}, resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
					_, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO item VALUES (%d)", 1+count(t, db)))
					if test.panic {
						panic("fn")
					}
					return 0, errors.Join(err, test.err)
				})
				if !errors.Is(err, test.err) || err != nil && test.err == nil {
					t.Errorf("got %v, want %v", err, test.err)
				}
			}()
			if n := count(t, db); n != test.rows {
				t.Errorf("got %d rows, want %d", n, test.rows)
			}
		}
		if stats := db.Stats(); stats.InUse != 0 || stats.Idle == 0 {
			t.Errorf("got %d connections in use and %d idle, want 0 and at least 1", stats.InUse, stats.Idle)
		}
	})
}

// TestTxKilledConnectionsCostNoAttempts: all idle connections are lost, as after a restart.
func TestTxKilledConnectionsCostNoAttempts(t *testing.T) {
	each(t, func(t *testing.T, s *server) {
		db := prepared(t, s)
		db.SetMaxIdleConns(4)
		var conns []*sql.Conn
		for range 4 {
			conn, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		id := "SELECT pg_backend_pid()"
		kill := "SELECT pg_terminate_backend(%d)"
		if s.name == "mysql" {
			id, kill = "SELECT connection_id()", "KILL %d"
		}
		other := s.open(t, "")
		defer other.Close()
		for _, conn := range conns {
			var pid int
			if err := conn.QueryRowContext(t.Context(), id).Scan(&pid); err != nil {
				t.Fatal(err)
			}
			execAll(t, other, fmt.Sprintf(kill, pid))
			conn.Close()
		}
		_, err := resiliencesql.Tx(t.Context(), db, resilience.Pipeline{}, resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
			_, err := tx.ExecContext(ctx, "INSERT INTO item VALUES (2)")
			return 0, err
		})
		if err != nil || count(t, db) != 2 {
			t.Errorf("got %v, %d rows, want nil, 2", err, count(t, db))
		}
	}, "pgx", "pq", "mysql")
}

// TestTxRepeatsSwallowedErrors: PostgreSQL answers COMMIT with ROLLBACK.
func TestTxRepeatsSwallowedErrors(t *testing.T) {
	each(t, func(t *testing.T, s *server) {
		db := prepared(t, s)
		attempts := 0
		_, err := resiliencesql.Tx(t.Context(), db, retries(&attempts), resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
			if retry.Attempt(ctx) == 1 {
				tx.ExecContext(ctx, "INSERT INTO item VALUES (1)") // fails, since there is one
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO item VALUES (2)")
			if retry.Attempt(ctx) == 1 {
				err = nil
			}
			return 0, err
		})
		if err != nil || attempts != 1 || count(t, db) != 2 {
			t.Errorf("got %v after %d retries, %d rows, want nil, 1, 2", err, attempts, count(t, db))
		}
	}, "pgx", "pq")
}

// TestTxCanceledStatementIsNotMade: the context ends while a statement runs.
func TestTxCanceledStatementIsNotMade(t *testing.T) {
	each(t, func(t *testing.T, s *server) {
		sleep := map[string]string{
			"pgx": "SELECT pg_sleep(60)", "pq": "SELECT pg_sleep(60)", "mysql": "SELECT sleep(60)",
			"sqlite": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
		}[s.name]
		db := prepared(t, s)
		_, err := resiliencesql.Tx(t.Context(), db, timeout.After(200*time.Millisecond), resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
			if _, err := tx.ExecContext(ctx, "INSERT INTO item VALUES (2)"); err != nil {
				return 0, err
			}
			_, err := tx.ExecContext(ctx, sleep)
			return 0, err
		})
		var ambiguous *resiliencesql.AmbiguousError
		if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ambiguous) || count(t, db) != 1 {
			t.Errorf("got %v, %d rows, want the context's error, 1", err, count(t, db))
		}
	})
}

// TestTxRollsBackAfterBusyCommit: SQLite leaves a transaction open whose COMMIT was busy.
func TestTxRollsBackAfterBusyCommit(t *testing.T) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "test.db")+"?_pragma=journal_mode(delete)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	execAll(t, db, "CREATE TABLE item (id INT PRIMARY KEY); INSERT INTO item VALUES (1); INSERT INTO item VALUES (2)")
	reader, err := db.QueryContext(t.Context(), "SELECT id FROM item") // holds a lock that COMMIT needs
	if err != nil || !reader.Next() {
		t.Fatal(err, reader.Err())
	}
	attempts := 0
	policy := retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.Constant(time.Millisecond), OnRetry: func(_ context.Context, e retry.Event) {
		attempts = e.Attempt
		if e.Attempt == 2 {
			reader.Close()
		}
	}})
	_, err = resiliencesql.Tx(t.Context(), db, policy, resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (int, error) {
		_, err := tx.ExecContext(ctx, "INSERT INTO item VALUES (3)")
		return 0, err
	})
	if err != nil || attempts != 2 || count(t, db) != 3 {
		t.Errorf("got %v after %d retries, %d rows, want nil, 2, 3", err, attempts, count(t, db))
	}
}

// TestDoInsertsOnce: a statement is run on one connection, once.
func TestDoInsertsOnce(t *testing.T) {
	each(t, func(t *testing.T, s *server) {
		db := prepared(t, s)
		insert := func(ctx context.Context, conn resiliencesql.DBTX) (int64, error) {
			result, err := conn.ExecContext(ctx, "INSERT INTO item VALUES (2)")
			if err != nil {
				return 0, err
			}
			return result.RowsAffected()
		}
		attempts := 0
		n, err := resiliencesql.Do(t.Context(), db, retries(&attempts), resiliencesql.Config{}, insert)
		if n != 1 || err != nil {
			t.Errorf("got %v, %v, want 1", n, err)
		}
		n, err = resiliencesql.Do(t.Context(), db, retries(&attempts), resiliencesql.Config{}, insert)
		if n != 0 || resiliencesql.Classify(err) != resiliencesql.Answered || attempts != 0 {
			t.Errorf("got %v, %v after %d retries, want a violated constraint after 0", n, err, attempts)
		}
	})
}
