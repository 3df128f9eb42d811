package main

import (
	"reflect"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/ratelimit"
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

// stubs returns functions in place of those that a file names: the program that uses the file has
// them, this one doesn't. They do what happens without them, as far as that is known: errors are
// classified by the default, and everything is tried again that may be. The file may be invalid.
func stubs(data []byte) map[string]any {
	if !simple(data) {
		return nil // Parse says why
	}
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

// parseYAML calls the parser, which panics for some texts.
func parseYAML(data []byte) (f *ast.File, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errNotYAML
		}
	}()
	return parser.ParseBytes(data, 0)
}

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
				if text, ok := field.Value.(*ast.StringNode); ok {
					if stub := stub(keyOf(e), keyOf(field), config); stub != nil && found[text.Value] == nil {
						found[text.Value] = stub
					}
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
	for i := range config.NumField() {
		f := config.Field(i)
		if f.Type.Kind() != reflect.Func || key == "" || f.Name != string(key[0]-'a'+'A')+key[1:] {
			continue
		}
		switch kind + "." + key {
		case "breaker.classify":
			return breaker.DefaultClassify
		case "shed.classify":
			return shed.DefaultClassify
		case "adaptive.classify":
			return adaptive.DefaultClassify
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
	return nil
}
