// Package figure is what the plots of the examples have in common: their page, their colours, and how they become files.
package figure

import (
	"bytes"
	"image/color"
	"io"
	"os"
	"path/filepath"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The colours tell apart for the colour-blind too, on the page that a figure brings along: white, and of an SVG dark where the reader prefers
// that.
var (
	Orange = RGB(0xd5, 0x5e, 0x00)
	Blue   = RGB(0x00, 0x72, 0xb2)
	Purple = RGB(0xaa, 0x44, 0x99)
	Grid   = RGB(0xd0, 0xd0, 0xd0)
)

// Sans is the typeface of all text.
var Sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

// RGB is an opaque colour.
func RGB(r, g, b uint8) color.Color { return color.RGBA{r, g, b, 0xff} }

// darkStyle turns light and dark about and leaves the hues, where the reader prefers a dark page.
const darkStyle = "<style>@media (prefers-color-scheme: dark) { svg { filter: invert(0.9) hue-rotate(180deg) } }</style>\n"

// Save makes a file of what fill draws on a white page, within its margins: an SVG or a PNG, by the file's name.
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
	if filepath.Ext(path) == ".svg" { // for readers without that font, others of the same widths
		data = bytes.ReplaceAll(data, []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
		data = bytes.Replace(data, []byte("<g "), []byte(darkStyle+"<g "), 1)
	}
	return os.WriteFile(path, data, 0o666)
}
