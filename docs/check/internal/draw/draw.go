// Package draw makes SVGs of d2 sources, legible on light and on dark pages.
package draw

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"oss.terrastruct.com/d2/d2graph"
	"oss.terrastruct.com/d2/d2layouts/d2dagrelayout"
	"oss.terrastruct.com/d2/d2lib"
	"oss.terrastruct.com/d2/d2renderers/d2svg"
	"oss.terrastruct.com/d2/d2themes/d2themescatalog"
	"oss.terrastruct.com/d2/lib/log"
	"oss.terrastruct.com/d2/lib/textmeasure"
)

// File draws the source in the file. The same source gives the same bytes. The colours are those of the reader's
// preference, as CSS tells it.
func File(ctx context.Context, path string) ([]byte, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	ruler, err := textmeasure.NewRuler()
	if err != nil {
		return nil, err
	}
	ctx = log.With(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)))
	pad, scale := int64(16), 0.75 // so that the text is as large as the page's
	options := &d2svg.RenderOpts{
		Pad:         &pad,
		Scale:       &scale,
		ThemeID:     &d2themescatalog.NeutralDefault.ID,
		DarkThemeID: &d2themescatalog.DarkMauve.ID,
	}
	diagram, _, err := d2lib.Compile(ctx, string(source), &d2lib.CompileOptions{
		Ruler:          ruler,
		LayoutResolver: func(string) (d2graph.LayoutGraph, error) { return d2dagrelayout.DefaultLayout, nil },
	}, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	svg, err := d2svg.Render(diagram, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return append(svg, '\n'), nil
}
