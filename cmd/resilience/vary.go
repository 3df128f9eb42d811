package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A variable is a number that tune may change, and the values that it can have.
type variable struct {
	place
	choices  []string // in order; if there are none, the values are between:
	from, to float64  // seconds, if they are durations
	duration bool     // then logarithmic
	old      string   // as in the file, "" if it isn't there
}

// variables is a flag.
type variables []*variable

func (v *variables) String() string {
	texts := []string{}
	for _, one := range *v {
		texts = append(texts, one.text)
	}
	return strings.Join(texts, " ")
}

func (v *variables) Set(text string) error {
	path, values, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("%q has no values, must be such as retry.maxAttempts=1..5", text)
	}
	p, err := parsePlace(strings.TrimSpace(path))
	if err != nil {
		return err
	}
	for _, other := range *v {
		if other.text == p.text {
			return fmt.Errorf("%s is set twice, must be once", p.text)
		}
	}
	one := &variable{place: p}
	if err := one.values(strings.TrimSpace(values)); err != nil {
		return err
	}
	*v = append(*v, one)
	return nil
}

const maxChoices = 1000

// values reads 1..5, 0.05..1, 50ms..1s, or a,b,c.
func (v *variable) values(text string) error {
	wrong := fmt.Errorf("%s: %q must be such as 1..5, 0.05..1, 50ms..1s, or a,b,c", v.text, text)
	low, high, isRange := strings.Cut(text, "..")
	if !isRange {
		for _, choice := range strings.Split(text, ",") {
			choice = strings.TrimSpace(choice)
			if choice == "" || strings.ContainsAny(choice, "{}[]:#&*!|>%@`'\"\n") {
				return wrong
			}
			v.choices = append(v.choices, choice)
		}
		return nil
	}
	first, err1 := strconv.Atoi(low)
	last, err2 := strconv.Atoi(high)
	if err1 == nil && err2 == nil {
		if last <= first || last-first >= maxChoices {
			return fmt.Errorf("%s: %q must ascend, over at most %d numbers", v.text, text, maxChoices)
		}
		for n := first; n <= last; n++ {
			v.choices = append(v.choices, strconv.Itoa(n))
		}
		return nil
	}
	from, err1 := time.ParseDuration(low)
	to, err2 := time.ParseDuration(high)
	if err1 == nil && err2 == nil && (strings.Trim(low, "0.") != "" || to > 0) {
		v.from, v.to, v.duration = from.Seconds(), to.Seconds(), true
		if v.from <= 0 || v.to <= v.from {
			return fmt.Errorf("%s: %q must ascend, from above 0s", v.text, text)
		}
		return nil
	}
	if v.from, err1 = strconv.ParseFloat(low, 64); err1 != nil {
		return wrong
	}
	if v.to, err2 = strconv.ParseFloat(high, 64); err2 != nil {
		return wrong
	}
	if !(v.to > v.from) || math.IsInf(v.from, 0) || math.IsInf(v.to, 0) { // also NaN
		return wrong
	}
	return nil
}

// samples returns some values: all choices, or some of the range, from its beginning.
func (v *variable) samples() []string {
	if v.choices != nil {
		return v.choices
	}
	return []string{v.at(0), v.at(0.25), v.at(0.5), v.at(0.75), v.at(1)}
}

// random returns a random value.
func (v *variable) random(r *rand.Rand) string {
	if v.choices != nil {
		return v.choices[r.IntN(len(v.choices))]
	}
	return v.at(r.Float64())
}

// at returns the value at a share of the range, with two digits.
func (v *variable) at(share float64) string {
	share = min(max(share, 0), 1)
	if v.duration {
		value := min(max(twoDigits(v.from*math.Pow(v.to/v.from, share)), v.from), v.to)
		return time.Duration(math.Round(value * 1e9)).String()
	}
	value := min(max(twoDigits(v.from+(v.to-v.from)*share), v.from), v.to)
	return strconv.FormatFloat(value, 'f', -1, 64)
}

func twoDigits(v float64) float64 {
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 2, 64), 64)
	return rounded
}

// near returns a value near another one.
func (v *variable) near(value string, r *rand.Rand) string {
	if v.choices != nil {
		at := slices.Index(v.choices, value)
		if at < 0 {
			return v.random(r)
		}
		at += 1 - 2*r.IntN(2)
		return v.choices[min(max(at, 0), len(v.choices)-1)]
	}
	number, ok := v.number(value)
	if !ok {
		return v.random(r)
	}
	share := (number - v.from) / (v.to - v.from)
	if v.duration {
		share = math.Log(number/v.from) / math.Log(v.to/v.from)
	}
	return v.at(share + 0.3*(r.Float64()-0.5))
}

// number returns a value of the range as a number.
func (v *variable) number(value string) (float64, bool) {
	if v.duration {
		d, err := time.ParseDuration(value)
		return d.Seconds(), err == nil && d > 0
	}
	number, err := strconv.ParseFloat(value, 64)
	return number, err == nil
}
