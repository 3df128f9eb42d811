package prelude

import (
	"context"
	"testing"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/timeout"
)

var (
	t          *testing.T
	abandoning *timeout.Timeout
)

func getUserPolicies() resilience.Pipeline      { return nil }
func getUser(ctx context.Context) (User, error) { return User{}, ctx.Err() }
