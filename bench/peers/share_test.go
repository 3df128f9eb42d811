package peers

import (
	"context"
	"testing"

	"golang.org/x/sync/singleflight"

	"github.com/effector-go/resilience/share"
)

// sharing returns the ways to make one call for concurrent callers. With singleflight's Do callers
// wait even if their context ends; with DoChan they can leave.
func sharing(fn effector) []side {
	const key = 1
	ours := share.Calls(fn)
	keyed := share.NewGroup(share.Config{}, func(ctx context.Context, _ int) (int, error) { return fn(ctx) })
	var waiting, leaving singleflight.Group
	call := func() (any, error) { return fn(ctx) }
	return []side{
		{"ours", func() error { _, err := ours(ctx); return err }},
		{"ours-group", func() error { _, err := keyed.Do(ctx, key); return err }},
		{"singleflight", func() error { _, err, _ := waiting.Do("1", call); return err }},
		{"singleflight-chan", func() error {
			select {
			case result := <-leaving.DoChan("1", call):
				return result.Err
			case <-ctx.Done():
				return ctx.Err()
			}
		}},
	}
}

// BenchmarkShare is a call that concurrent callers share. With one caller, each call is a run.
func BenchmarkShare(b *testing.B) { run(b, sharing(succeed)) }
