package prelude

import (
	"context"
	"net/http"

	"github.com/effector-go/resilience/breaker"
)

var shards = make([]*breaker.Breaker, 4)

func fetch(ctx context.Context) (*http.Response, error) { return nil, ctx.Err() }
