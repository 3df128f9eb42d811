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

	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/examples/internal/figure"
)

var (
	clientColors = []color.Color{figure.Orange, figure.Blue, figure.Purple}
	phaseColors  = map[health]color.Color{healthy: color.White, slow: figure.RGB(0xff, 0xf6, 0xd6), down: figure.RGB(0xfb, 0xe3, 0xe1)}
	stateColors  = map[breaker.State]color.Color{
		breaker.Closed:   figure.RGB(0x5a, 0xae, 0x61),
		breaker.HalfOpen: figure.RGB(0xf5, 0xc2, 0x11),
		breaker.Open:     figure.RGB(0xb2, 0x18, 0x2b),
	}
)

const width, height = 9 * vg.Inch, 7 * vg.Inch

// savePlot draws the result into a file, as SVG or PNG by its name.
func savePlot(path string, r *result) error {
	return figure.Save(path, width, height, func(page draw.Canvas) { drawAll(page, r) })
}

// drawAll stacks title, legend, requests, breaker and latency, all but the first two over one time axis.
func drawAll(page draw.Canvas, r *result) {
	panels := []*plot.Plot{requestsPanel(r), breakerPanel(r), latencyPanel(r)}
	high := page.Max.Y - page.Min.Y
	header := vg.Length(46)
	cut := []vg.Length{high - header, 0.54 * high, 0.50 * high, 0} // the panels' borders, from the bottom
	var canvases []draw.Canvas
	var left, right vg.Length
	for i, p := range panels {
		c := draw.Crop(page, 0, 0, cut[i+1]+3, cut[i]-high-3)
		canvases = append(canvases, c)
		data := p.DataCanvas(c)
		left, right = max(left, data.Min.X-c.Min.X), max(right, c.Max.X-data.Max.X)
	}
	for i, p := range panels { // so that the same time is at the same place
		c := canvases[i]
		data := p.DataCanvas(c)
		p.Draw(draw.Crop(c, left-(data.Min.X-c.Min.X), (c.Max.X-data.Max.X)-right, 0, 0))
	}
	drawHeader(draw.Crop(page, left, 0, high-header, 0), r)
}

// drawHeader writes the title and the legend, which is one for all panels.
func drawHeader(c draw.Canvas, r *result) {
	style := plot.New().Title.TextStyle
	style.Font = font.From(figure.Sans, 13)
	style.XAlign = draw.XLeft
	c.FillText(style, vg.Point{X: c.Min.X, Y: c.Max.Y}, fmt.Sprintf("An outage seen by %s clients, %d calls/s each", r.cfg.number(), r.cfg.rate))

	style.Font = font.From(figure.Sans, 10)
	style.YAlign = draw.YCenter
	at := vg.Point{X: c.Min.X, Y: c.Max.Y - 28}
	entry := func(name string, glyph draw.GlyphDrawer, colour color.Color) {
		c.DrawGlyph(draw.GlyphStyle{Color: colour, Radius: 4, Shape: glyph}, vg.Point{X: at.X + 4, Y: at.Y})
		c.FillText(style, vg.Point{X: at.X + 12, Y: at.Y}, name)
		at.X += 12 + style.Width(name) + 12
	}
	for i, client := range r.clients {
		entry(client.name, draw.BoxGlyph{}, clientColors[i])
	}
	entry("answer", draw.CircleGlyph{}, color.Black)
	entry("error", draw.CrossGlyph{}, color.Black)
	for _, state := range []breaker.State{breaker.Closed, breaker.HalfOpen, breaker.Open} {
		entry("breaker "+state.String(), draw.BoxGlyph{}, stateColors[state])
	}
}

// newPanel gives an empty panel over the time axis, its phases shaded.
func newPanel(r *result, label string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Min, p.X.Max = 0, total(r.cfg.unit).Seconds()
	p.X.Tick.Marker = tenths{labels: true}
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Padding = 0
		axis.Label.TextStyle.Font = font.From(figure.Sans, 10)
		axis.Label.Padding = 4
		axis.Tick.Label.Font = font.From(figure.Sans, 9)
	}
	p.Y.Label.Text = label
	p.Add(drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
		for i, phase := range script {
			begin, end := span(i, r.cfg.unit)
			fill(c, phaseColors[phase.health], x(begin.Seconds()), x(end.Seconds()), c.Min.Y, c.Max.Y)
		}
	}))
	return p
}

// requestsPanel shows how many requests reached each server.
func requestsPanel(r *result) *plot.Plot {
	p := newPanel(r, "requests at the server, per second")
	p.X.Tick.Marker = tenths{labels: false} // the panels below have them
	addGrid(p)
	for i, c := range r.clients {
		line, err := plotter.NewLine(perSecond(c.requests, r.end, r.cfg.unit/2))
		if err != nil {
			continue // stopped before there was anything to draw
		}
		line.Color = clientColors[i]
		line.Width = vg.Points(1.8)
		line.StepStyle = plotter.PostStep
		p.Add(line)
	}
	p.Y.Tick.Marker = whole{}
	p.Y.Min = 0
	p.Y.Max = max(p.Y.Max, float64(r.cfg.rate)) * 1.2 // room for the phases' names
	style := p.X.Label.TextStyle
	style.XAlign, style.YAlign = draw.XCenter, draw.YTop
	p.Add(drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
		for i, phase := range script {
			begin, end := span(i, r.cfg.unit)
			c.FillText(style, vg.Point{X: x((begin + end).Seconds() / 2), Y: c.Max.Y - 4}, phase.name)
		}
	}))
	return p
}

// perSecond counts the times in bins, and gives the rate at the beginning of each.
func perSecond(times []time.Duration, end, bin time.Duration) plotter.XYs {
	counts := make([]float64, end/bin) // whole bins only
	for _, at := range times {
		if i := int(at / bin); i < len(counts) {
			counts[i]++
		}
	}
	var rates plotter.XYs
	for i, n := range counts {
		rates = append(rates, plotter.XY{X: (time.Duration(i) * bin).Seconds(), Y: n / bin.Seconds()})
	}
	if n := len(counts); n > 0 { // to draw the last bin to its end
		rates = append(rates, plotter.XY{X: (time.Duration(n) * bin).Seconds(), Y: rates[n-1].Y})
	}
	return rates
}

// breakerPanel is a strip of the states of each breaker, one below the other in the order of the clients.
func breakerPanel(r *result) *plot.Plot {
	p := newPanel(r, "")
	p.HideX()
	p.NominalY("breaker")
	p.Y.Min, p.Y.Max = -1, 1
	guarded := r.clients[1:]
	p.Add(drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
		high := (c.Max.Y - c.Min.Y) / vg.Length(len(guarded))
		for n, client := range guarded {
			top := c.Max.Y - vg.Length(n)*high
			bottom := top - high
			if n+1 < len(guarded) {
				bottom += vg.Points(1.5) // a gap
			}
			for i, change := range client.breaker {
				until := r.end
				if i+1 < len(client.breaker) {
					until = min(until, client.breaker[i+1].at)
				}
				if change.at < until {
					fill(c, stateColors[change.state], x(change.at.Seconds()), x(until.Seconds()), bottom, top)
				}
			}
		}
	}))
	return p
}

// fastest is where the latency axis begins; a faster answer is drawn there.
const fastest = 10 * time.Microsecond

// latencyPanel shows each call at the time it was due.
func latencyPanel(r *result) *plot.Plot {
	p := newPanel(r, "time to an answer or error (log scale)")
	p.X.Label.Text = "time since the start, seconds"
	p.Y.Tick.Marker = decades{} // the values are logarithms: with plot.LogScale the long label takes room from the data
	p.Y.Min, p.Y.Max = math.Log10(fastest.Seconds()), math.Log10(10*r.cfg.unit.Seconds())
	addGrid(p)
	for i, client := range r.clients {
		p.Add(drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
			answer := draw.GlyphStyle{Color: clientColors[i], Radius: 1.5, Shape: draw.CircleGlyph{}}
			failed := draw.GlyphStyle{Color: clientColors[i], Radius: 1.8, Shape: draw.CrossGlyph{}}
			for _, call := range client.calls {
				took := min(max(math.Log10(call.took.Seconds()), p.Y.Min), p.Y.Max)
				style := failed
				if call.ok {
					style = answer
				}
				c.DrawGlyph(style, vg.Point{X: x(call.at.Seconds()), Y: y(took)})
			}
		}))
	}
	return p
}

// decades are the ticks of the latency axis, written as durations.
type decades struct{}

func (decades) Ticks(low, high float64) (ticks []plot.Tick) {
	for d := fastest; math.Log10(d.Seconds()) <= high; d *= 10 {
		ticks = append(ticks, plot.Tick{Value: math.Log10(d.Seconds()), Label: d.String()})
	}
	return ticks
}

// whole are the usual ticks, with labels that have no decimals.
type whole struct{}

func (whole) Ticks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i, tick := range ticks {
		if tick.Label != "" {
			ticks[i].Label = strconv.FormatFloat(tick.Value, 'f', -1, 64)
		}
	}
	return ticks
}

// tenths are the ticks of the time axis: eleven, over its whole length.
type tenths struct{ labels bool }

func (t tenths) Ticks(low, high float64) (ticks []plot.Tick) {
	for i := range 11 {
		tick := plot.Tick{Value: low + (high-low)*float64(i)/10, Label: " "}
		if t.labels {
			tick.Label = strconv.FormatFloat(tick.Value, 'g', 4, 64)
		}
		ticks = append(ticks, tick)
	}
	return ticks
}

func addGrid(p *plot.Plot) {
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = figure.Grid, figure.Grid
	grid.Horizontal.Width, grid.Vertical.Width = vg.Points(0.4), vg.Points(0.4)
	p.Add(grid)
}

// A drawing is a function as a plot.Plotter; x and y give the place of a value.
type drawing func(c draw.Canvas, x, y func(float64) vg.Length)

func (d drawing) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	d(c, x, y)
}

// fill paints a rectangle, clipped to the panel.
func fill(c draw.Canvas, colour color.Color, left, right, bottom, top vg.Length) {
	right = min(right, c.Max.X)
	c.SetColor(colour)
	c.Fill(vg.Rectangle{Min: vg.Point{X: left, Y: bottom}, Max: vg.Point{X: right, Y: top}}.Path())
}
