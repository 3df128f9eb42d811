package check

import (
	"bytes"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"

	// The packages that code on the pages imports, except those of the standard library.
	_ "github.com/avast/retry-go/v4"
	_ "github.com/cenkalti/backoff/v4"
	_ "github.com/cep21/circuit/v4/closers/hystrix"
	_ "github.com/eapache/go-resiliency/breaker"
	_ "github.com/failsafe-go/failsafe-go/circuitbreaker"
	_ "github.com/sony/gobreaker/v2"

	_ "github.com/effector-go/resilience"
	_ "github.com/effector-go/resilience/resilienceconfig"
)

// Packages that code on the pages uses without an import.
import (
	_ "github.com/effector-go/resilience/resilienceotel"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
)

// TestPagesUseRequiredLibraries fails if this module requires a library that no page imports any more.
func TestPagesUseRequiredLibraries(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "imports_test.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range file.Imports {
		onPage := false
		for _, p := range pages(t) {
			onPage = onPage || bytes.Contains(p.source, []byte(spec.Path.Value))
		}
		used := slices.Contains(slices.Collect(maps.Values(others)), strings.Trim(spec.Path.Value, `"`))
		if spec.Name != nil && !onPage && !used {
			t.Errorf("no page imports %s", spec.Path.Value)
		}
	}
}
