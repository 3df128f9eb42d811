package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"strconv"
	"strings"

	"golang.org/x/perf/benchmath"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// The figures' files in docs, without their extension.
const (
	figureCallsOfUsers = "performance"
	figureBreakers     = "internals/measurements-breakers"
	figureCalls        = "internals/measurements-calls"
	figureLimits       = "internals/measurements-limits"
	figureProcessors   = "internals/measurements-processors"
	figureLimitProcs   = "internals/measurements-processors-limits"
	figureLength       = "internals/measurements-length"
	figureGrowth       = "internals/measurements-growth"
	figureLocks        = "internals/locks-processors"
)

// A figure is a plot with its legend next to it, where the legend covers no point.
type figure struct {
	name          string
	width, height vg.Length
	plot          *plot.Plot
	legend        plot.Legend
	legendWidth   vg.Length
}

// figures returns the figures for which there are measurements.
func figures(m measurements) []figure {
	r := m.all
	var figures []figure
	for _, f := range []figure{
		userCallsFigure(m.decisive()),
		comparisonsFigure(r, figureBreakers, "Time of a call through a breaker"),
		comparisonsFigure(r, figureCalls, "Time of a call through retry, timeout, pipelines, and HTTP"),
		comparisonsFigure(r, figureLimits, "Time of a call through limits and hedges, and of a shared call"),
		breakersByProcessors.draw(r),
		limitsByProcessors.draw(r),
		lengthFigure(r),
		growthFigure(r),
		locksFigure(r),
	} {
		if f.plot != nil {
			figures = append(figures, f)
		}
	}
	return figures
}

// render draws the figure as a file of the format, "svg" or "png".
func (f figure) render(format string) ([]byte, error) {
	canvas, err := draw.NewFormattedCanvas(f.width, f.height, format)
	if err != nil {
		return nil, err
	}
	c := draw.New(canvas)
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	const margin = 8
	c = draw.Crop(c, margin, -margin, margin, -margin)
	f.plot.Draw(draw.Crop(c, 0, -f.legendWidth, 0, 0))
	legend := draw.Crop(c, f.width-2*margin-f.legendWidth+margin, 0, 0, 0)
	f.legend.Draw(legend)
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, err
	}
	data := out.Bytes()
	if format == "svg" { // other fonts of the same widths, for readers without Liberation Sans
		data = bytes.ReplaceAll(data, []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
		data = bytes.Replace(data, []byte("<g "), []byte(darkStyle+"<g "), 1)
	}
	return data, nil
}

// darkStyle swaps light and dark but not the hues, if the reader prefers dark pages.
const darkStyle = "<style>@media (prefers-color-scheme: dark) { svg { filter: invert(0.9) hue-rotate(180deg) } }</style>\n"

var (
	ink    = color.Gray{0x33}
	faint  = color.Gray{0xdd}
	orange = color.RGBA{0xd9, 0x5f, 0x02, 0xff}
	blue   = color.RGBA{0x45, 0x75, 0xb4, 0xff}
)

// palette and glyphs distinguish lines, also for people who can't distinguish red and green.
var palette = []color.Color{
	orange, color.RGBA{0xe6, 0xab, 0x02, 0xff}, blue, color.RGBA{0x1b, 0x9e, 0x77, 0xff}, color.RGBA{0x75, 0x70, 0xb3, 0xff},
	color.RGBA{0x99, 0x99, 0x99, 0xff}, color.RGBA{0xa6, 0x76, 0x1d, 0xff}, color.RGBA{0xe7, 0x29, 0x8a, 0xff},
}

var glyphs = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.PyramidGlyph{},
	draw.RingGlyph{}, draw.BoxGlyph{}, draw.CrossGlyph{}, draw.PlusGlyph{},
}

// setSans sets the font of all texts, leaving a style's alignment as it is.
func setSans(s *text.Style, size vg.Length) {
	s.Color = ink
	s.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
	s.Handler = plot.DefaultTextHandler
}

// newPlot returns an empty plot in the style of all figures.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.Text = title
	setSans(&p.Title.TextStyle, 12)
	p.Title.Padding = 8
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		setSans(&axis.Label.TextStyle, 10)
		setSans(&axis.Tick.Label, 9)
		axis.Color, axis.Tick.Color = ink, ink
	}
	return p
}

func newLegend() plot.Legend {
	l := plot.NewLegend()
	setSans(&l.TextStyle, 9)
	l.Left, l.Top = true, true
	l.Padding = 4
	return l
}

// times returns the ticks of a logarithmic axis of nanoseconds: a label for each power of ten, a
// mark for each multiple.
type times struct{}

func (times) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for m := range 9 {
			v := math.Pow(10, e) * float64(m+1)
			if v < low*0.999 || v > high*1.001 {
				continue
			}
			tick := plot.Tick{Value: v}
			if m == 0 {
				tick.Label = timeLabel(v)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

// timeLabel formats a round number of nanoseconds, such as "10 ns" or "1 µs".
func timeLabel(ns float64) string {
	for _, unit := range []string{"ns", "µs", "ms"} {
		if ns < 1000 {
			return strconv.FormatFloat(ns, 'g', 3, 64) + " " + unit
		}
		ns /= 1000
	}
	return strconv.FormatFloat(ns, 'g', 3, 64) + " s"
}

// decades returns the powers of ten around low and high, at least one decade apart.
func decades(low, high float64) (float64, float64) {
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	return math.Pow(10, from), math.Pow(10, max(to, from+1))
}

// nanoseconds returns the median and the interval of times, in nanoseconds.
func nanoseconds(seconds values) benchmath.Summary {
	s := median(seconds, confidence)
	s.Center, s.Lo, s.Hi = s.Center*1e9, s.Lo*1e9, s.Hi*1e9
	return s
}

// A mark is one point of a chart.
type mark struct {
	y    float64
	time benchmath.Summary
}

// A series is the marks with the same color and shape.
type series struct {
	name  string
	shift float64 // of the marks above their row, so that no interval hides another
	glyph draw.GlyphStyle
	marks []mark

	ours    bool // of a comparison
	callers string
}

func glyph(c color.Color, shape draw.GlyphDrawer) draw.GlyphStyle {
	return draw.GlyphStyle{Color: c, Radius: 3, Shape: shape}
}

func newSeries() []*series {
	return []*series{
		{"ours, serial", 0.15, glyph(orange, draw.CircleGlyph{}), nil, true, "serial"},
		{"ours, parallel", -0.15, glyph(orange, draw.RingGlyph{}), nil, true, "parallel"},
		{"peers, serial", 0.15, glyph(blue, draw.CircleGlyph{}), nil, false, "serial"},
		{"peers, parallel", -0.15, glyph(blue, draw.RingGlyph{}), nil, false, "parallel"},
	}
}

// A chart has a row for each call or library, from top to bottom. A row's y is below zero.
type chart struct {
	names     []plot.Tick
	heads     plotter.XYLabels
	series    []*series
	low, high float64 // of the times
	bottom    float64
}

// chartOf lays out a row for each library of each comparison in the figure.
func chartOf(r *results, figure string) chart {
	c := chart{series: newSeries(), low: math.Inf(1)}
	for _, p := range comparisons {
		sides := p.sides(r)
		if p.figure != figure || len(sides) == 0 {
			continue
		}
		c.bottom -= 1.2
		c.heads.XYs = append(c.heads.XYs, plotter.XY{Y: c.bottom})
		c.heads.Labels = append(c.heads.Labels, p.title)
		for _, side := range sides {
			c.bottom--
			c.names = append(c.names, plot.Tick{Value: c.bottom, Label: side})
			for _, s := range c.series {
				if s.ours == strings.HasPrefix(side, "ours") {
					c.add(s, r.seconds("peers", p.row(side, s.callers), 0))
				}
			}
		}
	}
	return c
}

// add marks the times in the lowest row.
func (c *chart) add(s *series, seconds values) {
	if len(seconds) == 0 {
		return
	}
	t := nanoseconds(seconds)
	c.low, c.high = min(c.low, t.Center), max(c.high, t.Center)
	s.marks = append(s.marks, mark{c.bottom + s.shift, t})
}

// userCallsFigure has a row for each user call, with the times of this library, of what it
// replaces, and of failsafe-go.
func userCallsFigure(r *results) figure {
	ours := &series{name: "this library", glyph: glyph(orange, draw.CircleGlyph{})}
	theirs := &series{name: "compared with", shift: -0.12, glyph: glyph(blue, draw.SquareGlyph{})}
	failsafe := &series{name: "failsafe-go", shift: 0.12, glyph: glyph(palette[3], draw.TriangleGlyph{})}
	c := chart{series: []*series{ours, theirs, failsafe}, low: math.Inf(1)}
	var notes []plot.Tick
	for _, call := range userCalls {
		c.bottom--
		c.names = append(c.names, plot.Tick{Value: c.bottom + 0.17, Label: call.title + ": " + call.note})
		notes = append(notes, plot.Tick{Value: c.bottom - 0.17, Label: "compared with " + call.instead})
		c.add(ours, r.seconds("peers", call.ours, 0))
		c.add(theirs, r.seconds("peers", call.theirs, 0))
		c.add(failsafe, r.seconds("peers", call.failsafe, 0))
	}
	if c.high == 0 {
		return figure{}
	}
	c.names = append(c.names, notes...)
	f := c.figure(figureCallsOfUsers, "Time of a call", 30)
	f.width = 760
	return f
}

// comparisonsFigure has a row for each library of each comparison, with the time of a call on a
// logarithmic axis.
func comparisonsFigure(r *results, name, title string) figure {
	c := chartOf(r, name)
	if c.high == 0 {
		return figure{}
	}
	return c.figure(name, title, 13)
}

// figure draws the chart, with rows of this height.
func (c chart) figure(name, title string, height vg.Length) figure {
	p := newPlot(title)
	p.Y.Min, p.Y.Max = c.bottom-0.8, -0.4
	p.Y.Tick.Marker, p.Y.Tick.Length, p.Y.LineStyle.Width = plot.ConstantTicks(c.names), 0, 0
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, times{}
	p.X.Min, p.X.Max = decades(c.low, c.high)
	p.X.Padding = 4
	drawHeads(p, c.heads)
	legend := newLegend()
	for _, s := range c.series {
		drawMarks(p, s.marks, s.glyph)
		legend.Add(s.name, &plotter.Scatter{GlyphStyle: s.glyph})
	}
	return figure{name, 620, vg.Length(-c.bottom)*height + 70, p, legend, 110}
}

// drawHeads draws lines at the powers of ten and the titles of the comparisons at the left edge.
func drawHeads(p *plot.Plot, heads plotter.XYLabels) {
	for i := range heads.XYs {
		heads.XYs[i].X = p.X.Min
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = faint, nil
	p.Add(grid)
	if len(heads.XYs) == 0 {
		return
	}
	labels, err := plotter.NewLabels(heads)
	if err != nil {
		panic(err) // as many labels as points, by construction
	}
	for i := range labels.TextStyle {
		setSans(&labels.TextStyle[i], 10)
		labels.TextStyle[i].Font.Weight = 3 // bold
		labels.TextStyle[i].YAlign = draw.YCenter
	}
	labels.Offset.X = 3
	p.Add(labels)
}

// drawMarks draws each mark, and its interval as a line.
func drawMarks(p *plot.Plot, marks []mark, glyph draw.GlyphStyle) {
	var points plotter.XYs
	for _, m := range marks {
		points = append(points, plotter.XY{X: m.time.Center, Y: m.y})
		if low, high := max(m.time.Lo, p.X.Min), min(m.time.Hi, p.X.Max); !math.IsInf(m.time.Lo, 0) && high > low {
			line, err := plotter.NewLine(plotter.XYs{{X: low, Y: m.y}, {X: high, Y: m.y}})
			if err != nil {
				panic(err) // both are finite
			}
			line.Color, line.Width = glyph.Color, 1
			p.Add(line)
		}
	}
	if len(points) > 0 {
		scatter, err := plotter.NewScatter(points)
		if err != nil {
			panic(err) // medians of finite times
		}
		scatter.GlyphStyle = glyph
		p.Add(scatter)
	}
}

// A line is a row of bench/peers and its label in the figure.
type line struct{ label, row string }

// byProcessors is a figure and a table of rows by the number of processors.
type byProcessors struct {
	figure string
	title  string
	lines  []line
}

var breakersByProcessors = byProcessors{figureProcessors, "Time of a call through one breaker, by processors", []line{
	{"ours", "Closed/ours/parallel"},
	{"ours, window", "RateWindow/ours/parallel"},
	{"eapache", "Closed/eapache/parallel"},
	{"gobreaker", "Closed/gobreaker/parallel"},
	{"failsafe two-step", "Closed/failsafe-two-step/parallel"},
	{"failsafe two-step, window", "RateWindow/failsafe-two-step/parallel"},
	{"cep21, window", "RateWindow/cep21/parallel"},
}}

var limitsByProcessors = byProcessors{figureLimitProcs, "Time of a call through one limit, by processors", []line{
	{"ours, bulkhead", "Bulkhead/ours/parallel"},
	{"ours, rate limit", "RateLimit/ours/parallel"},
	{"ours, adaptive limit", "Adaptive/ours/parallel"},
	{"ours, shedding", "Shed/ours/parallel"},
	{"x/sync/semaphore", "Bulkhead/semaphore/parallel"},
	{"x/time/rate", "RateLimit/x-time/parallel"},
	{"gradient2, adaptive limit", "Adaptive/platinummonkey-gradient2/parallel"},
}}

// draw returns the figure.
func (x byProcessors) draw(r *results) figure {
	p := newPlot(x.title)
	p.X.Label.Text = "processors, each with a goroutine that makes calls"
	procs := r.procs("peers", x.lines[0].row)
	legend := newLegend()
	var lines []plotted
	for _, l := range x.lines {
		one := plotted{label: l.label}
		for _, n := range procs {
			one.add(float64(n), r.seconds("peers", l.row, n))
		}
		lines = append(lines, one)
	}
	if !drawLines(p, &legend, lines, procs) {
		return figure{}
	}
	return figure{x.figure, 620, 360, p, legend, 165}
}

// lengthSides are the libraries in pipelines of increasing length, this one first.
var lengthSides = []string{"ours", "failsafe", "backoff-v5"}

func lengthRow(policies int, side string) string {
	return fmt.Sprintf("Length/policies=%d/%s", policies, side)
}

// lengths returns the lengths that were measured.
func lengths(r *results) []int {
	var lengths []int
	for _, key := range r.rows {
		parts := strings.Split(key.name, "/")
		if key.pkg != "peers" || len(parts) != 3 || parts[0] != "Length" || parts[2] != lengthSides[0] {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimPrefix(parts[1], "policies=")); err == nil {
			lengths = append(lengths, n)
		}
	}
	return lengths
}

func lengthFigure(r *results) figure {
	p := newPlot("Time of a call, by the length of its pipeline")
	p.X.Label.Text = "policies"
	legend := newLegend()
	var lines []plotted
	for _, side := range lengthSides {
		one := plotted{label: side}
		for _, n := range lengths(r) {
			one.add(float64(n), r.seconds("peers", lengthRow(n, side), 0))
		}
		lines = append(lines, one)
	}
	if !drawLines(p, &legend, lines, lengths(r)) {
		return figure{}
	}
	return figure{figureLength, 620, 320, p, legend, 165}
}

// growthFigure has a line for each growth that is a time.
func growthFigure(r *results) figure {
	p := newPlot("Time of a call, by the number of policies, goroutines, or breakers")
	p.X.Label.Text = "policies, pipelines, goroutines, or breakers"
	var lines []plotted
	legend := newLegend()
	for _, g := range growths {
		if g.unit != "sec/op" {
			continue
		}
		label, _, _ := strings.Cut(g.label, ":")
		one := plotted{label: label}
		for _, n := range growthNumbers {
			one.add(float64(n), g.values(r, n))
		}
		lines = append(lines, one)
	}
	if !drawLines(p, &legend, lines, growthNumbers) {
		return figure{}
	}
	return figure{figureGrowth, 700, 360, p, legend, 235}
}

// locksFigure has a line for each correct lock form, by processors.
func locksFigure(r *results) figure {
	const path = "closed"
	p := newPlot("Time of a call through a closed breaker, by the form of its lock")
	p.X.Label.Text = "processors, each with a goroutine that makes calls"
	procs := r.procs("bench", lockRow(path, "library", "parallel"))
	_, forms := lockNames(r)
	legend := newLegend()
	var lines []plotted
	for _, form := range append([]string{"library"}, forms...) { // first, so that it has the same color in all figures
		if strings.HasPrefix(form, "wrong-") || len(lines) > 0 && form == "library" {
			continue
		}
		one := plotted{label: form}
		for _, n := range procs {
			one.add(float64(n), r.seconds("bench", lockRow(path, form, "parallel"), n))
		}
		lines = append(lines, one)
	}
	if !drawLines(p, &legend, lines, procs) {
		return figure{}
	}
	return figure{figureLocks, 620, 320, p, legend, 130}
}

// A plotted is a line of points, in nanoseconds.
type plotted struct {
	label  string
	points plotter.XYs
}

func (l *plotted) add(x float64, seconds values) {
	if len(seconds) > 0 {
		l.points = append(l.points, plotter.XY{X: x, Y: nanoseconds(seconds).Center})
	}
}

// drawLines draws the lines over the numbers, on two logarithmic axes, and adds them to the legend.
// It reports whether there was anything to draw.
func drawLines(p *plot.Plot, legend *plot.Legend, lines []plotted, numbers []int) bool {
	var ticks []plot.Tick
	for _, n := range numbers {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
	}
	low, high := math.Inf(1), 0.0
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = nil, faint
	p.Add(grid)
	for i, l := range lines {
		if len(l.points) == 0 {
			continue
		}
		for _, point := range l.points {
			low, high = min(low, point.Y), max(high, point.Y)
		}
		line, points, err := plotter.NewLinePoints(l.points)
		if err != nil {
			panic(err) // medians of finite times
		}
		line.Color, line.Width = palette[i%len(palette)], 1.5
		points.GlyphStyle = draw.GlyphStyle{Color: palette[i%len(palette)], Radius: 3.5, Shape: glyphs[i%len(glyphs)]}
		p.Add(line, points)
		legend.Add(l.label, line, points)
	}
	if high == 0 || len(ticks) == 0 {
		return false
	}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.ConstantTicks(ticks)
	p.X.Min, p.X.Max = ticks[0].Value, max(ticks[len(ticks)-1].Value, ticks[0].Value*2)
	p.X.Padding, p.Y.Padding = 6, 6
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, times{}
	p.Y.Min, p.Y.Max = decades(low, high)
	return true
}
