package ratelimit

import (
	"testing"

	"github.com/effector-go/resilience/proof/internal/cases"
)

func TestMain(m *testing.M) { cases.Main(m, 1000, 0) }
