// Command sql moves money between two accounts in SQLite through resiliencesql, and prints what
// happens, attempt by attempt. It takes less than a second.
//
//	go run ./examples/sql
//
// The transfer and its policies are in bank.go. The driver in lossy.go is SQLite's, and loses the
// answer to COMMIT on request, as a broken connection would.
package main

import (
	"context"
	"fmt"
	"io"

	"github.com/effector-go/resilience/examples/internal/program"
)

func main() { program.Main("sql", run) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if err := program.NewFlags("sql").Parse(args, stderr); err != nil {
		return err
	}
	b, err := openBank(ctx, stdout)
	if err != nil {
		return err
	}
	defer b.close()
	for i, scene := range []struct {
		title   string
		prepare func() error
		verify  bool
		amount  int
	}{
		{"A transfer is a transaction.", nil, false, 10},
		{"While another connection holds the lock, the transfer is rolled back and repeated.", func() error { return b.lock(ctx) }, false, 10},
		{"A transfer that the bank refuses is rolled back and not repeated.", nil, false, 1000},
		{"The answer to COMMIT is lost: nobody knows whether it took effect, so nothing is repeated.", b.loseCommit, false, 10},
		{"The same, but Verify finds out that it took effect.", b.loseCommit, true, 10},
	} {
		fmt.Fprintf(stdout, "\n%d. %s\n", i+1, scene.title)
		if scene.prepare != nil {
			if err := scene.prepare(); err != nil {
				return err
			}
		}
		balance, err := b.transfer(ctx, fmt.Sprint("transfer ", i+1), scene.amount, scene.verify)
		if err != nil {
			fmt.Fprintf(stdout, "   the caller gets the error: %v\n", err)
		} else {
			fmt.Fprintf(stdout, "   the caller gets the balance: %d\n", balance)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return b.print(ctx)
}
