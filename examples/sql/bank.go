package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencesql"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A bank has two accounts in a database, and a log of transfers.
type bank struct {
	db     *sql.DB
	driver *lossyDriver
	policy resilience.Policy
	folder string
	out    io.Writer

	blocker *sql.Conn // holds the database's lock until the second retry
}

func openBank(ctx context.Context, out io.Writer) (*bank, error) {
	folder, err := os.MkdirTemp("", "bank")
	if err != nil {
		return nil, err
	}
	b := &bank{folder: folder, out: out}
	b.driver, err = newLossyDriver("file:" + filepath.Join(folder, "bank.db") + "?_txlock=immediate")
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	b.db = sql.OpenDB(b.driver)
	b.policy = resilience.Pipeline{
		timeout.After(3 * time.Second), // the whole call
		retry.New(retry.Config{MaxAttempts: 5, Backoff: retry.Constant(time.Millisecond), OnRetry: b.onRetry}),
		breaker.New(breaker.Config{Name: "bank"}),
	}
	for _, statement := range []string{
		"CREATE TABLE account (id INT PRIMARY KEY, balance INT NOT NULL)",
		"CREATE TABLE transfer (key TEXT PRIMARY KEY)",
		"INSERT INTO account VALUES (1, 100), (2, 100)",
	} {
		if _, err := b.db.ExecContext(ctx, statement); err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	return b, nil
}

func (b *bank) close() error {
	var err error
	if b.db != nil {
		err = b.db.Close()
	}
	return errors.Join(err, os.RemoveAll(b.folder))
}

var errTooLittle = errors.New("not enough money")

// transfer moves the amount from account 1 to account 2 and returns what is left. It writes the key,
// so that Verify can find out whether it took effect.
func (b *bank) transfer(ctx context.Context, key string, amount int, verify bool) (int, error) {
	config := resiliencesql.Config{}
	if verify {
		config.Verify = func(ctx context.Context) (tookEffect bool, err error) {
			err = b.db.QueryRowContext(ctx, "SELECT count(*) FROM transfer WHERE key = ?", key).Scan(&tookEffect)
			fmt.Fprintf(b.out, "      verify: %v\n", tookEffect)
			return tookEffect, err
		}
	}
	return resiliencesql.Tx(ctx, b.db, b.policy, config, func(ctx context.Context, tx *sql.Tx) (balance int, err error) {
		fmt.Fprintf(b.out, "      attempt %d\n", retry.Attempt(ctx))
		for id, change := range map[int]int{1: -amount, 2: amount} {
			if _, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + ? WHERE id = ?", change, id); err != nil {
				return 0, err
			}
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO transfer VALUES (?)", key); err != nil {
			return 0, err
		}
		if err := tx.QueryRowContext(ctx, "SELECT balance FROM account WHERE id = 1").Scan(&balance); err != nil {
			return 0, err
		}
		if balance < 0 {
			return 0, errTooLittle // the transaction is rolled back
		}
		return balance, nil
	})
}

// lock takes the database's lock on another connection.
func (b *bank) lock(ctx context.Context) error {
	conn, err := b.db.Conn(ctx)
	if err != nil {
		return err
	}
	b.blocker = conn
	_, err = conn.ExecContext(ctx, "BEGIN IMMEDIATE")
	return err
}

// onRetry prints the retry. Before the third attempt, it frees the lock.
func (b *bank) onRetry(ctx context.Context, e retry.Event) {
	fmt.Fprintf(b.out, "      retry: %v\n", e.Err)
	if e.Attempt == 2 && b.blocker != nil {
		_, err := b.blocker.ExecContext(ctx, "ROLLBACK")
		if err = errors.Join(err, b.blocker.Close()); err != nil {
			fmt.Fprintf(b.out, "      freeing the lock: %v\n", err)
		}
		b.blocker = nil
	}
}

func (b *bank) loseCommit() error {
	b.driver.lose.Store(true)
	return nil
}

// print prints what the database contains.
func (b *bank) print(ctx context.Context) error {
	var first, second, transfers int
	err := b.db.QueryRowContext(ctx, "SELECT (SELECT balance FROM account WHERE id = 1), (SELECT balance FROM account WHERE id = 2), count(*) FROM transfer").
		Scan(&first, &second, &transfers)
	fmt.Fprintf(b.out, "\n%d transfers took effect; the balances are %d and %d.\n", transfers, first, second)
	return err
}
