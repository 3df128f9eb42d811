// Package figure draws the plots of the examples: their page, their style, and their files.
package figure

import (
	"bytes"
	"image/color"
	"io"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The colors differ for color-blind readers too. Save draws them on white; an SVG turns dark if the
// reader prefers a dark page.
var (
	Orange = RGB(0xd5, 0x5e, 0x00)
	Blue   = RGB(0x00, 0x72, 0xb2)
	Purple = RGB(0xaa, 0x44, 0x99)
	Green  = RGB(0x00, 0x9e, 0x73)
	Black  = RGB(0x20, 0x20, 0x20)
	Grid   = RGB(0xd0, 0xd0, 0xd0)
)

// Sans is the typeface of all text.
var Sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

// RGB returns an opaque color.
func RGB(r, g, b uint8) color.Color { return color.RGBA{r, g, b, 0xff} }

// darkStyle swaps light and dark, and keeps the hues, if the reader prefers a dark page.
const darkStyle = "<style>@media (prefers-color-scheme: dark) { svg { filter: invert(0.9) hue-rotate(180deg) } }</style>\n"

// Save draws on a white page with fill, within its margins, and writes it to a file: an SVG or a
// PNG, depending on the name.
func Save(path string, width, height vg.Length, fill func(page draw.Canvas)) error {
	var canvas interface {
		vg.CanvasSizer
		io.WriterTo
	}
	if filepath.Ext(path) == ".svg" {
		canvas = vgsvg.New(width, height)
	} else {
		canvas = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(150))}
	}
	page := draw.New(canvas)
	page.SetColor(color.White)
	page.Fill(page.Rectangle.Path())
	fill(draw.Crop(page, 10, -16, 8, -10))

	var file bytes.Buffer
	if _, err := canvas.WriteTo(&file); err != nil {
		return err
	}
	data := file.Bytes()
	if filepath.Ext(path) == ".svg" {
		// The other fonts have the same widths, for readers without the first one.
		data = bytes.ReplaceAll(data, []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
		data = bytes.Replace(data, []byte("<g "), []byte(darkStyle+"<g "), 1)
	}
	return os.WriteFile(path, data, 0o666)
}

// NewPanel returns an empty plot with a grid. It has no padding between its axes and its data.
func NewPanel(xLabel, yLabel string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Padding = 0
		axis.Label.TextStyle.Font = font.From(Sans, 10)
		axis.Label.Padding = 4
		axis.Tick.Label.Font = font.From(Sans, 9)
	}
	p.X.Label.Text, p.Y.Label.Text = xLabel, yLabel
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = Grid, Grid
	grid.Horizontal.Width, grid.Vertical.Width = vg.Points(0.4), vg.Points(0.4)
	p.Add(grid)
	return p
}

// A Drawing is a function as a plot.Plotter; x and y return the place of a value.
type Drawing func(c draw.Canvas, x, y func(float64) vg.Length)

// Plot calls the function.
func (d Drawing) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	d(c, x, y)
}

// Fill paints a rectangle, clipped to the canvas on the right.
func Fill(c draw.Canvas, color color.Color, left, right, bottom, top vg.Length) {
	c.SetColor(color)
	c.Fill(vg.Rectangle{Min: vg.Point{X: left, Y: bottom}, Max: vg.Point{X: min(right, c.Max.X), Y: top}}.Path())
}

// A Row is a panel of a stack and its share of the height.
type Row struct {
	Panel *plot.Plot
	Share float64
}

// headerHeight is the room for a title and a legend.
const headerHeight = vg.Length(46)

// Stack draws a title, a legend, and below them the panels, whose x axes begin and end at the same
// place.
func Stack(page draw.Canvas, title string, legend []Entry, rows ...Row) {
	const gap = vg.Length(6)
	room := page.Max.Y - page.Min.Y - headerHeight
	var canvases []draw.Canvas
	var left, right vg.Length
	top := page.Max.Y - headerHeight
	for _, row := range rows {
		bottom := top - vg.Length(row.Share)*room
		c := page
		c.Min.Y, c.Max.Y = bottom+gap/2, top-gap/2
		top = bottom
		data := row.Panel.DataCanvas(c)
		left, right = max(left, data.Min.X-c.Min.X), max(right, c.Max.X-data.Max.X)
		canvases = append(canvases, c)
	}
	for i, row := range rows {
		c := canvases[i]
		data := row.Panel.DataCanvas(c)
		row.Panel.Draw(draw.Crop(c, left-(data.Min.X-c.Min.X), (c.Max.X-data.Max.X)-right, 0, 0))
	}
	drawHeader(draw.Crop(page, left, 0, 0, 0), title, legend)
}

// An Entry explains a color in a legend.
type Entry struct {
	Name  string
	Color color.Color
}

func drawHeader(c draw.Canvas, title string, legend []Entry) {
	style := plot.New().Title.TextStyle
	style.Font = font.From(Sans, 13)
	style.XAlign = draw.XLeft
	c.FillText(style, vg.Point{X: c.Min.X, Y: c.Max.Y}, title)

	style.Font = font.From(Sans, 10)
	style.YAlign = draw.YCenter
	at := vg.Point{X: c.Min.X, Y: c.Max.Y - 28}
	for _, entry := range legend {
		box := draw.GlyphStyle{Color: entry.Color, Radius: 4, Shape: draw.BoxGlyph{}}
		c.DrawGlyph(box, vg.Point{X: at.X + 4, Y: at.Y})
		c.FillText(style, vg.Point{X: at.X + 12, Y: at.Y}, entry.Name)
		at.X += 12 + style.Width(entry.Name) + 16
	}
}
