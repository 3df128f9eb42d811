// Package prelude declares what the code on the pages takes for granted.
package prelude

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
)

type (
	User    struct{ ID, Name string }
	Order   struct{ ID string }
	Invoice struct{ ID string }
	Conn    struct{}
)

// Service is a dependency's client.
type Service struct{}

func (Service) User(ctx context.Context, id string) (User, error)   { return User{ID: id}, ctx.Err() }
func (Service) Order(ctx context.Context, id string) (Order, error) { return Order{ID: id}, ctx.Err() }

var (
	ctx         = context.Background()
	client      Service
	id          = "42"
	order       Order
	invoice     Invoice
	ErrNotFound = errors.New("not found")
	payments    = breaker.New(breaker.Config{Name: "payments"})
	retries     = retry.New(retry.Config{})
	guarded     resilience.Pipeline
	response    *http.Response
	handler     http.Handler
	began       = time.Now()
	err         error
	alice       = User{ID: "1", Name: "Alice"}
)

func fetchUser(ctx context.Context) (User, error)       { return User{ID: "42", Name: "Alice"}, ctx.Err() }
func fetchOrder(ctx context.Context) (Order, error)     { return Order{}, ctx.Err() }
func createInvoice(ctx context.Context) error           { return ctx.Err() }
func subscribe(ctx context.Context) error               { return ctx.Err() }
func dial(ctx context.Context) (Conn, error)            { return Conn{}, ctx.Err() }
func send(ctx context.Context, _ Conn, _ Invoice) error { return ctx.Err() }

// results takes what a fragment returns.
func results(...any) {}
