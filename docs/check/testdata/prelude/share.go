package prelude

import (
	"context"
	"net/http"
)

func fetch(ctx context.Context) (*http.Response, error) { return nil, ctx.Err() }
