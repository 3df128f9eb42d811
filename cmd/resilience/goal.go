package main

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/effector-go/resilience/sim"
)

// A goal is a bound on a number of the report.
type goal struct {
	text  string
	name  string // in JSON
	least bool   // the number must be at least the bound
	open  bool   // and not equal to it
	bound float64
}

// goals is a flag.
type goals []goal

func (g *goals) String() string {
	texts := []string{}
	for _, goal := range *g {
		texts = append(texts, goal.text)
	}
	return strings.Join(texts, ",")
}

func (g *goals) Set(text string) error {
	var parts list
	parts.Set(text)
	for _, part := range parts {
		goal, err := parseGoal(part)
		if err != nil {
			return err
		}
		*g = append(*g, goal)
	}
	return nil
}

// numbers are the numbers of a result that goals can bound, by their JSON names.
func numbers() []string {
	var names []string
	t := reflect.TypeFor[sim.Result]()
	for i := range t.NumField() {
		if f := t.Field(i); f.Type == reflect.TypeFor[sim.Spread]() || f.Type.Kind() == reflect.Int {
			names = append(names, f.Tag.Get("json"))
		}
	}
	return names
}

func parseGoal(text string) (goal, error) {
	at := strings.IndexAny(text, "<>")
	if at < 0 {
		return goal{}, fmt.Errorf("%q has no bound, must be such as after>=0.99", text)
	}
	g := goal{text: text, name: strings.TrimSpace(text[:at]), least: text[at] == '>'}
	bound, closed := strings.CutPrefix(text[at+1:], "=")
	g.open = !closed
	bound = strings.TrimSpace(bound)
	if !slices.Contains(numbers(), g.name) {
		return goal{}, fmt.Errorf("%q is unknown, must be one of %s", g.name, strings.Join(numbers(), ", "))
	}
	v, err := strconv.ParseFloat(bound, 64)
	if d, durationErr := time.ParseDuration(bound); err != nil && durationErr == nil {
		v, err = d.Seconds(), nil
	}
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return goal{}, fmt.Errorf("%q is not a bound, must be a number, or a duration", bound)
	}
	g.bound = v
	return g, nil
}

// worst returns the number in the worst run for the goal, and whether any run has it.
func (g goal) worst(r *sim.Result) (v float64, ok bool) {
	if g.name == "recovery" && r.Metastable > 0 {
		return math.Inf(1), true
	}
	value := reflect.ValueOf(r).Elem()
	for i := range value.NumField() {
		if value.Type().Field(i).Tag.Get("json") != g.name {
			continue
		}
		if s, is := value.Field(i).Interface().(sim.Spread); is {
			if g.least {
				return s.Min, s.Runs > 0
			}
			return s.Max, s.Runs > 0
		}
		return float64(value.Field(i).Int()), true
	}
	return 0, false
}

// met reports whether the result meets the goal. A number that no run has, such as after without
// incidents, meets it.
func (g goal) met(r *sim.Result) bool {
	v, ok := g.worst(r)
	return !ok || g.accepts(v)
}

func (g goal) accepts(v float64) bool {
	if v == g.bound {
		return !g.open
	}
	return (v > g.bound) == g.least
}

// missed returns in words how the result misses the goal, or "" if it meets it.
func (g goal) missed(r *sim.Result) string {
	if g.met(r) {
		return ""
	}
	v, _ := g.worst(r)
	is := strconv.FormatFloat(v, 'g', 4, 64)
	if rounded, err := strconv.ParseFloat(is, 64); err == nil && g.accepts(rounded) { // 0.98996 isn't 0.99
		is = strconv.FormatFloat(v, 'g', -1, 64)
	}
	if math.IsInf(v, 0) {
		is = "infinite"
	}
	return fmt.Sprintf("%s is %s, must be %s", g.name, is, strings.TrimSpace(strings.TrimPrefix(g.text, g.name)))
}

// met reports whether the result meets all goals.
func (g goals) met(r *sim.Result) bool {
	for _, goal := range g {
		if !goal.met(r) {
			return false
		}
	}
	return true
}
