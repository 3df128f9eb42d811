package observe_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
)

func Example() {
	obs := observe.New(observe.Config{})
	users := obs.Pipeline("users", retry.New(retry.Config{Backoff: retry.Constant(0)}))

	calls := 0
	getUser := resilience.Compose(func(context.Context) (string, error) {
		if calls++; calls < 3 {
			return "", errors.New("connection lost")
		}
		return "Ada", nil
	}, users)

	name, err := getUser(context.Background())
	fmt.Println(name, err)
	for _, p := range obs.Snapshot().Pipelines {
		fmt.Println(p.Name, p.Calls[observe.Success].Count, p.Attempts, p.Layers[0].Events[observe.Retry])
	}
	// Output:
	// Ada <nil>
	// users 1 3 2
}

func ExampleLog() {
	handler := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})
	obs := observe.New(observe.Config{Listeners: []observe.Listener{observe.Log(slog.New(handler))}})
	closed := resilience.PolicyFunc(func(context.Context, resilience.Next) error {
		return errors.New("closed on Sundays")
	})
	getUser := resilience.Compose(func(context.Context) (string, error) { return "Ada", nil }, obs.Pipeline("users", closed))

	_, _ = getUser(context.Background())
	// Output:
	// level=WARN msg="policy refused call" resilience.pipeline=users resilience.layer=1 resilience.policy=resilience.PolicyFunc resilience.event=refusal resilience.count=1 resilience.error="closed on Sundays"
}
