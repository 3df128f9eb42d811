package prelude

import (
	"context"
	"net/http"

	"github.com/effector-go/resilience/breaker"
)

type stream struct{}

func (stream) readToItsEnd(ctx context.Context) error { return ctx.Err() }

var shards = make([]*breaker.Breaker, 4)

func fetch(ctx context.Context) (*http.Response, error) { return nil, ctx.Err() }
func openStream(ctx context.Context) (stream, error)    { return stream{}, ctx.Err() }
func readStreamToItsEnd(ctx context.Context) error      { return ctx.Err() }
