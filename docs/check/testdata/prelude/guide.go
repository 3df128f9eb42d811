package prelude

import (
	"context"
	"net/http"

	"github.com/effector-go/resilience"
)

func users() resilience.Pipeline { return nil }

func fetch(ctx context.Context) (*http.Response, error) { return nil, ctx.Err() }
