package resilienceconfig

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/effector-go/resilience"
)

// Watch reads the file at path every Options.Interval until ctx ends, and calls Update with what it
// contains. It then returns [resilience.ContextErr]. It takes the Options of the File that New was
// called with. Use one Watch for each Set.
//
// A content is applied if it was the same twice in a row, so that no half-written file is, and if it
// isn't the one in effect. So a change takes between one and two intervals, and a change between Load
// and Watch is seen. Watch compares contents, not times or sizes, which a quick save or a network file
// system leaves the same; editors that rename files and Kubernetes' symlinks work. A file that is
// invalid, missing, or not a regular file changes nothing, and watching continues. Variables are read
// again only if the content has changed.
//
// Heard, if not nil, is called on Watch's goroutine, for each update that changed something, and for
// each error that is found twice in a row, which names the path. The same error isn't reported again
// until another error or good content appears. It is called without a lock, and may use the Set.
func (s *Set) Watch(ctx context.Context, path string, heard func(Diff, error)) error {
	return s.watch(ctx, path, heard, readFile)
}

// A reading is what reading a file returned.
type reading struct {
	sum  [sha256.Size]byte
	data []byte
	err  error
}

// same reports whether two readings have the same content, or the same error.
func (r *reading) same(other *reading) bool {
	if r == nil || other == nil || (r.err == nil) != (other.err == nil) {
		return false
	}
	if r.err != nil {
		return r.err.Error() == other.err.Error()
	}
	return r.sum == other.sum
}

func (s *Set) watch(ctx context.Context, path string, heard func(Diff, error), read func(path string) ([]byte, error)) error {
	interval := s.options.Interval
	if interval == 0 {
		interval = defaultInterval
	}
	w := &watcher{set: s, path: path, heard: heard}
	for {
		// A file system that hangs must not keep Watch from returning.
		result := make(chan *reading, 1)
		go func() {
			data, err := read(path)
			result <- &reading{sha256.Sum256(data), data, err}
		}()
		select {
		case now := <-result:
			w.take(ctx, now)
		case <-ctx.Done():
			return resilience.ContextErr(ctx)
		}
		timer := time.NewTimer(interval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return resilience.ContextErr(ctx)
		}
	}
}

// A watcher decides what follows from the readings of a file.
type watcher struct {
	set   *Set
	path  string
	heard func(Diff, error)

	last     *reading
	rejected *reading // the latest content that was invalid
	reason   error    // of rejected
	reported string   // the error that was reported last, empty after good content
}

func (w *watcher) take(ctx context.Context, now *reading) {
	twice := now.same(w.last)
	w.last = now
	if !twice || ctx.Err() != nil {
		return
	}
	switch {
	case now.err != nil:
		w.report(now.err)
	case now.sum == w.set.state.Load().file.sum:
		w.reported = ""
	case now.same(w.rejected):
		w.report(w.reason)
	default:
		f, err := Parse(now.data, w.set.options)
		if err != nil {
			w.rejected, w.reason = now, err
			w.report(err)
			return
		}
		w.reported = ""
		if d := w.set.Update(f); !d.Empty() && w.heard != nil {
			w.heard(d, nil)
		}
	}
}

// report calls heard with an error, unless it was reported already.
func (w *watcher) report(err error) {
	err = &fileError{w.path, err}
	if text := err.Error(); text != w.reported {
		w.reported = text
		if w.heard != nil {
			w.heard(Diff{}, err)
		}
	}
}
