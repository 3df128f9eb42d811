package ctxkey

import (
	"context"
	"testing"
)

type plain struct{ context.Context }

// TestCancelKeyIsAnsweredByCancelableContexts checks that only contexts that can be canceled
// answer, with themselves, also through contexts that wrap them.
func TestCancelKeyIsAnsweredByCancelableContexts(t *testing.T) {
	if Cancel == nil {
		t.Fatal("package context has no key")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if found := (plain{ctx}).Value(Cancel); found != ctx {
		t.Errorf("got %v, want %v", found, ctx)
	}
	if found := context.WithoutCancel(ctx).Value(Cancel); found != nil {
		t.Errorf("got %v from a context without cancel, want nil", found)
	}
}

func TestCancelIsKeyThatCauseAsksFor(t *testing.T) {
	var probe keyProbe
	if context.Cause(&probe); probe.key != Cancel {
		t.Errorf("got %v, want %v", Cancel, probe.key)
	}
}

// limited is a context with a limit.
type limited struct{ context.Context }

func (l limited) Unlimited(Friend) context.Context { return l.Context }

// TestUnlimitedRemovesLimitsDownToBase checks that limits inside a context of another kind are
// kept, and so are the base and what it wraps.
func TestUnlimitedRemovesLimitsDownToBase(t *testing.T) {
	root := context.Background()
	base := limited{limited{root}}
	within := limited{plain{limited{root}}}
	for _, test := range []struct {
		name            string
		ctx, base, want context.Context
		wantLimited     bool
	}{
		{"no limit", root, nil, root, false},
		{"all", limited{base}, nil, root, true},
		{"down to the base", limited{limited{base}}, base, base, true},
		{"the base itself", base, base, base, false},
		{"down to another kind", within, nil, plain{limited{root}}, true},
	} {
		if left, limited := Unlimited(test.ctx, test.base); left != test.want || limited != test.wantLimited {
			t.Errorf("%s: got %v, %v, want %v, %v", test.name, left, limited, test.want, test.wantLimited)
		}
	}
}
