package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencesql"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// memory returns a database in memory, with one connection and one account.
func memory(tb testing.TB) *sql.DB {
	tb.Helper()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	for _, statement := range []string{"CREATE TABLE account (id INT PRIMARY KEY, balance INT)", "INSERT INTO account VALUES (1, 0)"} {
		if _, err := db.ExecContext(context.Background(), statement); err != nil {
			tb.Fatal(err)
		}
	}
	return db
}

const deposit = "UPDATE account SET balance = balance + 1 WHERE id = 1"

func manualTx(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, deposit); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func withTx(ctx context.Context, db *sql.DB, policy resilience.Policy) error {
	_, err := resiliencesql.Tx(ctx, db, policy, resiliencesql.Config{}, func(ctx context.Context, tx *sql.Tx) (struct{}, error) {
		_, err := tx.ExecContext(ctx, deposit)
		return struct{}{}, err
	})
	return err
}

func manualStatement(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, deposit)
	return err
}

func withDo(ctx context.Context, db *sql.DB, policy resilience.Policy) error {
	_, err := resiliencesql.Do(ctx, db, policy, resiliencesql.Config{}, func(ctx context.Context, conn resiliencesql.DBTX) (struct{}, error) {
		_, err := conn.ExecContext(ctx, deposit)
		return struct{}{}, err
	})
	return err
}

func pipelines() map[string]resilience.Policy {
	return map[string]resilience.Policy{
		"no policies": resilience.Pipeline{},
		"usual": resilience.Pipeline{
			timeout.After(time.Minute), retry.New(retry.Config{}), breaker.New(breaker.Config{}), timeout.After(10 * time.Second),
		},
	}
}

// TestTxAllocatesLittle: at most 30 allocations more than a transaction written manually, inside the
// same policies.
func TestTxAllocatesLittle(t *testing.T) {
	compare(t, 30, manualTx, withTx)
}

// TestDoAllocatesLittle: at most 15 allocations more than a statement.
func TestDoAllocatesLittle(t *testing.T) {
	compare(t, 15, manualStatement, withDo)
}

func compare(t *testing.T, limit float64, manual func(context.Context, *sql.DB) error, with func(context.Context, *sql.DB, resilience.Policy) error) {
	for name, policy := range pipelines() {
		for _, cancelable := range []bool{false, true} {
			ctx := context.Background()
			if cancelable {
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				defer cancel()
			}
			db := memory(t)
			base := testing.AllocsPerRun(500, func() {
				err := resilience.Run(ctx, policy, func(ctx context.Context) error { return manual(ctx, db) })
				if err != nil {
					t.Fatal(err)
				}
			})
			got := testing.AllocsPerRun(500, func() {
				if err := with(ctx, db, policy); err != nil {
					t.Fatal(err)
				}
			})
			if name == "no policies" { // then without this module altogether
				base = testing.AllocsPerRun(500, func() {
					if err := manual(ctx, db); err != nil {
						t.Fatal(err)
					}
				})
			}
			t.Logf("%s, cancelable %v: %v allocations, %v manually", name, cancelable, got, base)
			if got-base > limit {
				t.Errorf("%s: got %v allocations more than manually, want at most %v", name, got-base, limit)
			}
		}
	}
}

// BenchmarkTx alternates between both, so that they meet the same conditions.
func BenchmarkTx(b *testing.B) { interleave(b, manualTx, withTx) }

// BenchmarkDo alternates between both.
func BenchmarkDo(b *testing.B) { interleave(b, manualStatement, withDo) }

func interleave(b *testing.B, manual func(context.Context, *sql.DB) error, with func(context.Context, *sql.DB, resilience.Policy) error) {
	for name, policy := range pipelines() {
		b.Run(name, func(b *testing.B) {
			db, ctx := memory(b), b.Context()
			var took [2]time.Duration
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				if err := resilience.Run(ctx, policy, func(ctx context.Context) error { return manual(ctx, db) }); err != nil {
					b.Fatal(err)
				}
				between := time.Now()
				if err := with(ctx, db, policy); err != nil {
					b.Fatal(err)
				}
				took[0] += between.Sub(began)
				took[1] += time.Since(between)
			}
			b.ReportMetric(float64(took[0].Nanoseconds())/float64(b.N), "ns/manual")
			b.ReportMetric(float64(took[1].Nanoseconds())/float64(b.N), "ns/guarded")
		})
	}
}
