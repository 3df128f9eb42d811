package outcome

import (
	"context"
	"errors"
	"testing"
	"time"
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
	} {
		if got := Of(c.ctx, c.err); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if OfUnwind(live) != Failure || OfUnwind(late) != Failure || OfUnwind(gone) != Ignored {
		t.Errorf("got %v, %v, %v for a panic, want a failure unless the caller canceled", OfUnwind(live), OfUnwind(late), OfUnwind(gone))
	}
}
