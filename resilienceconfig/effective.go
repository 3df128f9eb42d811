package resilienceconfig

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/budget"
)

// A setting is a field with its value as a file contains it.
type setting struct {
	key, value string
	isText     bool // the value is not yet written as YAML
}

// complete fills in the defaults and the settings.
func (s *spec) complete() {
	full := reflect.ValueOf(s.kind.complete(s.config.Interface()))
	for i := range s.kind.fields {
		f := &s.kind.fields[i]
		value := full.Field(f.index)
		set := setting{key: f.key}
		switch f.form {
		case textForm:
			set.value, set.isText = value.String(), true
		case wholeForm:
			set.value = strconv.FormatInt(value.Int(), 10)
			if word, special := s.kind.unlimited(f); word != "" && value.Int() == int64(special) {
				set.value = word
			}
		case numberForm:
			set.value = strconv.FormatFloat(value.Float(), 'f', -1, 64)
		case truthForm:
			set.value = strconv.FormatBool(value.Bool())
		case durationForm:
			set.value = durationText(time.Duration(value.Int()))
		case algorithmForm:
			set.value = adaptive.Algorithm(value.Int()).String()
		case scheduleForm:
			set.value, set.isText = s.funcs[f.key], true
			if set.value == "" {
				set.value, set.isText = s.schedule, false
			}
			if set.value == "" {
				set.value = defaultSchedule
			}
		case budgetForm:
			set.value, set.isText = s.budget, true
		case functionForm:
			set.value, set.isText = s.funcs[f.key], true
		}
		if set.value != "" {
			s.settings = append(s.settings, set)
		}
	}
}

// configWith returns the Config with the budget.
func (s *spec) configWith(b *budget.Budget) any {
	if b == nil {
		return s.config.Interface()
	}
	config := reflect.New(s.kind.config).Elem()
	config.Set(s.config)
	config.FieldByName("Budget").Set(reflect.ValueOf(b))
	return config.Interface()
}

// equal reports whether two specs of a kind have the same settings and the same functions.
func (s *spec) equal(other *spec) bool {
	if len(s.settings) != len(other.settings) {
		return false
	}
	for i := range s.settings {
		if s.settings[i] != other.settings[i] {
			return false
		}
	}
	for key := range s.funcs {
		index := s.kind.field(key).index
		if closure(s.config.Field(index)) != closure(other.config.Field(index)) {
			return false
		}
	}
	return true
}

// closure returns what distinguishes a function from others: its code with what it has captured. A
// function value is a pointer to both; reflect returns only the pointer to the code.
func closure(fn reflect.Value) unsafe.Pointer {
	return *(*unsafe.Pointer)(fn.Addr().UnsafePointer())
}

// render returns the file with every default.
func (f *File) render() []byte {
	b := new(bytes.Buffer)
	fields := func(s *spec, indent string) {
		for _, set := range s.settings {
			if b.Len() > maxSize { // complete reports it
				return
			}
			value := set.value
			if set.isText {
				value = f.yaml(value)
			}
			fmt.Fprintf(b, "%s%s: %s\n", indent, set.key, value)
		}
	}
	if len(f.budgets) > 0 {
		b.WriteString("budgets:\n")
		for _, n := range f.budgets {
			fmt.Fprintf(b, "  %s:\n", yamlKey(n.name))
			fields(n.spec, "    ")
		}
	}
	if len(f.policies) > 0 {
		b.WriteString("policies:\n")
		for _, n := range f.policies {
			fmt.Fprintf(b, "  %s:\n    %s:\n", yamlKey(n.name), n.spec.kind.name)
			fields(n.spec, "      ")
		}
	}
	b.WriteString("pipelines:\n")
	for _, p := range f.pipelines {
		fmt.Fprintf(b, "  %s:", yamlKey(p.name))
		if len(p.items) == 0 {
			b.WriteString(" []")
		}
		b.WriteByte('\n')
		for _, i := range p.items {
			if b.Len() > maxSize {
				break
			}
			switch {
			case i.spec != nil:
				fmt.Fprintf(b, "    - %s:\n", i.spec.kind.name)
				fields(i.spec, "        ")
			case i.use != "":
				fmt.Fprintf(b, "    - use: %s\n", f.yaml(i.use))
			default:
				fmt.Fprintf(b, "    - %s\n", atMostOnce)
			}
		}
	}
	return b.Bytes()
}

// yaml returns text as a value that is read back as it is.
func (f *File) yaml(text string) string {
	if f.options.Env != nil {
		text = strings.ReplaceAll(text, "$", "$$")
	}
	return yamlKey(text)
}

var plainPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// yamlKey returns text without quotes if it can't be taken for anything else. The escapes of Go are
// also those of YAML.
func yamlKey(text string) string {
	switch strings.ToLower(text) {
	case "null", "true", "false", "yes", "no", "on", "off", "y", "n":
		return strconv.Quote(text)
	}
	if plainPattern.MatchString(text) {
		return text
	}
	return strconv.Quote(text)
}
