// Package describe makes what the policies' Report methods have in common.
package describe

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/effector-go/resilience"
)

// Calls returns a gauge that counts calls.
func Calls(name string, n int) resilience.Value {
	return resilience.Value{Name: name, Unit: "{call}", Value: float64(n)}
}

// Config returns the fields of a Config for [resilience.Report]. The fields of an embedded Config
// are among them.
func Config(config any) map[string]string {
	fields := make(map[string]string)
	addFields(fields, reflect.ValueOf(config))
	return fields
}

func addFields(fields map[string]string, config reflect.Value) {
	for i := range config.NumField() {
		field, v := config.Type().Field(i), config.Field(i)
		switch {
		case field.Anonymous:
			addFields(fields, v)
		case field.Name != "Name" && v.Kind() != reflect.Func && v.Kind() != reflect.Pointer:
			fields[field.Name] = text(v)
		}
	}
}

// text formats a value as fmt does, except for lists of structs, which have their fields' names, and
// for interfaces, in which only errors and strings are shown. What else an interface holds belongs to
// the user, who may be changing it.
func text(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Slice:
		elements := make([]string, v.Len())
		for i := range elements {
			elements[i] = text(v.Index(i))
		}
		return "[" + strings.Join(elements, " ") + "]"
	case reflect.Struct:
		var fields []string
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				fields = append(fields, v.Type().Field(i).Name+": "+text(v.Field(i)))
			}
		}
		return "{" + strings.Join(fields, ", ") + "}"
	case reflect.Interface:
		switch element := v.Interface().(type) {
		case error, string:
		default:
			return fmt.Sprintf("%T", element)
		}
	}
	return fmt.Sprint(v.Interface())
}
