package resilienceconfig

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/effector-go/resilience/adaptive"
)

// value reads the value of a field into the spec. It reports whether it could.
func (r *reader) value(s *spec, f *field, n *node) (ok bool) {
	at := s.config.Field(f.index)
	switch f.form {
	case textForm:
		var text string
		text, ok = r.text(n, "text")
		at.SetString(text)
	case wholeForm:
		var value int
		value, ok = r.whole(s, f, n)
		at.SetInt(int64(value))
	case numberForm:
		var value float64
		value, ok = r.number(n)
		at.SetFloat(value)
	case truthForm:
		var value bool
		value, ok = r.truth(n)
		at.SetBool(value)
	case durationForm:
		var value time.Duration
		value, ok = r.duration(n)
		at.SetInt(int64(value))
	case algorithmForm:
		var value adaptive.Algorithm
		value, ok = r.algorithm(n)
		at.SetInt(int64(value))
	case scheduleForm:
		ok = r.schedule(s, f, n)
	case budgetForm:
		s.budget, ok = r.budget(n)
	case functionForm:
		var name string
		if name, ok = r.text(n, "the name of a function"); ok {
			ok = r.function(s, f, n, name)
		}
	}
	return ok
}

var algorithms = []adaptive.Algorithm{adaptive.Queue, adaptive.AIMD}

var algorithmNames = []string{adaptive.Queue.String(), adaptive.AIMD.String()}

func (r *reader) algorithm(n *node) (adaptive.Algorithm, bool) {
	const want = "queue or AIMD"
	text, ok := r.text(n, want)
	if !ok {
		return 0, false
	}
	if i := slices.Index(algorithmNames, text); i >= 0 {
		return algorithms[i], true
	}
	r.failUnknown(n, text, algorithmNames, "is %s, must be "+want, quote(text))
	return 0, false
}

func (r *reader) budget(n *node) (name string, ok bool) {
	const want = "the name of a budget"
	name, ok = r.text(n, want)
	if !ok {
		return "", false
	}
	if !r.budgetNames[name] && !r.missingBudgets {
		r.failUnknown(n, name, r.knownBudgets, "is %s, must be "+want, quote(name))
		return "", false
	}
	return name, true
}

// function looks up a function of Options.Funcs for the field.
func (r *reader) function(s *spec, f *field, n *node, name string) bool {
	value, known := r.options.Funcs[name]
	want := s.kind.config.Field(f.index).Type
	fn := reflect.ValueOf(value)
	switch {
	case !known:
		r.failUnknown(n, name, r.knownFuncs, "is %s, must be the name of a function in Options.Funcs", quote(name))
		return false
	case !fn.IsValid() || fn.Kind() == reflect.Func && fn.IsNil():
		r.fail(n, "names the function %s, which is nil in Options.Funcs", quote(name))
		return false
	case !fn.Type().AssignableTo(want):
		r.fail(n, "names the function %s of type %s, must be a %v", quote(name), oneLine(fn.Type().String()), want)
		return false
	}
	s.config.Field(f.index).Set(fn)
	if s.funcs == nil {
		s.funcs = map[string]string{}
	}
	s.funcs[f.key] = name
	return true
}

// schedule reads a schedule with its parameters, or the name of a function.
func (r *reader) schedule(s *spec, f *field, n *node) bool {
	switch {
	case n.shape == unreadable:
		return false
	case n.shape == scalar && !n.isNull():
		return r.scheduleFunction(s, f, n)
	case n.shape != mapping || len(n.children) == 0:
		r.fail(n, "is %s, must be a schedule such as {fullJitter: {initial: 100ms, max: 10s}}, "+
			"or the name of a function", n.what())
		return false
	}
	for _, extra := range n.children[1:] {
		r.failKey(extra, "is a second schedule, must be one")
	}
	chosen := n.children[0]
	i := slices.Index(scheduleNames, chosen.key)
	if i < 0 {
		r.failUnknownKey(chosen, scheduleNames, "is not a schedule")
		return false
	}
	return r.parameters(s, f, chosen, schedules[i]) && len(n.children) == 1
}

// scheduleFunction looks up a function that creates a schedule.
func (r *reader) scheduleFunction(s *spec, f *field, n *node) bool {
	if _, known := r.options.Funcs[n.text]; known {
		return r.function(s, f, n, n.text)
	}
	if i := slices.Index(scheduleNames, n.text); i >= 0 {
		r.fail(n, "is %s without its parameters, must be {%s: {%s: ...}}",
			n.text, n.text, strings.Join(schedules[i].params, ": ..., "))
		return false
	}
	r.failUnknown(n, n.text, slices.Concat(scheduleNames, r.knownFuncs),
		"is %s, must be a schedule or the name of a function in Options.Funcs", quote(n.text))
	return false
}

// parameters reads the parameters of a schedule and creates it.
func (r *reader) parameters(s *spec, f *field, n *node, sk scheduleKind) bool {
	if n.shape == unreadable {
		return false
	}
	if n.shape != mapping {
		r.fail(n, "is %s, must be {%s: ...}", n.what(), strings.Join(sk.params, ": ..., "))
		return false
	}
	values, nodes, ok := r.readParameters(n, sk)
	for i, param := range sk.params {
		if nodes[i] == nil {
			r.failMissing(n, param, "is missing, must be a time such as 400ms")
			ok = false
		}
	}
	if !ok {
		return false
	}
	factory, message := createSchedule(sk, values)
	if message != "" {
		param, rest, _ := strings.Cut(message, " ")
		r.fail(nodes[max(slices.Index(sk.params, param), 0)], "%s", rest)
		return false
	}
	s.config.Field(f.index).Set(reflect.ValueOf(factory))
	s.schedule = scheduleText(sk.name, sk.params, values)
	return true
}

// readParameters returns the values of a schedule's parameters, their nodes, and whether they could be
// read. The node of a parameter is nil if it is missing. It is that of an unknown one if that was meant.
func (r *reader) readParameters(n *node, sk scheduleKind) (values []time.Duration, nodes []*node, ok bool) {
	values, nodes = make([]time.Duration, len(sk.params)), make([]*node, len(sk.params))
	ok = true
	for _, child := range n.children {
		if i := slices.Index(sk.params, child.key); i >= 0 {
			value, read := r.duration(child)
			values[i], nodes[i] = value, child
			ok = ok && read
			continue
		}
		r.failUnknownKey(child, sk.params, "is not a parameter of "+sk.name)
		near, _ := nearest(child.key, sk.params)
		if i := slices.Index(sk.params, near); nodes[i] == nil {
			nodes[i] = child
		}
		ok = false
	}
	return values, nodes, ok
}

// createSchedule creates a schedule. The message is that of its panic, without "retry: FullJitter: ".
func createSchedule(sk scheduleKind, values []time.Duration) (factory any, message string) {
	defer func() {
		if p := recover(); p != nil {
			parts := strings.SplitN(fmt.Sprint(p), ": ", 3)
			message = parts[len(parts)-1]
		}
	}()
	return sk.create(values), ""
}

// text returns the text of a scalar, whatever it looks like.
func (r *reader) text(n *node, want string) (string, bool) {
	switch n.shape {
	case scalar:
		return n.text, true
	case unreadable:
		return "", false
	}
	r.fail(n, "is %s, must be %s", n.what(), want)
	return "", false
}

// plain returns the text of a scalar that is not in quotes. Quotes are accepted around a variable:
// inside {} and in JSON there is no other way to write one.
func (r *reader) plain(n *node, want string) (string, bool) {
	switch {
	case n.shape == unreadable:
		return "", false
	case n.isNull() || n.shape != scalar:
		r.fail(n, "is %s, must be %s", n.what(), want)
		return "", false
	case n.quoted && !n.variables:
		r.fail(n, "is %s in quotes, must be %s, without quotes", quote(n.text), want)
		return "", false
	}
	return n.text, true
}

var (
	wholePattern  = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*)$`)
	numberPattern = regexp.MustCompile(`^[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)$`)
)

func (r *reader) whole(s *spec, f *field, n *node) (int, bool) {
	want := "a whole number such as 3"
	if word, value := s.kind.unlimited(f); word != "" {
		if n.shape == scalar && n.text == word {
			return value, true
		}
		want += ", or " + word
	}
	text, ok := r.plain(n, want)
	if !ok {
		return 0, false
	}
	if !wholePattern.MatchString(text) {
		r.fail(n, "is %s, must be %s", shown(text), want)
		return 0, false
	}
	value, err := strconv.Atoi(text)
	if err != nil {
		r.fail(n, "is %s, must be %s, at most %d", shown(text), want, math.MaxInt)
		return 0, false
	}
	return value, true
}

func (r *reader) number(n *node) (float64, bool) {
	const want = "a decimal number such as 0.5"
	text, ok := r.plain(n, want)
	if !ok {
		return 0, false
	}
	if !numberPattern.MatchString(text) {
		hint := ""
		if share, found := strings.CutSuffix(text, "%"); found && numberPattern.MatchString(share) {
			if percent, err := strconv.ParseFloat(share, 64); err == nil && math.Abs(percent) < 1e6 {
				hint = ": " + strconv.FormatFloat(math.Round(percent*1e6)/1e8, 'f', -1, 64)
			}
		}
		r.fail(n, "is %s, must be %s%s", shown(text), want, hint)
		return 0, false
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		r.fail(n, "is %s, which is too large", shown(text))
		return 0, false
	}
	return value, true
}

func (r *reader) truth(n *node) (value, ok bool) {
	const want = "true or false"
	text, ok := r.plain(n, want)
	if !ok {
		return false, false
	}
	if text != "true" && text != "false" {
		r.fail(n, "is %s, must be %s", shown(text), want)
		return false, false
	}
	return text == "true", true
}

func (r *reader) duration(n *node) (time.Duration, bool) {
	const want = "a time such as 400ms or 1h30m"
	switch {
	case n.shape == unreadable:
		return 0, false
	case n.isNull() || n.shape != scalar:
		r.fail(n, "is %s, must be %s", n.what(), want)
		return 0, false
	}
	value, err := time.ParseDuration(n.text)
	switch {
	case err == nil:
		return value, true
	case numberPattern.MatchString(n.text):
		r.fail(n, "is %s without a unit, must be %s: write %ss or %sms", shown(n.text), want, clip(n.text), clip(n.text))
	case durationPattern.MatchString(n.text):
		r.fail(n, "is %s, which is too long: must be at most %v", shown(n.text), time.Duration(math.MaxInt64).Truncate(time.Hour))
	default:
		r.fail(n, "is %s, must be %s", shown(n.text), want)
	}
	return 0, false
}

// durationPattern matches what time.ParseDuration accepts, and times that are too long for it.
var durationPattern = regexp.MustCompile(durationRegexp)

const durationRegexp = `^[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`

// durationText returns d as short as [time.ParseDuration] accepts it.
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// shown returns a number as it is, and other text in quotes.
func shown(text string) string {
	if len(text) <= maxShown && numberPattern.MatchString(text) {
		return text
	}
	return quote(text)
}

// what returns what n is, for an error.
func (n *node) what() string {
	switch {
	case n.shape == missing:
		return "empty"
	case n.shape == list:
		return "a list"
	case n.shape == mapping:
		return "a mapping"
	}
	return shown(n.text)
}

// validate reports the errors that Validate finds. Values are the nodes of the fields that are set;
// failed are the fields whose errors are reported already.
func (r *reader) validate(s *spec, at *node, values map[string]*node, failed map[string]bool) {
	for _, message := range s.mistakes() {
		name, rest, _ := strings.Cut(message, " ")
		f := s.kind.fieldNamed(name)
		switch {
		case f == nil:
			r.failKey(at, "%s", message)
		case failed[f.name] || s.followsFrom(failed, name, message):
		case values[f.name] != nil:
			r.fail(values[f.name], "%s", rest)
		default:
			r.failMissing(at, f.key, rest)
		}
	}
}

// mistakes returns what Validate reports, without the name of the kind.
func (s *spec) mistakes() []string {
	config := reflect.New(s.kind.config).Elem()
	config.Set(s.config)
	config.FieldByName("Name").SetString("") // is in the texts
	var texts []string
	var split func(err error)
	split = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				split(e)
			}
			return
		}
		texts = append(texts, strings.TrimPrefix(err.Error(), s.kind.name+": "))
	}
	if err := s.kind.validate(config.Interface()); err != nil {
		split(err)
	}
	return texts
}

// followsFrom reports whether a mistake in the field with the name disappears with another value of
// the failed fields that its message names. It tries values of all sizes, and takes only those that
// cause no other mistake.
func (s *spec) followsFrom(failed map[string]bool, name, message string) bool {
	var others []*field
	for _, word := range wordPattern.FindAllString(message, -1) {
		if f := s.kind.fieldNamed(word); f != nil && failed[word] {
			others = append(others, f)
		}
	}
	trial := &spec{kind: s.kind, config: reflect.New(s.kind.config).Elem()}
	trial.config.Set(s.config)
	remaining := map[string]bool{}
	for _, m := range s.mistakes() {
		word, _, _ := strings.Cut(m, " ")
		remaining[word] = word != name && !slices.ContainsFunc(others, func(f *field) bool { return f.name == word })
	}
	disappears := func() bool {
		return !slices.ContainsFunc(trial.mistakes(), func(m string) bool {
			word, _, _ := strings.Cut(m, " ")
			return !remaining[word]
		})
	}
	var try func(rest []*field) bool
	try = func(rest []*field) bool {
		if len(rest) == 0 {
			return disappears()
		}
		for _, value := range candidates(rest[0].form) {
			at := trial.config.Field(rest[0].index)
			at.Set(reflect.ValueOf(value).Convert(at.Type()))
			if try(rest[1:]) {
				return true
			}
		}
		return false
	}
	return len(others) > 0 && try(others)
}

var wordPattern = regexp.MustCompile(`\w+`)

// candidates returns values of a field that couldn't be read.
func candidates(f form) []any {
	switch f {
	case wholeForm:
		return []any{0, 1, 2, 10, 100, 1000, 10_000, 1_000_000, math.MaxInt32}
	case numberForm:
		return []any{0.0, 1e-6, 0.01, 0.5, 1.0, 2.0, 1000.0, 1e6}
	case truthForm:
		return []any{false, true}
	case durationForm:
		return []any{0, 1, time.Millisecond, time.Second, time.Minute, time.Hour, 8760 * time.Hour, time.Duration(math.MaxInt64)}
	}
	return nil
}
