package timeout

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// TestLimitCtxWaitsForPublication: neither Done nor the end of the call uses another inner context
// than the one that is being written.
func TestLimitCtxWaitsForPublication(t *testing.T) {
	for name, meet := range map[string]func(c *limitCtx){
		"Done": func(c *limitCtx) { c.Done() },
		"end":  func(c *limitCtx) { c.end() },
	} {
		t.Run(name, func(t *testing.T) {
			c := &limitCtx{root: context.Background(), deadline: uint64(clock.Now()) + uint64(time.Hour)}
			inner, cancel := context.WithCancel(context.Background())
			c.state.Store(publishing)
			met := make(chan struct{})
			go func() {
				defer close(met)
				meet(c)
			}()
			for range 100 {
				runtime.Gosched()
			}
			c.inner, c.cancel = inner, cancel
			c.state.Store(armed)
			<-met
			if c.Done() != inner.Done() {
				t.Error("another inner context is in use")
			}
			if ended := inner.Err() != nil; ended != (name == "end") {
				t.Errorf("ended: %t", ended)
			}
			cancel()
		})
	}
}
