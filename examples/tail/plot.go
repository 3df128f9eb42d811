package main

import (
	"fmt"
	"image/color"
	"math"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/effector-go/resilience/examples/internal/figure"
)

var clientColors = []color.Color{figure.Orange, figure.Blue}

const width, height = 9 * vg.Inch, 6.5 * vg.Inch

// savePlot draws the result into a file, as SVG or PNG depending on the name.
func savePlot(path string, r *result) error {
	var legend []figure.Entry
	for i, c := range r.clients {
		name := c.name
		if len(c.calls) > 0 && c.extra() > 0 {
			name += fmt.Sprintf(", with %.1f%% extra starts", 100*c.extra())
		}
		legend = append(legend, figure.Entry{Name: name, Color: clientColors[i]})
	}
	return figure.Save(path, width, height, func(page draw.Canvas) {
		figure.Stack(page, headline(r), legend,
			figure.Row{Panel: quantilesPanel(r), Share: 0.5},
			figure.Row{Panel: callsPanel(r), Share: 0.5},
		)
	})
}

// headline is the message of the plot.
func headline(r *result) string {
	waits, hedges := r.clients[0].sorted(), r.clients[1].sorted()
	if len(waits) == 0 || len(hedges) == 0 {
		return "One call in a hundred takes a hundred times as long"
	}
	return fmt.Sprintf("99%% of the calls take at most %s, with a hedge %s", readable(quantile(waits, 0.99)), readable(quantile(hedges, 0.99)))
}

const fastest, slowest = time.Millisecond, 10 * time.Second // of the latency axis

// newPanel returns an empty panel whose vertical axis is latency. Its values are logarithms: with
// plot.LogScale, a long label takes room from the data.
func newPanel(xLabel string) *plot.Plot {
	p := figure.NewPanel(xLabel, "time of a call (log scale)")
	p.Y.Min, p.Y.Max = logarithm(fastest), logarithm(slowest)
	var ticks plot.ConstantTicks
	for d := fastest; d <= slowest; d *= 10 {
		ticks = append(ticks, plot.Tick{Value: logarithm(d), Label: d.String()})
	}
	p.Y.Tick.Marker = ticks
	return p
}

func logarithm(d time.Duration) float64 {
	return math.Log10(min(max(d, fastest), slowest).Seconds())
}

// quantilesPanel shows the time that a share of the calls doesn't exceed. Its axis is stretched
// toward the slowest calls: each step leaves out a tenth of the remaining calls.
func quantilesPanel(r *result) *plot.Plot {
	p := newPanel("share of the calls that took no longer")
	p.X.Min, p.X.Max = 0, 4
	p.X.Tick.Marker = plot.ConstantTicks{
		{Value: 0, Label: "0"}, {Value: -math.Log10(0.5), Label: "50%"}, {Value: 1, Label: "90%"}, {Value: 2, Label: "99%"},
		{Value: 3, Label: "99.9%"}, {Value: 4, Label: "99.99%"},
	}
	for i, c := range r.clients {
		took := c.sorted()
		var points plotter.XYs
		for x := p.X.Min; x <= p.X.Max && len(took) > 0; x += 0.01 {
			slower := math.Pow(10, -x)
			if slower*float64(len(took)) < 1 {
				break // less than one call
			}
			points = append(points, plotter.XY{X: x, Y: logarithm(quantile(took, 1-slower))})
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			continue // stopped before there was anything to draw
		}
		line.Color = clientColors[i]
		line.Width = vg.Points(1.8)
		p.Add(line)
	}
	return p
}

// callsPanel shows each call at the time when it was due.
func callsPanel(r *result) *plot.Plot {
	p := newPanel("time since the start, seconds")
	p.X.Min, p.X.Max = 0, r.cfg.length.Seconds()
	for i, client := range r.clients {
		p.Add(figure.Drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
			dot := draw.GlyphStyle{Color: clientColors[i], Radius: 1.2, Shape: draw.CircleGlyph{}}
			for _, call := range thin(client.calls) {
				c.DrawGlyph(dot, vg.Point{X: x(call.at.Seconds()), Y: y(logarithm(call.took))})
			}
		}))
	}
	return p
}

// thin returns all calls that took long, and at most about room of the others.
func thin(calls []call) []call {
	const room = 400
	every := len(calls)/room + 1
	var chosen []call
	for i, c := range calls {
		if c.took > 2*typical || i%every == 0 {
			chosen = append(chosen, c)
		}
	}
	return chosen
}
