package main

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"text/tabwriter"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/effector-go/resilience/examples/internal/figure"
)

// A distribution of service times has a mean of 1.
type distribution struct {
	name string
	draw func(*rand.Rand) float64
}

var distributions = []distribution{
	{"within a tenth", withinTenth},
	{"lognormal, σ 0.5", func(r *rand.Rand) float64 { return math.Exp(0.5*r.NormFloat64() - 0.125) }},
	{"exponential", (*rand.Rand).ExpFloat64},
	{"lognormal, σ 1", func(r *rand.Rand) float64 { return math.Exp(r.NormFloat64() - 0.5) }},
	{"5% take 20×", longer(0.05, 20)},
	{"1% take 100×", longer(0.01, 100)},
}

func withinTenth(r *rand.Rand) float64 { return 0.9 + 0.2*r.Float64() }

// longer returns a distribution in which part of the calls take by times as long as the others.
func longer(part, by float64) func(*rand.Rand) float64 {
	unit := 1 / (1 + part*(by-1))
	return func(r *rand.Rand) float64 {
		if r.Float64() < part {
			return by * unit
		}
		return unit
	}
}

// A spread is what happened with one law and one distribution, once the limit was found.
type spread struct {
	law          law
	distribution distribution
	refused      float64 // part of the calls of 100 callers, by a server that takes any number of them
	busy         float64 // part of 50 workers that have 200 callers
	wait         float64 // for one of these, in units of the service time
}

const (
	endless        = 1_000_000 // workers
	healthyCallers = 100
	fewWorkers     = 50
)

// simulateSpreads runs all laws with all distributions.
func simulateSpreads(cfg config) []spread {
	spreads := make([]spread, 0, len(laws)*len(distributions))
	for _, d := range distributions {
		for _, l := range laws {
			spreads = append(spreads, spread{law: l, distribution: d})
		}
	}
	var g sync.WaitGroup
	for i := range spreads {
		s := &spreads[i]
		g.Go(func() {
			s.refused, _, _ = steady(cfg.seed, s.law, s.distribution, endless, healthyCallers)
			_, s.busy, s.wait = steady(cfg.seed, s.law, s.distribution, fewWorkers, 4*fewWorkers)
		})
	}
	g.Wait()
	return spreads
}

// steady simulates a server that doesn't change. A law has a while to find the limit before it is
// judged.
func steady(seed uint64, l law, d distribution, workers, callers int) (refused, busy, wait float64) {
	const settle, measured = 30 * time.Second, 15 * time.Second // 3000 and 1500 service times
	w := &world{random: rand.New(rand.NewPCG(seed, 1))}
	s := &server{world: w, workers: workers, pace: 10 * time.Millisecond, spread: d.draw}
	c := &client{world: w, server: s, limiter: l.make(w.random), result: &result{law: l}}
	for range callers {
		w.after(time.Duration(w.random.Float64()*float64(s.pace)), c.call)
	}
	w.run(settle)
	c.refused, c.result.trips, s.served = 0, nil, 0
	w.run(settle + measured)
	calls := float64(len(c.result.trips))
	var took time.Duration
	for _, t := range c.result.trips {
		took += t.took
	}
	refused = float64(c.refused) / (float64(c.refused) + calls)
	busy = s.served.Seconds() / measured.Seconds() / float64(workers)
	wait = (took - s.served).Seconds() / s.served.Seconds()
	return refused, busy, max(0, wait)
}

// printSpreads prints a row for each distribution and law.
func printSpreads(w io.Writer, spreads []spread) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "call times\tlaw\trefused\tworkers busy\twait\t")
	for i, s := range spreads {
		name := s.distribution.name
		if i%len(laws) > 0 {
			name = ""
		}
		fmt.Fprintf(table, "%s\t%s\t%.1f%%\t%.1f%%\t%.2f\t\n", name, s.law.name, 100*s.refused, 100*s.busy, s.wait)
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `Refused: of the calls of %d callers, by a limit in front of a server that could take all of them.
Workers busy: of %d, with %d callers. Wait: how long their calls wait for a worker, in units of the
mean service time.
`, healthyCallers, fewWorkers, 4*fewWorkers)
	return err
}

// saveSpreads draws the spreads into a file, whose extension is .svg or .png.
func saveSpreads(path string, spreads []spread) error {
	return figure.Save(path, width, 6.2*vg.Inch, func(page draw.Canvas) {
		high := page.Max.Y - page.Min.Y
		panels := []*plot.Plot{
			barPanel("refused, though all could be taken", 1, spreads, percents, func(s spread) float64 { return s.refused }),
			barPanel("wait / service time, 50 workers", 4, spreads, plain, func(s spread) float64 { return s.wait }),
		}
		header := vg.Length(46)
		panels[0].Draw(draw.Crop(page, 0, 0, 0.5*(high-header)+3, -header))
		panels[1].Draw(draw.Crop(page, 0, 0, 0, -0.5*(high-header)-header-3))
		runs := make([]*result, len(laws))
		for i, l := range laws {
			runs[i] = &result{law: l}
		}
		drawTitle(draw.Crop(page, 40, 0, high-header, 0), "Call times that vary: what is refused, and what waits (simulated)", runs, "")
	})
}

func percents(v float64) string { return fmt.Sprintf("%.0f%%", 100*v) }
func plain(v float64) string    { return fmt.Sprintf("%.2f", v) }

// barPanel shows one value of each spread, in groups by distribution, with the values above the
// bars.
func barPanel(label string, most float64, spreads []spread, name func(float64) string, value func(spread) float64) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.Y.Label.Text = label
	p.Y.Min, p.Y.Max = 0, most
	p.X.Min, p.X.Max = -0.5, float64(len(distributions))-0.5
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Padding = 0
		axis.Label.TextStyle.Font = font.From(figure.Sans, 10)
		axis.Tick.Label.Font = font.From(figure.Sans, 9)
	}
	var groups, values []plot.Tick
	for i, d := range distributions {
		groups = append(groups, plot.Tick{Value: float64(i), Label: d.name})
	}
	for v := 0.0; v <= most; v += most / 4 {
		values = append(values, plot.Tick{Value: v, Label: name(v)})
	}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.ConstantTicks(groups), plot.ConstantTicks(values)
	style := p.X.Label.TextStyle
	style.Font = font.From(figure.Sans, 7.5)
	style.XAlign, style.YAlign = draw.XCenter, draw.YBottom
	p.Add(drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
		const bar = 0.26
		for i, s := range spreads {
			left := float64(i/len(laws)) + bar*(float64(i%len(laws))-1.5)
			v := value(s)
			var colour color.Color = lawColors[i%len(laws)]
			fill(c, colour, x(left)+0.5, x(left+bar)-0.5, y(0), y(min(v, most)))
			c.FillText(style, vg.Point{X: x(left + bar/2), Y: y(min(v, most*0.93)) + 1}, shortLabel(v, name))
		}
	}))
	return p
}

// shortLabel returns the text above a bar. Percentages below 10 have a decimal.
func shortLabel(v float64, name func(float64) string) string {
	if text := name(0.5); text == "50%" && v < 0.1 {
		return fmt.Sprintf("%.1f%%", 100*v)
	}
	return name(v)
}
