package resilienceotel

import (
	"sync"

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
	byKey sync.Map // of setKey to []metric.RecordOption; sets are only added

	mu    sync.Mutex // held while a set is added
	count int        // of sets
}

const maxSets = 10_000

type setKey struct {
	pipeline  string
	result    observe.Result
	errorType string
}

// options returns the attributes of a call.
func (s *sets) options(call *observe.Call) []metric.RecordOption {
	key := setKey{pipeline: call.Pipeline, result: call.Result}
	if key.result != observe.Success {
		key.errorType = errorType(call.Result, call.Err)
	}
	if options, ok := s.byKey.Load(key); ok {
		return options.([]metric.RecordOption)
	}
	return s.add(key)
}

// add returns the attributes for a key that was not found, or, if there are too many sets, those of the
// pipeline "other".
func (s *sets) add(key setKey) []metric.RecordOption {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count >= maxSets {
		key.pipeline = "other"
		if key.errorType != "" {
			key.errorType = otherError
		}
	}
	if options, ok := s.byKey.Load(key); ok { // "other", or another call has added it meanwhile
		return options.([]metric.RecordOption)
	}
	attributes := []attribute.KeyValue{text(pipelineKey, key.pipeline), resultKey.String(key.result.String())}
	if key.errorType != "" {
		attributes = append(attributes, text(errorKey, key.errorType))
	}
	options := []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attributes...))}
	s.byKey.Store(key, options)
	s.count++
	return options
}

// otherError is the error.type that OpenTelemetry's conventions define for errors without a type.
const otherError = "_OTHER"

// errorType returns the attribute error.type of a call or attempt that was not a success.
func errorType(result observe.Result, err error) string {
	if err == nil {
		if result == observe.Panicked {
			return "panic"
		}
		return otherError
	}
	return errtype.Of(err)
}
