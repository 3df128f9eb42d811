package sim

import (
	"math"
	"slices"
	"strings"
	"time"
)

// A Distribution is how long something takes: [Fixed], [Exponential], [LogNormal], [Percentiles], or
// [Recorded]. A field that is a zero Distribution has its default. As text, and in JSON, it is
//
//	fixed(20ms)
//	exponential(20ms)
//	logNormal(20ms, 100ms)
//	percentiles(50: 5ms, 99: 50ms)
//	recorded(5ms, 7ms, 31ms)
//
// A Distribution is never changed, so it is safe for concurrent use.
type Distribution struct {
	kind   string // "", "fixed", "exponential", "logNormal", "percentiles", or "recorded"
	a, b   time.Duration
	points []Percentile
	times  []time.Duration
}

// A Percentile is a point of a distribution: Percent of the times are at most Within.
type Percentile struct {
	Percent float64       // 0 to 100
	Within  time.Duration // above 0
}

const maxTime = 24 * time.Hour // of a distribution

// Fixed returns the distribution of a time that is always the same, 0 to 24 h.
func Fixed(d time.Duration) Distribution { return Distribution{kind: "fixed", a: d} }

// Exponential returns the exponential distribution with a mean above 0.
func Exponential(mean time.Duration) Distribution { return Distribution{kind: "exponential", a: mean} }

// LogNormal returns the log-normal distribution with a median above 0, and a 99th percentile of at
// least the median. Most service times look like it.
func LogNormal(median, p99 time.Duration) Distribution {
	return Distribution{kind: "logNormal", a: median, b: p99}
}

// Percentiles returns the distribution through at least one point. Percent must ascend, and Within
// must not descend. Between two points, the logarithm of the time is linear; beyond the first and
// the last, the time is theirs.
func Percentiles(points ...Percentile) Distribution {
	return Distribution{kind: "percentiles", points: slices.Clone(points)}
}

// Recorded returns the distribution that takes each of these times, at least one, equally often, at
// random.
func Recorded(times []time.Duration) Distribution {
	return Distribution{kind: "recorded", times: slices.Clone(times)}
}

func (d Distribution) isZero() bool { return d.kind == "" }

// problem returns what is wrong with d and what it must be, or "" if d is valid.
func (d Distribution) problem() (is, must string) {
	bad := func(t, least time.Duration) bool { return t < least || t > maxTime }
	switch d.kind {
	case "fixed":
		if bad(d.a, 0) {
			return "fixed at " + short(d.a), "0s to 24h"
		}
	case "exponential":
		if bad(d.a, 1) {
			return "exponential with a mean of " + short(d.a), "above 0s, at most 24h"
		}
	case "logNormal":
		if bad(d.a, 1) {
			return "logNormal with a median of " + short(d.a), "above 0s, at most 24h"
		}
		if bad(d.b, d.a) {
			return "logNormal with a 99th percentile of " + short(d.b), "the median (" + short(d.a) + ") to 24h"
		}
	case "percentiles":
		if len(d.points) == 0 {
			return "percentiles without points", "at least one point"
		}
		last := Percentile{-1, 1}
		for _, p := range d.points {
			if !(p.Percent >= 0 && p.Percent <= 100) || p.Percent <= last.Percent {
				return "percentile " + decimal(p.Percent), "0 to 100, and above the one before"
			}
			if bad(p.Within, last.Within) {
				return "percentile " + decimal(p.Percent) + " at " + short(p.Within),
					"above 0s, at least the one before, at most 24h"
			}
			last = p
		}
	case "recorded":
		if len(d.times) == 0 {
			return "recorded without times", "at least one time"
		}
		for _, t := range d.times {
			if bad(t, 0) {
				return "a recorded time of " + short(t), "0s to 24h"
			}
		}
	default:
		return "not set", "set, for example to Fixed(20*time.Millisecond)"
	}
	return "", ""
}

const normal99 = 2.3263478740408408 // the standard normal distribution's 99th percentile

func (d Distribution) sigma() float64 { return math.Log(float64(d.b)/float64(d.a)) / normal99 }

// Mean returns the mean of the distribution. That of the zero Distribution is 0.
func (d Distribution) Mean() time.Duration {
	switch d.kind {
	case "logNormal":
		sigma := d.sigma()
		return duration(float64(d.a) * math.Exp(sigma*sigma/2))
	case "percentiles":
		if len(d.points) == 0 {
			return 0
		}
		last := d.points[0]
		mean := last.Percent * float64(last.Within)
		for _, p := range d.points[1:] {
			between := float64(p.Within)
			if p.Within != last.Within {
				between = float64(p.Within-last.Within) / math.Log(float64(p.Within)/float64(last.Within))
			}
			mean += (p.Percent - last.Percent) * between
			last = p
		}
		mean += (100 - last.Percent) * float64(last.Within)
		return duration(mean / 100)
	case "recorded":
		sum := 0.0
		for _, t := range d.times {
			sum += float64(t)
		}
		return duration(sum / max(1, float64(len(d.times))))
	}
	return d.a // fixed or exponential
}

// at returns the time below which the share u of all times are; u is between 0 and 1, both excluded.
// The distribution must be valid.
func (d Distribution) at(u float64) time.Duration {
	switch d.kind {
	case "exponential":
		return duration(-math.Log(u) * float64(d.a))
	case "logNormal":
		return duration(float64(d.a) * math.Exp(d.sigma()*math.Sqrt2*math.Erfinv(2*u-1)))
	case "percentiles":
		i, _ := slices.BinarySearchFunc(d.points, 100*u, func(p Percentile, percent float64) int {
			if p.Percent < percent {
				return -1
			}
			return 1
		})
		if i == 0 {
			return d.points[0].Within
		}
		if i == len(d.points) {
			return d.points[i-1].Within
		}
		from, to := d.points[i-1], d.points[i]
		share := (100*u - from.Percent) / (to.Percent - from.Percent)
		return duration(float64(from.Within) * math.Pow(float64(to.Within)/float64(from.Within), share))
	case "recorded":
		return d.times[min(int(u*float64(len(d.times))), len(d.times)-1)]
	}
	return d.a
}

// duration converts nanoseconds, which must not be NaN, to a duration of at most maxTime.
func duration(ns float64) time.Duration {
	return time.Duration(min(max(math.Round(ns), 0), float64(maxTime)))
}

// String returns the distribution's text. Of recorded times, it returns only their number and mean.
func (d Distribution) String() string {
	if d.kind == "recorded" {
		return counted(len(d.times), "recorded time") + ", mean " + short(rounded(d.Mean()))
	}
	return d.text()
}

// text returns the distribution in full.
func (d Distribution) text() string {
	switch d.kind {
	case "fixed", "exponential":
		return d.kind + "(" + short(d.a) + ")"
	case "logNormal":
		return "logNormal(" + short(d.a) + ", " + short(d.b) + ")"
	case "percentiles":
		return call(d.kind, len(d.points), func(i int) string {
			return decimal(d.points[i].Percent) + ": " + short(d.points[i].Within)
		})
	case "recorded":
		return call(d.kind, len(d.times), func(i int) string { return short(d.times[i]) })
	}
	return ""
}

// MarshalText returns the distribution's text in full: see [Distribution]. It fails for an invalid
// distribution; that of the zero Distribution is empty.
func (d Distribution) MarshalText() ([]byte, error) {
	if is, must := d.problem(); is != "" && !d.isZero() {
		return nil, mistake("Distribution", is, must)
	}
	return []byte(d.text()), nil
}

// UnmarshalText reads a distribution: see [Distribution]. If it fails, d doesn't change.
func (d *Distribution) UnmarshalText(text []byte) error {
	parsed, err := parseDistribution(string(text))
	if err != nil {
		return err
	}
	if is, must := parsed.problem(); is != "" {
		return mistake("Distribution", is, must)
	}
	*d = parsed
	return nil
}

func parseDistribution(text string) (d Distribution, err error) {
	name, args, err := parseCall(text)
	if err != nil {
		return d, err
	}
	switch want := map[string]int{"fixed": 1, "exponential": 1, "logNormal": 2}[name]; {
	case want > 0:
		times, err := parseDurations(args)
		if err != nil {
			return d, err
		}
		if len(times) != want {
			return d, mistake("Distribution", quoted(text), name+" with "+counted(want, "duration"))
		}
		d.kind, d.a = name, times[0]
		if want == 2 {
			d.b = times[1]
		}
		return d, nil
	case name == "percentiles":
		for _, arg := range args {
			percent, within, _ := strings.Cut(arg, ":")
			p := Percentile{}
			if p.Percent, err = parseDecimal(strings.TrimSpace(percent)); err != nil {
				return d, err
			}
			if p.Within, err = parseDuration(strings.TrimSpace(within)); err != nil {
				return d, err
			}
			d.points = append(d.points, p)
		}
		return Percentiles(d.points...), nil
	case name == "recorded":
		times, err := parseDurations(args)
		return Recorded(times), err
	}
	return d, mistake("Distribution", quoted(text), "fixed, exponential, logNormal, percentiles, or recorded, such as fixed(20ms)")
}
