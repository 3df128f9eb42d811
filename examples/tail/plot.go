package main

import (
	"fmt"
	"image/color"
	"math"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/effector-go/resilience/examples/internal/figure"
)

var (
	clientColors = []color.Color{figure.Orange, figure.Blue}
)

const width, height = 9 * vg.Inch, 6.5 * vg.Inch

// savePlot draws the result into a file, as SVG or PNG by its name.
func savePlot(path string, r *result) error {
	return figure.Save(path, width, height, func(page draw.Canvas) { drawAll(page, r) })
}

// drawAll stacks title, quantiles and calls.
func drawAll(page draw.Canvas, r *result) {
	high := page.Max.Y - page.Min.Y
	header, middle := vg.Length(44), 0.47*high

	quantiles, calls := quantilesPanel(r), callsPanel(r)
	above, below := draw.Crop(page, 0, 0, middle+6, -header), draw.Crop(page, 0, 0, 0, middle-high-6)
	left, right := margins(quantiles, above)
	left2, right2 := margins(calls, below)
	mostLeft, mostRight := max(left, left2), max(right, right2) // so that both axes begin and end at the same place
	quantiles.Draw(draw.Crop(above, mostLeft-left, right-mostRight, 0, 0))
	calls.Draw(draw.Crop(below, mostLeft-left2, right2-mostRight, 0, 0))
	drawHeader(draw.Crop(page, mostLeft, 0, high-header, 0), r)
}

// margins are what p needs on c beside its data.
func margins(p *plot.Plot, c draw.Canvas) (left, right vg.Length) {
	data := p.DataCanvas(c)
	return data.Min.X - c.Min.X, c.Max.X - data.Max.X
}

// drawHeader writes the title and the legend, which is one for both panels.
func drawHeader(c draw.Canvas, r *result) {
	style := plot.New().Title.TextStyle
	style.Font = font.From(figure.Sans, 13)
	style.XAlign = draw.XLeft
	c.FillText(style, vg.Point{X: c.Min.X, Y: c.Max.Y}, "Calls of which one in a hundred takes a hundred times as long")

	style.Font = font.From(figure.Sans, 10)
	style.YAlign = draw.YCenter
	at := vg.Point{X: c.Min.X, Y: c.Max.Y - 28}
	for i, client := range r.clients {
		name := client.name
		if len(client.calls) > 0 && client.more() > 0 {
			name += fmt.Sprintf(", for %.1f %% more calls", 100*client.more())
		}
		c.DrawGlyph(draw.GlyphStyle{Color: clientColors[i], Radius: 4, Shape: draw.BoxGlyph{}}, vg.Point{X: at.X + 4, Y: at.Y})
		c.FillText(style, vg.Point{X: at.X + 12, Y: at.Y}, name)
		at.X += 12 + style.Width(name) + 16
	}
}

const fastest, slowest = time.Millisecond, 10 * time.Second // of the latency axis

// newPanel gives an empty panel whose vertical axis is latency. Its values are logarithms: with plot.LogScale a long label takes room from the
// data.
func newPanel(label, xLabel string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Padding = 0
		axis.Label.TextStyle.Font = font.From(figure.Sans, 10)
		axis.Label.Padding = 4
		axis.Tick.Label.Font = font.From(figure.Sans, 9)
	}
	p.X.Label.Text, p.Y.Label.Text = xLabel, label
	p.Y.Min, p.Y.Max = logarithm(fastest), logarithm(slowest)
	var ticks plot.ConstantTicks
	for d := fastest; d <= slowest; d *= 10 {
		ticks = append(ticks, plot.Tick{Value: logarithm(d), Label: d.String()})
	}
	p.Y.Tick.Marker = ticks
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = figure.Grid, figure.Grid
	grid.Horizontal.Width, grid.Vertical.Width = vg.Points(0.4), vg.Points(0.4)
	p.Add(grid)
	return p
}

func logarithm(d time.Duration) float64 {
	return math.Log10(min(max(d, fastest), slowest).Seconds())
}

// quantilesPanel shows the time that a share of the calls did not exceed. Its axis is stretched towards the slowest: each step is a tenth of the calls
// beyond the one before.
func quantilesPanel(r *result) *plot.Plot {
	p := newPanel("time of a call (log scale)", "share of the calls that took no longer")
	p.X.Min, p.X.Max = 0, 4
	p.X.Tick.Marker = plot.ConstantTicks{
		{Value: 0, Label: "0"}, {Value: -math.Log10(0.5), Label: "50 %"}, {Value: 1, Label: "90 %"}, {Value: 2, Label: "99 %"},
		{Value: 3, Label: "99.9 %"}, {Value: 4, Label: "99.99 %"},
	}
	for i, c := range r.clients {
		took := c.sorted()
		var points plotter.XYs
		for x := p.X.Min; x <= p.X.Max && len(took) > 0; x += 0.01 {
			beyond := math.Pow(10, -x)
			if beyond*float64(len(took)) < 1 {
				break // less than one call
			}
			points = append(points, plotter.XY{X: x, Y: logarithm(quantile(took, 1-beyond))})
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

// callsPanel shows each call at the time it was due.
func callsPanel(r *result) *plot.Plot {
	p := newPanel("time of a call (log scale)", "time since the start, seconds")
	p.X.Min, p.X.Max = 0, r.cfg.length.Seconds()
	for i, client := range r.clients {
		p.Add(drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
			dot := draw.GlyphStyle{Color: clientColors[i], Radius: 1.2, Shape: draw.CircleGlyph{}}
			for _, call := range thinned(client.calls) {
				c.DrawGlyph(dot, vg.Point{X: x(call.at.Seconds()), Y: y(logarithm(call.took))})
			}
		}))
	}
	return p
}

// thinned are all calls that took long, and of the others as many as there is room for.
func thinned(calls []call) []call {
	const room = 1500
	every := len(calls)/room + 1
	var kept []call
	for i, c := range calls {
		if c.took > 2*typical || i%every == 0 {
			kept = append(kept, c)
		}
	}
	return kept
}

// A drawing is a function as a plot.Plotter; x and y give the place of a value.
type drawing func(c draw.Canvas, x, y func(float64) vg.Length)

func (d drawing) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	d(c, x, y)
}
