package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencesql"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"

	_ "modernc.org/sqlite"
)

const (
	accounts  = 16
	initial   = 1000
	workers   = 6
	transfers = 40 // of each worker
)

// A bank runs transfers through connections that break.
type bank struct {
	*server
	direct, lossy *sql.DB
	policy        resilience.Policy
	verify        bool

	mu      sync.Mutex
	results map[string]error // of calls, by key
	answers map[string]bool  // of Verify, by the key of the attempt
}

// transfer moves an amount between two accounts. Each attempt writes a row with its own key, so that
// what happened, and how often, is known at the end.
func (b *bank) transfer(ctx context.Context, key string, from, to, amount int) {
	var mu sync.Mutex // of the attempt's key and state
	var attempt, state string
	config := resiliencesql.Config{Options: &sql.TxOptions{Isolation: sql.LevelSerializable}}
	if b.verify {
		config.Verify = func(ctx context.Context) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			// The attempt's context may end within a second; the answer can take longer.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
			defer cancel()
			took, err := retried(ctx, func() (bool, error) { return b.tookEffect(ctx, b.direct, state, attempt) })
			if err == nil {
				b.mu.Lock()
				b.answers[attempt] = took
				b.mu.Unlock()
			}
			return took, err
		}
	}
	_, err := resiliencesql.Tx(ctx, b.lossy, b.policy, config, func(ctx context.Context, tx *sql.Tx) (struct{}, error) {
		none := struct{}{}
		mu.Lock()
		defer mu.Unlock()
		attempt = fmt.Sprint(key, "/", retry.Attempt(ctx))
		var err error
		if state, err = b.state(ctx, tx); err != nil {
			return none, err
		}
		var balance [2]int
		for i, id := range []int{from, to} {
			query := "SELECT balance FROM account WHERE id = " + b.param(1) + b.serial
			if err := tx.QueryRowContext(ctx, query, id).Scan(&balance[i]); err != nil {
				return none, err
			}
		}
		for i, change := range []int{-amount, amount} {
			update := fmt.Sprintf("UPDATE account SET balance = %s WHERE id = %s", b.param(1), b.param(2))
			if _, err := tx.ExecContext(ctx, update, balance[i]+change, []int{from, to}[i]); err != nil {
				return none, err
			}
		}
		insert := fmt.Sprintf("INSERT INTO transfer (call_key, attempt) VALUES (%s, %s)", b.param(1), b.param(2))
		_, err = tx.ExecContext(ctx, insert, key, attempt)
		return none, err
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results[key] = err
}

// retried asks until there is an answer: the server may be restarting.
func retried(ctx context.Context, ask func() (bool, error)) (bool, error) {
	for {
		took, err := ask()
		if err == nil || ctx.Err() != nil {
			return took, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// TestTxTransfersKeepTheirInvariants: through broken connections and restarts, the sum of balances
// stays; a reported commit happened once; an error other than AmbiguousError means that nothing
// happened; nothing happened twice; and Verify answers the truth.
func TestTxTransfersKeepTheirInvariants(t *testing.T) {
	for _, s := range servers(t) {
		for _, verify := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s verify=%v", s.name, verify), func(t *testing.T) {
				s.need(t)
				testTransfers(t, s, verify)
			})
		}
	}
}

func testTransfers(t *testing.T, s *server, verify bool) {
	direct := s.open(t, "")
	defer direct.Close()
	execAll(t, direct, "DROP TABLE IF EXISTS account; DROP TABLE IF EXISTS transfer;"+
		"CREATE TABLE account (id INT PRIMARY KEY, balance INT NOT NULL);"+
		"CREATE TABLE transfer (call_key VARCHAR(40) NOT NULL, attempt VARCHAR(40) NOT NULL);"+
		"CREATE INDEX transfer_attempt ON transfer (attempt)")
	for id := range accounts {
		execAll(t, direct, fmt.Sprintf("INSERT INTO account VALUES (%d, %d)", id, initial))
	}

	c := &cuts{random: rand.New(rand.NewPCG(1, 2))}
	address := t.Name()
	if s.addr != "" {
		p := newProxy(t, s.addr, c)
		defer p.Close()
		address = p.Addr().String()
	} else {
		inProcess.Store(address, c)
	}
	lossy := s.open(t, address)
	defer lossy.Close() // before the proxy, which waits for its clients
	lossy.SetMaxOpenConns(workers)
	lossy.SetMaxIdleConns(workers)

	b := &bank{
		server: s, direct: direct, lossy: lossy, verify: verify,
		policy: resilience.Pipeline{timeout.After(time.Minute), retry.New(retry.Config{
			MaxAttempts: 200, Backoff: retry.FullJitter(time.Millisecond, 50*time.Millisecond),
		})},
		results: map[string]error{}, answers: map[string]bool{},
	}
	group, ctx := errgroup.WithContext(t.Context())
	half := make(chan struct{})
	var once sync.Once
	for worker := range workers {
		group.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(worker), 3))
			for i := range transfers {
				if i == transfers/2 {
					once.Do(func() { close(half) })
				}
				from := random.IntN(accounts)
				to := (from + 1 + random.IntN(accounts-1)) % accounts
				b.transfer(ctx, fmt.Sprint(worker, "-", i), from, to, 1+random.IntN(9))
			}
			return nil
		})
	}
	group.Go(func() error {
		<-half
		s.restart(t)
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	b.check(t)
	t.Logf("cuts: %d before, %d during, %d after COMMIT, %d between statements; Verify answered %d times",
		c.before.Load(), c.during.Load(), c.after.Load(), c.between.Load(), len(b.answers))
	if c.before.Load() == 0 || c.during.Load() == 0 || c.after.Load() == 0 || c.between.Load() == 0 {
		t.Error("some cuts did not happen")
	}
	if n := lossy.Stats().InUse; n != 0 {
		t.Errorf("%d connections are in use, want 0", n)
	}
}

func (b *bank) check(t *testing.T) {
	// Transactions whose clients are gone may still hold locks; they end soon.
	var sum int
	if err := b.direct.QueryRowContext(t.Context(), "SELECT sum(balance) FROM account").Scan(&sum); err != nil || sum != accounts*initial {
		t.Errorf("the sum is %d, %v, want %d", sum, err, accounts*initial)
	}
	rows, err := b.direct.QueryContext(t.Context(), "SELECT call_key, attempt FROM transfer"+b.serial)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	happened, attempts := map[string]int{}, map[string]bool{}
	for rows.Next() {
		var key, attempt string
		if err := rows.Scan(&key, &attempt); err != nil {
			t.Fatal(err)
		}
		happened[key]++
		attempts[attempt] = true
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for key, err := range b.results {
		n := happened[key]
		var ambiguous *resiliencesql.AmbiguousError
		switch {
		case n > 1:
			t.Errorf("%s happened %d times", key, n)
		case err == nil:
			counts["succeeded"]++
			if n != 1 {
				t.Errorf("%s succeeded, but happened %d times", key, n)
			}
		case errors.As(err, &ambiguous):
			counts["ambiguous"]++
			if b.verify {
				t.Errorf("%s: %v, although Verify was set", key, err)
			}
		default:
			counts["failed"]++
			t.Logf("%s: %v", key, err)
			if n != 0 {
				t.Errorf("%s failed with %v, but happened", key, err)
			}
		}
	}
	if len(b.results) != workers*transfers {
		t.Errorf("got %d results, want %d", len(b.results), workers*transfers)
	}
	for attempt, took := range b.answers {
		if attempts[attempt] != took {
			t.Errorf("Verify said %v about %s, but the truth is %v", took, attempt, attempts[attempt])
		}
	}
	t.Log(counts)
	if counts["succeeded"] < workers*transfers/2 {
		t.Errorf("only %d transfers succeeded", counts["succeeded"])
	}
}
