package main

import (
	"fmt"
	"image/color"
	"math"
	"strconv"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/effector-go/resilience/examples/internal/figure"
)

var (
	lawColors  = []color.Color{figure.Blue, figure.Orange, figure.Purple}
	rightColor = figure.RGB(0x20, 0x20, 0x20)
	shade      = figure.RGB(0xf2, 0xf2, 0xf2) // of every other phase
)

const width, height = 9 * vg.Inch, 7 * vg.Inch

// savePlot draws the runs into a file, whose extension is .svg or .png.
func savePlot(path string, cfg config, runs []*result) error {
	return figure.Save(path, width, height, func(page draw.Canvas) { drawAll(page, cfg, runs) })
}

// drawAll draws the title, the legend, the limits, and the round trips, which share a time axis.
func drawAll(page draw.Canvas, cfg config, runs []*result) {
	panels := []*plot.Plot{limitPanel(cfg, runs), tripPanel(runs)}
	high := page.Max.Y - page.Min.Y
	header := vg.Length(46)
	cut := []vg.Length{high - header, 0.42 * high, 0} // the panels' borders, from the bottom
	var canvases []draw.Canvas
	var left, right vg.Length
	for i, p := range panels {
		c := draw.Crop(page, 0, 0, cut[i+1]+3, cut[i]-high-3)
		canvases = append(canvases, c)
		data := p.DataCanvas(c)
		left, right = max(left, data.Min.X-c.Min.X), max(right, c.Max.X-data.Max.X)
	}
	for i, p := range panels { // so that both panels have the same time axis
		c := canvases[i]
		data := p.DataCanvas(c)
		p.Draw(draw.Crop(c, left-(data.Min.X-c.Min.X), (c.Max.X-data.Max.X)-right, 0, 0))
	}
	drawHeader(draw.Crop(page, left, 0, high-header, 0), runs)
}

// drawHeader writes the title and the common legend.
func drawHeader(c draw.Canvas, runs []*result) {
	drawTitle(c, "Three ways to find how many concurrent calls a server takes (simulated)", runs, "workers, and service time")
}

// drawTitle writes a title, and below it a legend with the runs' laws and what is dashed, if
// anything.
func drawTitle(c draw.Canvas, title string, runs []*result, dashedName string) {
	style := plot.New().Title.TextStyle
	style.Font = font.From(figure.Sans, 13)
	style.XAlign = draw.XLeft
	c.FillText(style, vg.Point{X: c.Min.X, Y: c.Max.Y}, title)

	style.Font = font.From(figure.Sans, 10)
	style.YAlign = draw.YCenter
	at := vg.Point{X: c.Min.X, Y: c.Max.Y - 28}
	entry := func(name string, colour color.Color, dashes []vg.Length) {
		c.StrokeLine2(draw.LineStyle{Color: colour, Width: vg.Points(2), Dashes: dashes}, at.X, at.Y, at.X+16, at.Y)
		c.FillText(style, vg.Point{X: at.X + 22, Y: at.Y}, name)
		at.X += 22 + style.Width(name) + 16
	}
	for i, r := range runs {
		entry(r.law.name, lawColors[i], nil)
	}
	if dashedName != "" {
		entry(dashedName, rightColor, dashed)
	}
}

var dashed = []vg.Length{vg.Points(4), vg.Points(2)}

// newPanel returns an empty panel with the time axis. Every other phase is shaded. Values are
// logarithms.
func newPanel(label string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Min, p.X.Max = 0, total().Seconds()
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Padding = 0
		axis.Label.TextStyle.Font = font.From(figure.Sans, 10)
		axis.Label.Padding = 4
		axis.Tick.Label.Font = font.From(figure.Sans, 9)
	}
	p.Y.Label.Text = label
	p.Add(drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
		for i := 1; i < len(script); i += 2 {
			begin, end := span(i)
			fill(c, shade, x(begin.Seconds()), x(end.Seconds()), c.Min.Y, c.Max.Y)
		}
	}))
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = figure.Grid, figure.Grid
	grid.Horizontal.Width, grid.Vertical.Width = vg.Points(0.4), vg.Points(0.4)
	p.Add(grid)
	return p
}

// limitPanel shows the sum of the clients' limits, and the number of workers.
func limitPanel(cfg config, runs []*result) *plot.Plot {
	p := newPanel("limit, sum of all clients (log scale)")
	p.X.Tick.Marker = seconds{labels: false} // they are in the panel below
	p.Y.Min, p.Y.Max = math.Log10(10), math.Log10(3000)
	p.Y.Tick.Marker = steps{values: []float64{10, 20, 50, 100, 200, 500, 1000, 2000}, name: func(v float64) string { return fmt.Sprint(v) }}
	for i := len(runs) - 1; i >= 0; i-- { // the first one on top
		var points plotter.XYs
		for _, l := range runs[i].looks {
			if len(l.limits) > 0 {
				points = append(points, plotter.XY{X: l.at.Seconds(), Y: math.Log10(float64(max(1, together(l.limits))))})
			}
		}
		addLine(p, points, lawColors[i], 1.4, nil)
	}
	addLine(p, stairs(func(ph phase) float64 { return float64(ph.workers(cfg.workers)) }), rightColor, 1, dashed)

	style := p.X.Label.TextStyle
	style.XAlign, style.YAlign = draw.XCenter, draw.YTop
	p.Add(drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
		for i, phase := range script {
			begin, end := span(i)
			c.FillText(style, vg.Point{X: x((begin + end).Seconds() / 2), Y: c.Max.Y - 4}, phase.name)
		}
	}))
	return p
}

// tripPanel shows the mean round trip of the calls that ended in each twentieth of a second.
func tripPanel(runs []*result) *plot.Plot {
	p := newPanel("mean round trip (log scale)")
	p.X.Label.Text = "virtual time, seconds"
	p.X.Tick.Marker = seconds{labels: true}
	p.Y.Min, p.Y.Max = math.Log10(5), math.Log10(1000)
	p.Y.Tick.Marker = steps{values: []float64{5, 10, 20, 50, 100, 200, 500, 1000}, name: func(v float64) string { return fmt.Sprintf("%g ms", v) }}
	const bin = 50 * time.Millisecond
	for i := len(runs) - 1; i >= 0; i-- {
		took, n := make([]time.Duration, total()/bin), make([]int, total()/bin)
		for _, t := range runs[i].trips {
			took[t.at/bin] += t.took
			n[t.at/bin]++
		}
		var points plotter.XYs
		for b := range n {
			if n[b] > 0 {
				mean := took[b].Seconds() * 1000 / float64(n[b])
				points = append(points, plotter.XY{X: (time.Duration(b)*bin + bin/2).Seconds(), Y: math.Log10(mean)})
			}
		}
		addLine(p, points, lawColors[i], 1.4, nil)
	}
	addLine(p, stairs(func(ph phase) float64 { return ph.pace.Seconds() * 1000 }), rightColor, 1, dashed)
	return p
}

// stairs are the logarithms of a value of the phases.
func stairs(value func(phase) float64) (points plotter.XYs) {
	for i, ph := range script {
		begin, end := span(i)
		y := math.Log10(value(ph))
		points = append(points, plotter.XY{X: begin.Seconds(), Y: y}, plotter.XY{X: end.Seconds(), Y: y})
	}
	return points
}

func addLine(p *plot.Plot, points plotter.XYs, colour color.Color, width float64, dashes []vg.Length) {
	line, err := plotter.NewLine(points)
	if err != nil {
		return // nothing to draw
	}
	line.Color, line.Width, line.Dashes = colour, vg.Points(width), dashes
	p.Add(line)
}

// steps are the ticks of an axis of logarithms.
type steps struct {
	values []float64
	name   func(float64) string
}

func (s steps) Ticks(low, high float64) (ticks []plot.Tick) {
	for _, v := range s.values {
		if y := math.Log10(v); y >= low && y <= high {
			ticks = append(ticks, plot.Tick{Value: y, Label: s.name(v)})
		}
	}
	return ticks
}

// seconds are the ticks of the time axis.
type seconds struct{ labels bool }

func (s seconds) Ticks(low, high float64) (ticks []plot.Tick) {
	for v := math.Ceil(low); v <= high; v++ {
		tick := plot.Tick{Value: v, Label: " "}
		if s.labels {
			tick.Label = strconv.FormatFloat(v, 'g', 4, 64)
		}
		ticks = append(ticks, tick)
	}
	return ticks
}

// A drawing is a function that is a plot.Plotter. Its x and y return the position of a value.
type drawing func(c draw.Canvas, x, y func(float64) vg.Length)

// Plot draws.
func (d drawing) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	d(c, x, y)
}

// fill paints a rectangle.
func fill(c draw.Canvas, colour color.Color, left, right, bottom, top vg.Length) {
	c.SetColor(colour)
	c.Fill(vg.Rectangle{Min: vg.Point{X: left, Y: bottom}, Max: vg.Point{X: right, Y: top}}.Path())
}
