package outcome

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/effector-go/resilience"
)

func TestOutcomeIsIgnoredIfCallerCanceled(t *testing.T) {
	live := t.Context()
	gone, cancel := context.WithCancel(live)
	cancel()
	late, cancel := context.WithDeadline(live, time.Unix(0, 0))
	defer cancel()
	boom := errors.New("boom")
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want Outcome
	}{
		{"an answer", live, nil, Success},
		{"an answer after the caller canceled", gone, nil, Success},
		{"an error", live, boom, Failure},
		{"an error after the caller canceled", gone, boom, Ignored},
		{"an error after the deadline", late, boom, Failure},
		{"an effector's own cancellation", live, context.Canceled, Failure},
		{"not a failure", live, resilience.NotFailure(boom), Success},
		{"not a failure, after the caller canceled", gone, resilience.NotFailure(boom), Success},
		{"contention", live, resilience.NotMade(resilience.Contention(boom)), Success},
		{"contention, after the caller canceled", gone, resilience.Contention(boom), Success},
		{"the caller's fault", live, resilience.CallerFault(boom), Ignored},
		{"a wrapped mark", live, fmt.Errorf("get: %w", resilience.NotFailure(boom)), Failure},
		{"a call without effect", live, resilience.NotMade(boom), Failure},
	} {
		if got := Of(c.ctx, c.err); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if OfUnwind(live) != Failure || OfUnwind(late) != Failure || OfUnwind(gone) != Ignored {
		t.Errorf("got %v, %v, %v for a panic, want a failure unless the caller canceled", OfUnwind(live), OfUnwind(late), OfUnwind(gone))
	}
}
