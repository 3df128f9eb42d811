package figure

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

func TestSaveWritesSVGAndPNG(t *testing.T) {
	dir := t.TempDir()
	fill := func(page draw.Canvas) {
		panel := NewPanel("x", "y")
		panel.Add(Drawing(func(c draw.Canvas, x, y func(float64) vg.Length) {
			Fill(c, Blue, x(0), x(2), y(0), y(1)) // beyond the right end of the axis
		}))
		Stack(page, "title", []Entry{{"entry", Blue}}, Row{panel, 0.5}, Row{NewPanel("", ""), 0.5})
	}
	for _, name := range []string{"figure.svg", "figure.png"} {
		if err := Save(filepath.Join(dir, name), 4*vg.Inch, 3*vg.Inch, fill); err != nil {
			t.Fatal(err)
		}
	}

	data, err := os.ReadFile(filepath.Join(dir, "figure.png"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(data)); err != nil {
		t.Errorf("figure.png: %v", err)
	}

	data, err = os.ReadFile(filepath.Join(dir, "figure.svg"))
	if err != nil {
		t.Fatal(err)
	}
	elements := map[string]int{}
	for decoder := xml.NewDecoder(bytes.NewReader(data)); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("figure.svg: %v", err)
		}
		if start, ok := token.(xml.StartElement); ok {
			elements[start.Name.Local]++
		}
	}
	if elements["svg"] != 1 || elements["style"] != 1 || elements["path"] == 0 || elements["text"] == 0 {
		t.Errorf("figure.svg has the elements %v, want one svg, one style, and some of path and text", elements)
	}
}

func TestStackAlignsPanels(t *testing.T) {
	wide, narrow := NewPanel("", "label"), NewPanel("", "")
	wide.Y.Max, narrow.Y.Max = 1e6, 1
	var left, right []vg.Length
	for _, panel := range []*plot.Plot{wide, narrow} {
		panel.X.Max = 1
		panel.Add(Drawing(func(c draw.Canvas, x, _ func(float64) vg.Length) {
			left, right = append(left, x(0)), append(right, x(1))
		}))
	}
	err := Save(filepath.Join(t.TempDir(), "figure.svg"), 4*vg.Inch, 3*vg.Inch, func(page draw.Canvas) {
		Stack(page, "", nil, Row{wide, 0.5}, Row{narrow, 0.5})
	})
	if err != nil {
		t.Fatal(err)
	}
	near := func(a, b vg.Length) bool { return a-b < 0.01 && b-a < 0.01 }
	if len(left) != 2 || !near(left[0], left[1]) || !near(right[0], right[1]) {
		t.Errorf("axes begin at %v and end at %v, want the same places", left, right)
	}
}
