package prelude

import (
	"context"
	"net/http"
	"time"

	"github.com/effector-go/resilience/timeout"
)

var (
	limit = timeout.After(time.Second)
	url   = "https://example.com"
)

func get(ctx context.Context) (*http.Response, error) { return nil, ctx.Err() }
