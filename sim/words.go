package sim

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// mistake returns the error of a field, its value, and the values that it can have.
func mistake(field, is, must string) error {
	return fmt.Errorf("sim: %s: %s, must be %s", field, is, must)
}

// quoted returns text from outside for an error.
func quoted(text string) string {
	const most = 60
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return strconv.Quote(text)
}

// short returns a duration without units that are zero: 1m instead of 1m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// rounded returns a duration with about three digits.
func rounded(d time.Duration) time.Duration {
	for unit := time.Duration(1); unit < time.Hour; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
	return d.Round(time.Hour)
}

// decimal returns the shortest text of v that reads as v again.
func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// counted returns "1 call", "2 calls", and so on.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// call returns "name(first, second)" for n arguments.
func call(name string, n int, arg func(i int) string) string {
	var b strings.Builder
	b.WriteString(name + "(")
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(arg(i))
	}
	return b.String() + ")"
}

// parseCall splits "name(first, second)". For text without parentheses, the name is empty.
func parseCall(text string) (name string, args []string, err error) {
	name, rest, ok := strings.Cut(strings.TrimSpace(text), "(")
	if !ok {
		return "", nil, nil
	}
	inner, ok := strings.CutSuffix(rest, ")")
	if !ok || strings.ContainsAny(inner, "()") {
		return "", nil, fmt.Errorf("sim: %s must have the form name(value, ...)", quoted(text))
	}
	if strings.TrimSpace(inner) == "" {
		return name, nil, nil
	}
	args = strings.Split(inner, ",")
	for i := range args {
		args[i] = strings.TrimSpace(args[i])
	}
	return name, args, nil
}

// parseDecimal reads a decimal number.
func parseDecimal(text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.Trim(text, "0123456789.eE+-") != "" || math.IsInf(v, 0) {
		return 0, fmt.Errorf("sim: %s must be a decimal number", quoted(text))
	}
	return v, nil
}

// parseDuration reads a duration in Go's form.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("sim: %s must be a duration, such as 20ms or 1m30s", quoted(text))
	}
	return d, nil
}

func parseDurations(texts []string) ([]time.Duration, error) {
	times := make([]time.Duration, len(texts))
	for i, text := range texts {
		var err error
		if times[i], err = parseDuration(text); err != nil {
			return nil, err
		}
	}
	return times, nil
}
