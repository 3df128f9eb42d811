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
	clientColors = []color.Color{figure.Orange, figure.Blue, figure.Purple, figure.Green, figure.Black, figure.RGB(0xb0, 0x30, 0x30)}
	clientWidths = []vg.Length{3.2, 1.8, 1.4, 1.4, 1.4, 1.4} // the first is drawn below the others
	troubleColor = figure.RGB(0xff, 0xef, 0xd2)
	stateColors  = map[breaker.State]color.Color{
		breaker.Closed:   figure.RGB(0xd8, 0xd8, 0xd8),
		breaker.HalfOpen: figure.RGB(0xf0, 0xc0, 0x20),
		breaker.Open:     figure.RGB(0x40, 0x40, 0x40),
	}
)

const width, height = 9 * vg.Inch, 6 * vg.Inch

// savePlot draws the result into a file, as SVG or PNG depending on the name.
func savePlot(path string, r *result) error {
	var legend []figure.Entry
	for i, c := range r.clients {
		legend = append(legend, figure.Entry{Name: c.name, Color: clientColors[i]})
	}
	for i, state := range []breaker.State{breaker.Closed, breaker.HalfOpen, breaker.Open} {
		name := state.String()
		if i == 0 {
			name = "breaker: " + name
		}
		legend = append(legend, figure.Entry{Name: name, Color: stateColors[state]})
	}
	return figure.Save(path, width, height, func(page draw.Canvas) {
		figure.Stack(page, headline(r), legend,
			figure.Row{Panel: goodPanel(r), Share: 0.55},
			figure.Row{Panel: breakerPanel(r), Share: 0.06},
			figure.Row{Panel: requestsPanel(r), Share: 0.39},
		)
	})
}

// headline is the message of the plot.
func headline(r *result) string {
	if begin, _ := r.cfg.span(after); r.end <= begin {
		return "Good answers while the server is in trouble"
	}
	clients := r.clients[:2]
	if r.cfg.warmUp > 0 {
		clients = r.clients[:3]
	}
	text := "Good answers after the trouble:"
	for i, c := range clients {
		text += fmt.Sprintf(" %s %.0f%%", c.name, 100*summarize(c, r.cfg, after).good)
		if i < len(clients)-1 {
			text += ","
		} else if took, ok := recovery(c, r.cfg); ok {
			text += ", recovered after " + readable(took)
		}
	}
	return text
}

// newPanel returns an empty panel over the time axis, with the trouble shaded.
func newPanel(r *result, xLabel, yLabel string) *plot.Plot {
	p := figure.NewPanel(xLabel, yLabel)
	p.X.Min, p.X.Max = 0, r.cfg.total().Seconds()
	p.X.Tick.Marker = timeTicks{labels: xLabel != ""}
	p.Y.Tick.Marker = wholeTicks{}
	begin, end := r.cfg.span(trouble)
	p.Add(figure.Drawing(func(c draw.Canvas, x, _ func(float64) vg.Length) {
		figure.Fill(c, troubleColor, x(begin.Seconds()), x(end.Seconds()), c.Min.Y, c.Max.Y)
	}))
	return p
}

// goodPanel shows the good answers of each client.
func goodPanel(r *result) *plot.Plot {
	p := newPanel(r, "", "good answers per second")
	for i, c := range r.clients {
		var times []time.Duration
		for _, call := range c.calls {
			if call.good() {
				times = append(times, call.at)
			}
		}
		addRate(p, i, times, r.end)
	}
	p.Y.Min, p.Y.Max = 0, 1.25*r.cfg.rate()
	style := p.X.Label.TextStyle
	style.XAlign, style.YAlign = draw.XCenter, draw.YTop
	p.Add(figure.Drawing(func(c draw.Canvas, x, _ func(float64) vg.Length) {
		for phase := before; phase < phases; phase++ {
			begin, end := r.cfg.span(phase)
			c.FillText(style, vg.Point{X: x((begin + end).Seconds() / 2), Y: c.Max.Y - 4}, phase.String())
		}
	}))
	return p
}

// requestsPanel shows how many requests reach each server, and how many it can handle.
func requestsPanel(r *result) *plot.Plot {
	p := newPanel(r, "time since the start, seconds", "requests per second")
	for i, c := range r.clients {
		addRate(p, i, c.arrivals, r.end)
	}
	p.Y.Min, p.Y.Max = 0, 1.1*max(p.Y.Max, capacity)
	begin, end := r.cfg.span(trouble)
	can := plotter.XYs{
		{X: 0, Y: capacity}, {X: begin.Seconds(), Y: capacity},
		{X: begin.Seconds(), Y: capacity / slowdown}, {X: end.Seconds(), Y: capacity / slowdown},
		{X: end.Seconds(), Y: capacity}, {X: r.cfg.total().Seconds(), Y: capacity},
	}
	line := plotter.Line{XYs: can, LineStyle: draw.LineStyle{Color: figure.Black, Width: 1, Dashes: []vg.Length{4, 3}}}
	p.Add(&line)
	style := p.X.Label.TextStyle
	style.Font = font.From(figure.Sans, 9)
	style.XAlign, style.YAlign = draw.XRight, draw.YBottom
	p.Add(figure.Drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
		c.FillText(style, vg.Point{X: c.Max.X - 4, Y: y(capacity) + 2}, "what the server can handle")
	}))
	return p
}

// bin is the time over which rates are counted.
const bin = 500 * time.Millisecond

// addRate draws how many of the times fall into a second.
func addRate(p *plot.Plot, client int, times []time.Duration, end time.Duration) {
	counts := make([]float64, end/bin) // whole bins only
	for _, at := range times {
		if i := int(at / bin); i < len(counts) {
			counts[i]++
		}
	}
	if len(counts) == 0 {
		return // stopped before there was anything to draw
	}
	var points plotter.XYs
	for i, n := range counts {
		points = append(points, plotter.XY{X: (time.Duration(i) * bin).Seconds(), Y: n / bin.Seconds()})
	}
	last := points[len(points)-1] // repeated, so that its step has a width
	points = append(points, plotter.XY{X: last.X + bin.Seconds(), Y: last.Y})
	p.Add(&plotter.Line{
		XYs:       points,
		StepStyle: plotter.PostStep,
		LineStyle: draw.LineStyle{Color: clientColors[client], Width: clientWidths[client]},
	})
}

// breakerPanel shows the states of each breaker in a strip, one below the other in the order of the
// clients.
func breakerPanel(r *result) *plot.Plot {
	p := newPanel(r, "", "")
	p.HideX()
	p.NominalY("breaker ")
	p.Y.Min, p.Y.Max = -1, 1
	var breakers [][]change
	for _, c := range r.clients {
		if len(c.states) > 0 {
			breakers = append(breakers, c.states)
		}
	}
	p.Add(figure.Drawing(func(c draw.Canvas, x, _ func(float64) vg.Length) {
		height := (c.Max.Y - c.Min.Y) / vg.Length(len(breakers))
		for n, states := range breakers {
			top := c.Max.Y - vg.Length(n)*height
			bottom := top - height + 1.5 // a gap
			for i, change := range states {
				until := r.end
				if i+1 < len(states) {
					until = min(until, states[i+1].at)
				}
				if change.at < until {
					figure.Fill(c, stateColors[change.state], x(change.at.Seconds()), x(until.Seconds()), bottom, top)
				}
			}
		}
	}))
	return p
}

// wholeTicks are the default ticks with labels that have no decimals.
type wholeTicks struct{}

func (wholeTicks) Ticks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i, tick := range ticks {
		if tick.Label != "" {
			ticks[i].Label = strconv.FormatFloat(tick.Value, 'f', -1, 64)
		}
	}
	return ticks
}

// timeTicks are the ticks of the time axis: every five seconds, or less often on a long axis.
type timeTicks struct{ labels bool }

func (t timeTicks) Ticks(low, high float64) (ticks []plot.Tick) {
	step := 5 * math.Ceil((high-low)/100)
	for at := low; at <= high; at += step {
		tick := plot.Tick{Value: at, Label: " "}
		if t.labels {
			tick.Label = strconv.FormatFloat(at, 'f', -1, 64)
		}
		ticks = append(ticks, tick)
	}
	return ticks
}
