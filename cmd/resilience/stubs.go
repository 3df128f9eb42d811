package main

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resilienceconfig"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/shed"
	"github.com/effector-go/resilience/throttle"
	"github.com/effector-go/resilience/timeout"
)

// configs are the configurations of the kinds of policies.
var configs = map[string]reflect.Type{
	"adaptive":  reflect.TypeFor[adaptive.Config](),
	"breaker":   reflect.TypeFor[breaker.Config](),
	"bulkhead":  reflect.TypeFor[bulkhead.Config](),
	"hedge":     reflect.TypeFor[hedge.Config](),
	"ratelimit": reflect.TypeFor[ratelimit.Config](),
	"retry":     reflect.TypeFor[retry.Config](),
	"shed":      reflect.TypeFor[shed.Config](),
	"throttle":  reflect.TypeFor[throttle.Config](),
	"timeout":   reflect.TypeFor[timeout.Config](),
}

// parsePipelines parses a file with pipelines. Functions that it names are replaced by stubs.
func parsePipelines(data []byte) (*resilienceconfig.File, error) {
	o := resilienceconfig.Options{Env: os.LookupEnv}
	file, err := resilienceconfig.Parse(data, o)
	var errs resilienceconfig.Errors
	if !errors.As(err, &errs) {
		return file, err
	}
	isRead := func(e *resilienceconfig.Error) bool { return e.Path != "" }
	if !slices.ContainsFunc(errs, isRead) { // so it may be too much for the YAML parser
		return nil, err
	}
	o.Funcs = stubs(data)
	return resilienceconfig.Parse(data, o)
}

// stubs returns functions in place of those that a file names: the program that uses the file has
// them, this one doesn't. They do what happens without them, as far as that is known: errors are
// classified by the default, and everything is tried again that may be. The file may be invalid.
func stubs(data []byte) map[string]any {
	f, err := parseYAML(data)
	if err != nil {
		return nil
	}
	found := map[string]any{}
	for _, d := range f.Docs {
		look(d.Body, found, 0)
	}
	return found
}

var errNotYAML = errors.New("not YAML")

// parseYAML calls the parser, which panics for some texts.
func parseYAML(data []byte) (f *ast.File, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errNotYAML
		}
	}()
	return parser.ParseBytes(data, 0)
}

// look adds stubs for the functions that are named below n.
func look(n ast.Node, found map[string]any, depth int) {
	if depth > 50 {
		return
	}
	if list, ok := n.(*ast.SequenceNode); ok {
		for _, item := range list.Values {
			look(item, found, depth+1)
		}
	}
	for _, e := range entries(n) {
		config, isKind := configs[keyOf(e)]
		if isKind {
			for _, field := range entries(e.Value) {
				text, ok := field.Value.(*ast.StringNode)
				if !ok || found[text.Value] != nil {
					continue
				}
				if f := stub(keyOf(e), keyOf(field), config); f != nil {
					found[text.Value] = f
				}
			}
		}
		look(e.Value, found, depth+1)
	}
}

// stub returns the function for a field, or nil if it holds none.
func stub(kind, key string, config reflect.Type) any {
	if key == "backoff" {
		return func() backoff.BackOff { return retry.FullJitter(100*time.Millisecond, 10*time.Second)() }
	}
	switch kind + "." + key {
	case "breaker.classify":
		return breaker.DefaultClassify
	case "shed.classify":
		return shed.DefaultClassify
	case "adaptive.classify":
		return adaptive.DefaultClassify
	}
	isField := func(name string) bool { return key != "" && name == string(key[0]-'a'+'A')+key[1:] }
	f, ok := config.FieldByNameFunc(isField)
	if !ok || f.Type.Kind() != reflect.Func {
		return nil
	}
	return reflect.MakeFunc(f.Type, func([]reflect.Value) []reflect.Value {
		var results []reflect.Value
		for i := range f.Type.NumOut() {
			v := reflect.New(f.Type.Out(i)).Elem()
			switch v.Kind() {
			case reflect.Bool: // try again
				v.SetBool(true)
			case reflect.Int: // a cost
				v.SetInt(1)
			}
			results = append(results, v)
		}
		return results
	}).Interface()
}
