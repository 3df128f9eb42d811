package sim

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/effector-go/resilience"
)

// nilPolicy returns what is wrong if a policy, or one in a list, is nil.
func nilPolicy(p resilience.Policy) string {
	if list, ok := p.(resilience.Pipeline); ok {
		for i, p := range list {
			if problem := nilPolicy(p); problem != "" {
				return fmt.Sprintf("policy %d: %s", i, problem)
			}
		}
		return ""
	}
	v := reflect.ValueOf(p)
	if k := v.Kind(); k == reflect.Invalid || (k == reflect.Pointer || k == reflect.Func) && v.IsNil() {
		return fmt.Sprintf("the policy is nil (%T), must be a Policy", p)
	}
	return ""
}

// A finding is what a policy consists of.
type finding struct {
	parts     []any // pointers to policies and budgets
	notifiers []resilience.Notifier
}

// inspect finds the policies and budgets that a policy refers to, through fields, lists, and maps,
// exported or not. It doesn't see what a function refers to. It looks at a bounded number of values.
func inspect(p resilience.Policy) finding {
	i := inspector{seen: map[visit]bool{}}
	i.value(reflect.ValueOf(p), 0)
	return i.finding
}

type inspector struct {
	finding
	seen   map[visit]bool
	values int
}

type visit struct {
	typ     reflect.Type
	address uintptr
}

const (
	maxValues = 20_000
	maxDepth  = 100
)

func (i *inspector) value(v reflect.Value, depth int) {
	i.values++
	if i.values > maxValues || depth > maxDepth {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		// A pointer to nothing has the same address as others.
		if typ := v.Type().Elem(); !v.IsNil() && typ.Size() > 0 {
			i.pointer(reflect.NewAt(typ, v.UnsafePointer()), depth)
		}
	case reflect.Interface:
		i.value(v.Elem(), depth+1)
	case reflect.Struct:
		typ := v.Type()
		switch typ.PkgPath() {
		case "sync/atomic":
			i.atomic(v, depth)
			return
		case "context", "reflect", "runtime", "sync", "testing", "time", "weak":
			return
		}
		for n := range v.NumField() {
			if canRefer(typ.Field(n).Type) {
				i.value(v.Field(n), depth+1)
			}
		}
	case reflect.Slice, reflect.Array:
		if canRefer(v.Type().Elem()) {
			for n := range v.Len() {
				i.value(v.Index(n), depth+1)
			}
		}
	case reflect.Map:
		if canRefer(v.Type().Key()) || canRefer(v.Type().Elem()) {
			for entries := v.MapRange(); entries.Next(); {
				i.value(entries.Key(), depth+1)
				i.value(entries.Value(), depth+1)
			}
		}
	}
}

// pointer inspects a pointer that isn't nil.
func (i *inspector) pointer(p reflect.Value, depth int) {
	at := visit{p.Type(), p.Pointer()}
	if i.seen[at] {
		return
	}
	i.seen[at] = true
	part := p.Interface()
	_, isPolicy := part.(resilience.Policy)
	_, isReporter := part.(resilience.Reporter)
	if isPolicy || isReporter {
		i.parts = append(i.parts, part)
	}
	if notifier, ok := part.(resilience.Notifier); ok {
		i.notifiers = append(i.notifiers, notifier)
	}
	i.value(p.Elem(), depth+1)
}

// atomic inspects what an atomic.Pointer or atomic.Value holds.
func (i *inspector) atomic(v reflect.Value, depth int) {
	typ := v.Type()
	held := v.FieldByName("v")
	switch {
	case !held.IsValid():
	case held.Kind() == reflect.Interface: // Value
		i.value(held, depth+1)
	case held.Kind() == reflect.UnsafePointer && strings.HasPrefix(typ.Name(), "Pointer["):
		// Its first field has the type [0]*T.
		if first := typ.Field(0).Type; first.Kind() == reflect.Array && first.Elem().Kind() == reflect.Pointer && !held.IsNil() {
			if elem := first.Elem().Elem(); elem.Size() > 0 {
				i.pointer(reflect.NewAt(elem, held.UnsafePointer()), depth)
			}
		}
	}
}

// canRefer reports whether a value of the type can lead to a policy.
func canRefer(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Struct, reflect.Slice, reflect.Map:
		return true
	case reflect.Array:
		return canRefer(t.Elem())
	}
	return false
}
