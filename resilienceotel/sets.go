package resilienceotel

import (
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/effector-go/resilience/internal/errtype"
	"github.com/effector-go/resilience/observe"
)

// sets caches the attributes of calls, because building a set costs more than everything else that
// is done for a call. A program has few of them: a name for each pipeline, six results, and its
// types of errors. Beyond maxSets, calls are recorded as those of the pipeline "other", so that
// names that never repeat take neither the memory of the program nor that of the metrics' reader.
type sets struct {
	byKey sync.Map // of setKey to []metric.RecordOption
	count atomic.Int64
}

const maxSets = 10_000

type setKey struct {
	pipeline  string
	result    observe.Result
	errorType string
}

func (s *sets) options(call *observe.Call) []metric.RecordOption {
	key := setKey{pipeline: call.Pipeline, result: call.Result}
	if key.result != observe.Success {
		key.errorType = errorType(call.Result, call.Err)
	}
	if options, ok := s.byKey.Load(key); ok {
		return options.([]metric.RecordOption)
	}
	if s.count.Add(1) > maxSets {
		s.count.Add(-1)
		key.pipeline = "other"
		if key.errorType != "" {
			key.errorType = "_OTHER" // of OpenTelemetry's conventions
		}
		if options, ok := s.byKey.Load(key); ok {
			return options.([]metric.RecordOption)
		}
	}
	attributes := []attribute.KeyValue{text(pipelineKey, key.pipeline), resultKey.String(key.result.String())}
	if key.errorType != "" {
		attributes = append(attributes, text(errorKey, key.errorType))
	}
	options, loaded := s.byKey.LoadOrStore(key, []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attributes...))})
	if loaded {
		s.count.Add(-1)
	}
	return options.([]metric.RecordOption)
}

// errorType returns the attribute error.type of a call or attempt that was not a success.
func errorType(result observe.Result, err error) string {
	if err == nil {
		if result == observe.Panicked {
			return "panic"
		}
		return "_OTHER"
	}
	return errtype.Of(err)
}
