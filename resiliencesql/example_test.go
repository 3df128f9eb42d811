package resiliencesql_test

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencesql"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

func ExampleTx() {
	// A database that answers the first COMMIT with a serialization failure.
	db := sql.OpenDB(&database{on: on("COMMIT", serialization)})
	defer db.Close()

	transfers := resilience.Pipeline{
		timeout.After(3 * time.Second),
		retry.New(retry.Config{Name: "transfers", MaxAttempts: 5, Backoff: retry.FullJitter(10*time.Millisecond, time.Second)}),
		breaker.New(breaker.Config{Name: "db1"}),
	}
	config := resiliencesql.Config{Options: &sql.TxOptions{Isolation: sql.LevelSerializable}}
	n, err := resiliencesql.Tx(context.Background(), db, transfers, config, func(ctx context.Context, tx *sql.Tx) (int64, error) {
		fmt.Println("attempt", retry.Attempt(ctx))
		result, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance - 10 WHERE id = 1")
		if err != nil {
			return 0, err
		}
		return result.RowsAffected()
	})
	fmt.Println(n, err)
	// Output:
	// attempt 1
	// attempt 2
	// 1 <nil>
}

func ExampleDo() {
	db := sql.OpenDB(&database{on: on("SELECT count(*) FROM account", tooMany)}) // too many clients, once
	defer db.Close()
	reads := retry.New(retry.Config{Name: "reads", Backoff: retry.Constant(time.Millisecond)})
	n, err := resiliencesql.Do(context.Background(), db, reads, resiliencesql.Config{Repeatable: true}, func(ctx context.Context, conn resiliencesql.DBTX) (n int, err error) {
		err = conn.QueryRowContext(ctx, "SELECT count(*) FROM account").Scan(&n)
		return n, err
	})
	fmt.Println(n, err)
	// Output: 1 <nil>
}

func ExampleConnector() {
	base := &database{on: on("CONNECT", diskFull)} // a connector of your driver
	dialing := resilience.Pipeline{breaker.New(breaker.Config{Name: "db1 dial", Consecutive: 1}), timeout.After(2 * time.Second)}
	db := sql.OpenDB(resiliencesql.Connector(base, dialing))
	defer db.Close()
	fmt.Println(db.Ping())
	fmt.Println(db.Ping())
	// Output:
	// state 53100
	// breaker db1 dial: open, retry in 5s
}
