package prelude

import (
	"os"
	"testing"

	"github.com/effector-go/resilience"
)

var (
	t    *testing.T
	file *os.File
)

func newUsersPipeline() resilience.Policy { return resilience.Pipeline{} }
func newNaivePipeline() resilience.Policy { return resilience.Pipeline{} }
