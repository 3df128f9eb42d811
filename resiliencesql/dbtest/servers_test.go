// Package dbtest tests resiliencesql with real drivers: SQLite everywhere, and PostgreSQL and MariaDB
// where the environment names a server, as .ci/services does. It is a module of its own, so that users
// of resiliencesql don't get the drivers among their requirements.
package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
)

// A server is a database and a driver for it.
type server struct {
	name string
	open func(t *testing.T, address string) *sql.DB // through the address, or directly if it is empty
	addr string                                     // where the server listens; empty for SQLite

	restartName string // for .ci/services
	param       func(n int) string
	serial      string // FOR UPDATE, where reads don't lock by themselves

	// state returns, in a transaction, what tookEffect needs.
	state      func(ctx context.Context, tx *sql.Tx) (string, error)
	tookEffect func(ctx context.Context, direct *sql.DB, state, key string) (bool, error)
}

func question(int) string { return "?" }
func dollar(n int) string { return fmt.Sprint("$", n) }

// servers returns SQLite and the servers of the environment. It skips nothing: each test of a server
// that doesn't run skips itself, by need.
func servers(t *testing.T) []*server {
	t.Helper()
	return []*server{sqliteServer(t), postgres("pgx"), postgres("pq"), mariadb()}
}

// need skips the test if the server doesn't run.
func (s *server) need(t *testing.T) {
	t.Helper()
	if s.open == nil {
		t.Skipf("no server for %s: set POSTGRES_DSN and MYSQL_DSN, for example with eval \"$(.ci/services)\"", s.name)
	}
}

func postgres(driver string) *server {
	s := &server{name: driver, restartName: "postgres", param: dollar}
	dsn := os.Getenv("POSTGRES_DSN")
	if dsn == "" {
		return s
	}
	u, err := url.Parse(dsn)
	if err != nil {
		panic(err)
	}
	s.addr = u.Host
	s.open = func(t *testing.T, address string) *sql.DB {
		to := *u
		if address != "" {
			to.Host = address
		}
		if driver == "pgx" {
			config, err := pgx.ParseConfig(to.String())
			if err != nil {
				t.Fatal(err)
			}
			return stdlib.OpenDB(*config)
		}
		connector, err := pq.NewConnector(to.String())
		if err != nil {
			t.Fatal(err)
		}
		return sql.OpenDB(connector)
	}
	s.state = func(ctx context.Context, tx *sql.Tx) (xid string, err error) {
		err = tx.QueryRowContext(ctx, "SELECT pg_current_xact_id()::text").Scan(&xid)
		return xid, err
	}
	s.tookEffect = func(ctx context.Context, direct *sql.DB, xid, _ string) (bool, error) {
		for {
			var status sql.NullString
			if err := direct.QueryRowContext(ctx, "SELECT pg_xact_status($1::text::xid8)", xid).Scan(&status); err != nil {
				return false, err
			}
			switch status.String {
			case "committed", "aborted":
				return status.String == "committed", nil
			case "in progress": // the server may still be committing, or hasn't noticed that the client is gone
				select {
				case <-time.After(5 * time.Millisecond):
				case <-ctx.Done():
					return false, ctx.Err()
				}
			default:
				return false, fmt.Errorf("transaction %s: status %q", xid, status.String)
			}
		}
	}
	return s
}

func mariadb() *server {
	s := &server{name: "mysql", restartName: "mariadb", param: question, serial: " FOR UPDATE"}
	dsn := os.Getenv("MYSQL_DSN")
	if dsn == "" {
		return s
	}
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		panic(err)
	}
	s.addr = config.Addr
	s.open = func(t *testing.T, address string) *sql.DB {
		to := config.Clone()
		if address != "" {
			to.Addr = address
		}
		to.ReadTimeout = 5 * time.Second // COMMIT takes no context
		to.Logger = &mysql.NopLogger{}
		connector, err := mysql.NewConnector(to)
		if err != nil {
			t.Fatal(err)
		}
		return sql.OpenDB(connector)
	}
	s.state = func(context.Context, *sql.Tx) (string, error) { return "", nil }
	// The locking read waits until the transaction that wrote the row has ended.
	s.tookEffect = func(ctx context.Context, direct *sql.DB, _, key string) (bool, error) {
		var n int
		err := direct.QueryRowContext(ctx, "SELECT count(*) FROM transfer WHERE attempt = ? FOR UPDATE", key).Scan(&n)
		return n > 0, err
	}
	return s
}

// sqliteServer returns a database in a file of the test's.
func sqliteServer(t *testing.T) *server {
	file := filepath.Join(t.TempDir(), "test.db")
	dsn := "file:" + file + "?_pragma=journal_mode(wal)&_pragma=synchronous(off)&_txlock=immediate&_pragma=busy_timeout(10)"
	return &server{
		name: "sqlite", param: question,
		open: func(t *testing.T, address string) *sql.DB {
			db, err := sql.Open("sqlite", dsn)
			if err != nil {
				t.Fatal(err)
			}
			if address == "" {
				return db
			}
			defer db.Close()
			return sql.OpenDB(&lossy{dsn: dsn, base: db.Driver(), cuts: cutsOf(address)})
		},
		state: func(context.Context, *sql.Tx) (string, error) { return "", nil },
		tookEffect: func(ctx context.Context, direct *sql.DB, _, key string) (bool, error) {
			var n int
			err := direct.QueryRowContext(ctx, "SELECT count(*) FROM transfer WHERE attempt = ?", key).Scan(&n)
			return n > 0, err
		},
	}
}

// restart restarts the server, if .ci/services started it.
func (s *server) restart(t *testing.T) {
	folder := os.Getenv("SERVICES")
	if folder == "" || s.restartName == "" {
		return
	}
	script, err := filepath.Abs("../../.ci/services")
	if err != nil {
		t.Error(err)
		return
	}
	if out, err := exec.CommandContext(t.Context(), "bash", script, "restart", folder, s.restartName).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// exec runs statements, which are separated by semicolons.
func execAll(t *testing.T, db *sql.DB, statements string) {
	t.Helper()
	for statement := range strings.SplitSeq(statements, ";") {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}
