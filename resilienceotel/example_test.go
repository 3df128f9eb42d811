package resilienceotel_test

import (
	"context"
	"fmt"
	"io"
	"strings"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/resilienceotel"
	"github.com/effector-go/resilience/retry"
)

func Example() {
	recorder := tracetest.NewSpanRecorder()
	telemetry, err := resilienceotel.New(resilienceotel.Config{
		TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)),
		Spans:          resilienceotel.SpanAttempts,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	obs := observe.New(observe.Config{Listeners: []observe.Listener{telemetry.Listener()}})
	stop, err := telemetry.Observe(obs)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	users := obs.Pipeline("users", retry.New(retry.Config{Backoff: retry.Constant(0)}))
	resilience.Run(context.Background(), users, func(ctx context.Context) error {
		if retry.Attempt(ctx) == 1 {
			return io.ErrUnexpectedEOF
		}
		return nil
	})

	for _, span := range recorder.Ended() {
		fmt.Println(strings.TrimSpace(span.Name() + " " + span.Status().Description))
		for _, e := range span.Events() {
			fmt.Println("  event", e.Name)
		}
	}
	// Output:
	// users attempt unexpected EOF
	// users attempt
	// users
	//   event resilience.retry
}
