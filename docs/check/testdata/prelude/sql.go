package prelude

import (
	"context"
	"database/sql"

	"github.com/effector-go/resilience"
)

var (
	db        *sql.DB
	transfers resilience.Policy
	reads     resilience.Policy
)

// Queries is what sqlc generates.
type Queries struct{}

func NewQueries(any) *Queries                                         { return &Queries{} }
func (*Queries) GetUser(ctx context.Context, id string) (User, error) { return User{}, ctx.Err() }
func insertOrder(ctx context.Context, tx *sql.Tx) (Order, error)      { return Order{}, ctx.Err() }
func mail(ctx context.Context, order Order) error                     { return ctx.Err() }
