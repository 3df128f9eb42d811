package dashboard

import (
	"math"
	"strconv"
	"time"

	"github.com/effector-go/resilience/observe"
)

const (
	maxPoints   = 600 // of a chart
	sparkPoints = 60  // of a sparkline
)

// A grid divides time into the points of all charts. Point 0 begins at its start.
type grid struct {
	start  time.Time
	step   time.Duration
	points int64 // that charts have at most
}

func newGrid(start time.Time, history, interval time.Duration) grid {
	step := max(history/maxPoints, interval)
	// Points of whole steps of the wall clock make times that people can read.
	return grid{start: start.Add(-start.Sub(start.Truncate(step))), step: step, points: min(maxPoints, int64(max(1, history/step)))}
}

// at returns the index of the point that contains t.
func (g grid) at(t time.Time) int64 {
	since := t.Sub(g.start)
	point := int64(since / g.step)
	if since < 0 && since%g.step != 0 {
		point--
	}
	return point
}

// time returns when a point begins.
func (g grid) time(point int64) time.Time { return g.start.Add(time.Duration(point) * g.step) }

// A point is what a pipeline did in one step. 40 bytes, so 24 kB for a pipeline's 600 points.
type point struct {
	results  [resultCount]float32 // calls per second
	attempts float32              // per second
	running  float32              // the most of any sample
	p50, p99 float32              // in seconds; 0 without a call
}

// bad returns the rate of calls that failed, were refused, timed out, or panicked.
func (p *point) bad() float32 {
	return p.results[observe.Failure] + p.results[observe.Refused] + p.results[observe.TimedOut] + p.results[observe.Panicked]
}

// rate returns the rate of all calls.
func (p *point) rate() float32 {
	return p.bad() + p.results[observe.Success] + p.results[observe.Canceled]
}

// A series is the history of a pipeline.
type series struct {
	first int64   // index in the grid of the oldest point
	ring  []point // the points, the oldest at head
	head  int

	// What the last point is computed from. Later samples may still add to it.
	counts   [resultCount]float64
	attempts float64
	buckets  []float64
	seconds  float64 // that samples have covered of the point's time
}

func (s *series) len() int { return len(s.ring) }

// point returns the i-th point, 0 being the oldest.
func (s *series) point(i int) *point {
	if i += s.head; i >= len(s.ring) {
		i -= len(s.ring)
	}
	return &s.ring[i]
}

// push appends an empty point. If there are too many, it replaces the oldest.
func (s *series) push(g grid) {
	if int64(len(s.ring)) < g.points {
		s.ring = append(s.ring, point{})
	} else {
		s.ring[s.head] = point{}
		s.head = (s.head + 1) % len(s.ring)
		s.first++
	}
	s.counts, s.attempts, s.seconds = [resultCount]float64{}, 0, 0
	clear(s.buckets)
}

// add records what happened between two samples. If they are far apart, it fills all points between
// them with the average.
func (s *series) add(g grid, from, to time.Time, d *delta, running int, bounds []float64) {
	whole := to.Sub(from)
	if whole <= 0 {
		return
	}
	if s.buckets == nil {
		s.buckets = make([]float64, len(bounds)+1)
	}
	last := g.at(to)
	if g.time(last).Equal(to) {
		last-- // the sample ends a point and does not begin the next one
	}
	first := max(g.at(from), last-g.points+1)
	if s.len() == 0 {
		s.first = first
	}
	first = max(first, s.first) // if the clock was set back, what came before the oldest point is lost
	for at := first; at <= last; at++ {
		for s.first+int64(s.len()) <= at {
			s.push(g)
		}
		begin, end := g.time(at), g.time(at+1)
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		part := end.Sub(begin)
		s.seconds += part.Seconds()
		s.count(d, part.Seconds()/whole.Seconds())
		s.set(s.point(int(at-s.first)), running, bounds)
	}
}

// count adds a part of what happened to the last point.
func (s *series) count(d *delta, part float64) {
	for r, n := range d.results {
		s.counts[r] += float64(n) * part
	}
	s.attempts += float64(d.attempts) * part
	for i, n := range d.buckets {
		s.buckets[i] += float64(n) * part
	}
}

// set computes the last point from what was counted.
func (s *series) set(p *point, running int, bounds []float64) {
	for r, n := range s.counts {
		p.results[r] = float32(n / s.seconds)
	}
	p.attempts = float32(s.attempts / s.seconds)
	p.running = max(p.running, float32(running))
	p.p50 = float32(quantile(bounds, s.buckets, 0.5))
	p.p99 = float32(quantile(bounds, s.buckets, 0.99))
}

// quantile returns a quantile of a histogram: interpolated in its bucket, the last bound for
// whatever is above it, and 0 if the histogram is empty.
func quantile(bounds, buckets []float64, q float64) float64 {
	total := 0.0
	for _, n := range buckets {
		total += n
	}
	if total <= 0 || len(bounds) == 0 {
		return 0
	}
	rank := q * total
	low, v := 0.0, 0.0
	for i, n := range buckets[:len(bounds)] {
		if n > 0 {
			v = low + (bounds[i]-low)*min(1, rank/n)
			if i == len(bounds)-1 {
				v = min(v, math.Nextafter(bounds[i], 0)) // the last bound itself means more
			}
			if rank <= n {
				return v
			}
		}
		rank -= n
		low = bounds[i]
	}
	if buckets[len(bounds)] > 0 {
		return low
	}
	return v // a rounding error of the ranks
}

// numbers are encoded with four significant digits, which is more than a chart shows.
type numbers []float32

// MarshalJSON implements json.Marshaler.
func (n numbers) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 2+6*len(n)), '[')
	for i, v := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendNumber(b, float64(v), 4)
	}
	return append(b, ']'), nil
}

// appendNumber appends v in JSON, with null for what JSON lacks.
func appendNumber(b []byte, v float64, digits int) []byte {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return append(b, "null"...)
	case v == math.Trunc(v) && math.Abs(v) < 1e6:
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', digits, 64)
}

// historyJSON is the answer to history.json.
type historyJSON struct {
	Start    time.Time          `json:"start"`
	Step     float64            `json:"step"`
	Results  map[string]numbers `json:"results"`
	Attempts numbers            `json:"attempts"`
	Running  numbers            `json:"running"`
	P50      numbers            `json:"p50"`
	P99      numbers            `json:"p99"`
}

// json returns the history as of now. Its start is reckoned from now, since the wall clock may have
// been set since the grid began.
func (s *series) json(g grid, now time.Time) historyJSON {
	n := s.len()
	column := func(value func(*point) float32) numbers {
		list := make(numbers, n)
		for i := range list {
			list[i] = value(s.point(i))
		}
		return list
	}
	h := historyJSON{
		Start:    now.Add(g.time(s.first).Sub(now)).UTC(),
		Step:     g.step.Seconds(),
		Results:  map[string]numbers{},
		Attempts: column(func(p *point) float32 { return p.attempts }),
		Running:  column(func(p *point) float32 { return p.running }),
		P50:      column(func(p *point) float32 { return p.p50 }),
		P99:      column(func(p *point) float32 { return p.p99 }),
	}
	for r := range observe.Result(resultCount) {
		h.Results[r.String()] = column(func(p *point) float32 { return p.results[r] })
	}
	return h
}

// sparkJSON is a pipeline's sparkline.
type sparkJSON struct {
	Step float64 `json:"step"`
	Rate numbers `json:"rate"`
	Bad  numbers `json:"bad"`
	P99  numbers `json:"p99"`
}

// spark returns the latest points for a sparkline.
func (s *series) spark(g grid) sparkJSON {
	n := min(s.len(), sparkPoints)
	j := sparkJSON{Step: g.step.Seconds(), Rate: make(numbers, n), Bad: make(numbers, n), P99: make(numbers, n)}
	for i := range n {
		p := s.point(s.len() - n + i)
		j.Rate[i], j.Bad[i], j.P99[i] = p.rate(), p.bad(), p.p99
	}
	return j
}
