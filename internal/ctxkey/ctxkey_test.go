package ctxkey

import (
	"context"
	"testing"
)

type plain struct{ context.Context }

// TestContextsAnswerTheKey: only contexts that can be cancelled do, with themselves, through contexts that hand the question on.
func TestContextsAnswerTheKey(t *testing.T) {
	if Cancel == nil {
		t.Fatal("package context asks for no key")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if found := (plain{ctx}).Value(Cancel); found != ctx {
		t.Errorf("%v, want %v", found, ctx)
	}
	if found := context.WithoutCancel(ctx).Value(Cancel); found != nil {
		t.Errorf("a context without cancel answers %v", found)
	}
}
