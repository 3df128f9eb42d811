// Package progress shows how far an example is.
package progress

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// A Display shows progress: by a bar on a terminal, otherwise by a line whenever the
// label changes or another quarter is done. It isn't safe for concurrent use.
type Display struct {
	w       io.Writer
	total   time.Duration
	bar     *progressbar.ProgressBar // nil if w isn't a terminal
	label   string
	quarter int
}

// New returns a Display for a run of the given length.
func New(w io.Writer, total time.Duration) *Display {
	p := &Display{w: w, total: total, quarter: -1}
	if file, ok := w.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		p.bar = progressbar.NewOptions64(total.Milliseconds(),
			progressbar.OptionSetWriter(w),
			progressbar.OptionSetWidth(40),
			progressbar.OptionThrottle(50*time.Millisecond),
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionSetPredictTime(false),
		)
	}
	return p
}

// Set shows how much of the run is over and what happens now.
func (p *Display) Set(elapsed time.Duration, label string) {
	if p.bar != nil {
		// The bar's only errors are those of writing to the terminal.
		p.bar.Describe(fmt.Sprintf("%-22s", label))
		p.bar.Set64(elapsed.Milliseconds())
		return
	}
	quarter := int(4 * elapsed / p.total)
	if label != p.label || quarter > p.quarter {
		p.label, p.quarter = label, quarter
		fmt.Fprintf(p.w, "%3d%%  %s\n", 100*elapsed/p.total, label)
	}
}

// Done clears the bar.
func (p *Display) Done() {
	if p.bar != nil {
		p.bar.Clear()
	}
}
