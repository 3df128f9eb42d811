package resilienceconfig

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/shed"
	"github.com/effector-go/resilience/throttle"
	"github.com/effector-go/resilience/timeout"
)

// A kind is what a file can configure: a kind of policy, or a budget. Its functions take and return
// a Config and a policy of its package.
type kind struct {
	name     string
	config   reflect.Type
	fields   []field // in the order of Config
	validate func(config any) error
	create   func(config any) (policy any)
	set      func(policy, config any) error
	complete func(config any) any // fills in the defaults
}

// A field is a field of a Config.
type field struct {
	key   string // in a file
	name  string // in Go
	index int    // in the struct
	form  form
}

// A form is how the value of a field is written.
type form int

const (
	textForm form = iota
	wholeForm
	numberForm
	truthForm
	durationForm
	algorithmForm
	scheduleForm
	budgetForm
	functionForm
)

// kinds are the kinds of policies, in the whole order of docs/composition.md. Timeout is at the place
// of an attempt's timeout.
var kinds = []*kind{
	kindOf("retry", retry.New, nil),
	kindOf("hedge", hedge.New, nil),
	kindOf("breaker", breaker.New, completeBreaker),
	kindOf("shed", shed.New, nil),
	kindOf("bulkhead", bulkhead.New, nil),
	kindOf("ratelimit", ratelimit.New, nil),
	kindOf("adaptive", adaptive.New, nil),
	kindOf("throttle", throttle.New, nil),
	kindOf("timeout", timeout.New, nil),
}

var budgetKind = kindOf("budget", budget.New, nil)

// kindNamed returns the kind of policy with the name, or nil.
func kindNamed(name string) *kind {
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	return nil
}

// kindOf returns the kind of a package. By default, complete creates a policy and returns its Config.
func kindOf[C interface{ Validate() error }, P interface {
	Config() C
	SetConfig(C) error
}](name string, create func(C) P, complete func(C) C) *kind {
	if complete == nil {
		complete = func(c C) C { return create(c).Config() }
	}
	k := &kind{
		name:     name,
		config:   reflect.TypeFor[C](),
		validate: func(config any) error { return config.(C).Validate() },
		create:   func(config any) any { return create(config.(C)) },
		set:      func(policy, config any) error { return policy.(P).SetConfig(config.(C)) },
		complete: func(config any) any { return complete(config.(C)) },
	}
	for i := range k.config.NumField() {
		f := k.config.Field(i)
		k.fields = append(k.fields, field{key: keyOf(f.Name), name: f.Name, index: i, form: formOf(k, f)})
	}
	return k
}

// change calls SetConfig with a Config that is valid.
func (k *kind) change(policy, config any) {
	if err := k.set(policy, config); err != nil {
		panic(err.Error())
	}
}

// completeBreaker fills in the defaults without the memory of the last calls.
func completeBreaker(c breaker.Config) breaker.Config {
	small := c
	small.Failures, small.LastCalls = min(c.Failures, 1), min(c.LastCalls, 1)
	full := breaker.New(small).Config()
	full.Failures, full.LastCalls = c.Failures, c.LastCalls
	return full
}

// keyOf returns the key of a field in a file: its name with a lowercase first letter, or in
// lowercase if it is an abbreviation.
func keyOf(name string) string {
	if strings.ToUpper(name) == name {
		return strings.ToLower(name)
	}
	return strings.ToLower(name[:1]) + name[1:]
}

var scheduleType = reflect.TypeOf(retry.Constant(0))

// formOf returns the form of a field. It panics for a type that no file can contain, so that every test
// fails if a Config gets one.
func formOf(k *kind, f reflect.StructField) form {
	switch f.Type {
	case reflect.TypeFor[string]():
		return textForm
	case reflect.TypeFor[int]():
		return wholeForm
	case reflect.TypeFor[float64]():
		return numberForm
	case reflect.TypeFor[bool]():
		return truthForm
	case reflect.TypeFor[time.Duration]():
		return durationForm
	case reflect.TypeFor[adaptive.Algorithm]():
		return algorithmForm
	case scheduleType:
		return scheduleForm
	case reflect.TypeFor[*budget.Budget]():
		return budgetForm
	}
	if f.Type.Kind() != reflect.Func {
		panic(fmt.Sprintf("resilienceconfig: %s.Config.%s is a %v, which no file can contain", k.name, f.Name, f.Type))
	}
	return functionForm
}

// keys returns the keys of all fields.
func (k *kind) keys() []string {
	keys := make([]string, len(k.fields))
	for i, f := range k.fields {
		keys[i] = f.key
	}
	return keys
}

// field returns the field with the key, or nil.
func (k *kind) field(key string) *field {
	for i := range k.fields {
		if k.fields[i].key == key {
			return &k.fields[i]
		}
	}
	return nil
}

// fieldNamed returns the field with the name in Go, or nil.
func (k *kind) fieldNamed(name string) *field {
	for i := range k.fields {
		if k.fields[i].name == name {
			return &k.fields[i]
		}
	}
	return nil
}

// unlimited is the text that a whole number may have instead of a value.
func (k *kind) unlimited(f *field) (text string, value int) {
	if k.name == "retry" && f.name == "MaxAttempts" {
		return "unlimited", retry.Unlimited
	}
	return "", 0
}

// A schedule of package retry, with its parameters.
type scheduleKind struct {
	name   string
	params []string
	create func(params []time.Duration) any
}

var schedules = []scheduleKind{
	{"constant", []string{"delay"}, func(p []time.Duration) any { return retry.Constant(p[0]) }},
	{"linear", []string{"step", "max"}, func(p []time.Duration) any { return retry.Linear(p[0], p[1]) }},
	{"exponential", []string{"initial", "max"}, func(p []time.Duration) any { return retry.Exponential(p[0], p[1]) }},
	{"fullJitter", []string{"initial", "max"}, func(p []time.Duration) any { return retry.FullJitter(p[0], p[1]) }},
	{"equalJitter", []string{"initial", "max"}, func(p []time.Duration) any { return retry.EqualJitter(p[0], p[1]) }},
	{"decorrelated", []string{"initial", "max"}, func(p []time.Duration) any { return retry.Decorrelated(p[0], p[1]) }},
	{"fibonacci", []string{"initial", "max"}, func(p []time.Duration) any { return retry.Fibonacci(p[0], p[1]) }},
}

var scheduleNames = func() (names []string) {
	for _, sk := range schedules {
		names = append(names, sk.name)
	}
	return names
}()

// defaultSchedule is the one that retry uses if none is set.
var defaultSchedule = scheduleText("fullJitter", []string{"initial", "max"}, []time.Duration{100 * time.Millisecond, 10 * time.Second})

// scheduleText returns a schedule as a flow mapping.
func scheduleText(name string, params []string, values []time.Duration) string {
	parts := make([]string, len(params))
	for i, p := range params {
		parts[i] = p + ": " + durationText(values[i])
	}
	return "{" + name + ": {" + strings.Join(parts, ", ") + "}}"
}
