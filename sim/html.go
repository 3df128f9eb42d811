package sim

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"
)

//go:embed report.html
var reportHTML string

var reportTemplate = template.Must(template.New("report").Parse(reportHTML))

// WriteHTML writes the report as one page that loads nothing and has no script: a table with a
// verdict for each pipeline, and plots over time.
func (r *Report) WriteHTML(w io.Writer) error {
	return reportTemplate.Execute(w, r.page())
}

// A page is what report.html shows.
type page struct {
	Title     string
	Setting   []string
	Incidents []string
	Heads     [][2]string
	Rows      []row
	Plots     []plot
	Shades    []shade
	Ticks     []tick
	Most      string // the highest value of the axis of attempts
	Width     float64
}

type row struct {
	Name, Verdict string
	Mood          string // a class: good, bad, or none
	Cells         []string
}

// A plot is a figure. Its paths have x from 0 to Width, and y from 0 at the top down to the height.
type plot struct {
	Name, Verdict, Mood         string
	Label                       string // for screen readers
	Good, Late, Failed, Refused string // areas, each down to the bottom: drawn first, Refused is behind
	Attempts, Offered, Capacity string // lines
	Open                        string // an area
}

type shade struct{ X, Width float64 }

type tick struct {
	X      float64
	Label  string
	Anchor string
}

const (
	maxBins    = 236 // with the corners of areas, at most 240 points
	plotWidth  = 340
	plotHeight = 110
	stripSize  = 14
)

func (r *Report) page() page {
	s := &r.Scenario
	p := page{Title: s.title(), Setting: s.setting(), Width: plotWidth}
	for _, i := range s.Incidents {
		p.Incidents = append(p.Incidents, i.words())
		from, to := min(i.From, s.Length), min(i.end(), s.Length)
		x := func(t time.Duration) float64 { return t.Seconds() / s.Length.Seconds() * plotWidth }
		if from < to {
			p.Shades = append(p.Shades, shade{x(from), x(to) - x(from)})
		}
	}
	for _, column := range columns {
		p.Heads = append(p.Heads, column.head)
	}
	p.Ticks = ticks(s.Length)
	bins := r.bins()
	most := nice(r.most(bins))
	p.Most = decimal(most)
	for _, name := range r.names() {
		result := r.Pipelines[name]
		verdict, mood := result.verdict(), result.mood()
		cells := []string{}
		for _, column := range columns {
			cells = append(cells, column.of(result))
		}
		p.Rows = append(p.Rows, row{printable(name), verdict, mood, cells})
		drawn := r.draw(result, bins, most)
		drawn.Name, drawn.Verdict, drawn.Mood = printable(name), verdict, mood
		drawn.Label = fmt.Sprintf("%s %s. Good answers: %s before, %s during, %s after the incident.",
			drawn.Name, verdict, share(result.Before), share(result.During), share(result.After))
		p.Plots = append(p.Plots, drawn)
	}
	return p
}

// mood returns the class of the verdict. Its color only repeats what the verdict says.
func (r *Result) mood() string {
	switch {
	case r.Metastable > 0:
		return "bad"
	case r.Recovery.Runs > 0:
		return "fine"
	}
	return "none"
}

// A bin is some seconds of the series that are drawn as one point.
type bin struct{ from, to int } // seconds

func (r *Report) bins() []bin {
	n := seconds(r.Scenario.Length)
	width := (n + maxBins - 1) / maxBins
	var bins []bin
	for from := 0; from < n; from += width {
		bins = append(bins, bin{from, min(from+width, n)})
	}
	return bins
}

// mean returns the mean per second of what of returns in the bin.
func (b bin) mean(length time.Duration, series []Second, of func(s Second) float64) float64 {
	sum := 0.0
	for _, s := range series[b.from:b.to] {
		sum += of(s)
	}
	end := min(time.Duration(b.to)*time.Second, length) // the last second may be cut off
	return sum / (end - time.Duration(b.from)*time.Second).Seconds()
}

func offered(s Second) float64  { return s.Offered }
func attempts(s Second) float64 { return s.Attempts }

// most returns the highest value that the plots of attempts show.
func (r *Report) most(bins []bin) float64 {
	most := 1.0
	for _, result := range r.Pipelines {
		for _, b := range bins {
			most = max(most, b.mean(r.Scenario.Length, result.Series, offered), b.mean(r.Scenario.Length, result.Series, attempts))
		}
	}
	// A capacity far above doesn't flatten the rest.
	for _, b := range bins {
		if c := r.capacity(b); c < 2*most {
			most = max(most, c)
		}
	}
	return most
}

func (r *Report) capacity(b bin) float64 {
	return r.Scenario.capacity(time.Duration(b.from+b.to) * time.Second / 2)
}

// nice returns a round number that is at least v.
func nice(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, step := range []float64{1, 1.5, 2, 3, 4, 5, 6, 8} {
		if step*unit >= v {
			return step * unit
		}
	}
	return 10 * unit
}

func (r *Report) draw(result *Result, bins []bin, most float64) plot {
	n := len(bins)
	length := r.Scenario.Length
	x := func(i int) float64 {
		if i == n {
			return plotWidth
		}
		return float64(bins[i].from) / length.Seconds() * plotWidth
	}
	steps := func(height float64, of func(i int) float64) string { return stepped(n, x, height, of) }
	area := func(height float64, of func(i int) float64) string {
		return steps(height, of) + "V" + coordinate(height) + "H0Z"
	}
	stacked := func(parts func(s Second) float64) string {
		return area(plotHeight, func(i int) float64 {
			all := bins[i].mean(length, result.Series, offered)
			if all == 0 {
				return 0
			}
			return bins[i].mean(length, result.Series, parts) / all
		})
	}
	scaled := func(v float64) float64 { return min(v/most, 1.02) }
	line := func(of func(s Second) float64) string {
		return steps(plotHeight, func(i int) float64 { return scaled(bins[i].mean(length, result.Series, of)) })
	}
	return plot{
		Good:     stacked(func(s Second) float64 { return s.Good }),
		Late:     stacked(func(s Second) float64 { return s.Good + s.Late }),
		Failed:   stacked(func(s Second) float64 { return s.Good + s.Late + s.Failed }),
		Refused:  stacked(func(s Second) float64 { return s.Good + s.Late + s.Failed + s.Refused }),
		Attempts: line(attempts),
		Offered:  line(offered),
		Capacity: steps(plotHeight, func(i int) float64 { return scaled(r.capacity(bins[i])) }),
		Open: area(stripSize, func(i int) float64 {
			sum := 0.0
			for _, s := range result.Series[bins[i].from:bins[i].to] {
				sum += s.Open
			}
			return sum / float64(bins[i].to-bins[i].from)
		}),
	}
}

// stepped returns a path of n steps, each from x(i) to x(i+1), in a plot of the height. A value of 0
// is at the bottom, and one of 1 at the top. Neighboring steps of the same height become one.
func stepped(n int, x func(i int) float64, height float64, of func(i int) float64) string {
	var b strings.Builder
	last := ""
	for i := range n {
		y := coordinate(height * (1 - of(i)))
		switch {
		case i == 0:
			b.WriteString("M0 " + y)
		case y != last:
			b.WriteString("H" + coordinate(x(i)) + "V" + y)
		}
		last = y
	}
	b.WriteString("H" + coordinate(x(n)))
	return b.String()
}

// coordinate formats a coordinate with a tenth of a pixel.
func coordinate(v float64) string { return decimal(math.Round(v*10) / 10) }

// ticks returns the labels of the time axis.
func ticks(length time.Duration) []tick {
	const second, minute, hour = time.Second, time.Minute, time.Hour
	step := second
	for _, d := range []time.Duration{5 * second, 10 * second, 30 * second, minute, 5 * minute, 15 * minute, hour, 4 * hour, 12 * hour} {
		if length/step > 4 {
			step = d
		}
	}
	var result []tick
	for t := time.Duration(0); t <= length; t += step {
		label := fmt.Sprintf("%d:%02d", int(t.Minutes()), int(t.Seconds())%60)
		if length > time.Hour {
			label = fmt.Sprintf("%d h %02d", int(t.Hours()), int(t.Minutes())%60)
		}
		anchor := "middle"
		x := t.Seconds() / length.Seconds() * plotWidth
		if x > plotWidth-12 {
			anchor = "end"
		}
		result = append(result, tick{x, label, anchor})
	}
	return result
}
