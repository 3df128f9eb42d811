package resilienceconfig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const interval = 2 * time.Second // the default

// A fakeFile is what a watcher reads in virtual time.
type fakeFile struct {
	mu      sync.Mutex
	content string
	err     error
	slow    time.Duration
	reads   int
}

func (f *fakeFile) write(content string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.content, f.err = content, err
}

func (f *fakeFile) read(string) ([]byte, error) {
	f.mu.Lock()
	slow := f.slow
	f.mu.Unlock()
	time.Sleep(slow)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	return []byte(f.content), f.err
}

// A log is what heard was called with: the paths that have changed, or an error.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) heard(d Diff, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := strings.Join(slices.Concat(d.Added, d.Removed, d.Changed), " ")
	if err != nil {
		line = err.Error()
	}
	l.lines = append(l.lines, line)
}

// take returns the lines since the last call.
func (l *log) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// watching runs a watcher of a fake file in a bubble until test returns.
func watching(t *testing.T, test func(t *testing.T, s *Set, f *fakeFile, l *log)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, f, l := New(parsed(t, timeoutFile(1), Options{})), &fakeFile{content: timeoutFile(1)}, &log{}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.watch(ctx, "p.yaml", l.heard, f.read) }()
		synctest.Wait()
		test(t, s, f, l)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

func timeoutFile(seconds int) string {
	return fmt.Sprintf("pipelines: {p: [timeout: {limit: %ds}]}", seconds)
}

const changedTimeout = "pipelines.p[0].timeout"

// after waits n intervals and a bit, and checks what was heard.
func after(t *testing.T, n int, l *log, want ...string) {
	t.Helper()
	time.Sleep(time.Duration(n)*interval + interval/2)
	synctest.Wait()
	if got := l.take(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	time.Sleep(interval / 2)
	synctest.Wait()
}

func TestWatchAppliesContentThatIsSameTwice(t *testing.T) { // rule 15
	watching(t, func(t *testing.T, s *Set, f *fakeFile, l *log) {
		after(t, 5, l)
		f.mu.Lock()
		reads := f.reads
		f.mu.Unlock()
		if reads != 7 { // at once, and every interval
			t.Errorf("got %d reads, want 7", reads)
		}
		f.write(timeoutFile(2), nil)
		after(t, 1, l)
		after(t, 0, l, changedTimeout)
		after(t, 5, l)
		if got := string(s.Effective()); !strings.Contains(got, "limit: 2s") {
			t.Errorf("got\n%s\nwant the limit of 2s", got)
		}
		for i := range 6 { // a file that is being written
			f.write(timeoutFile(3)+strings.Repeat("#", i), nil)
			after(t, 0, l)
		}
		after(t, 1, l, changedTimeout)
		f.write("# only a comment\n"+timeoutFile(3), nil)
		after(t, 5, l)
	})
}

func TestWatchSeesChangeSinceLoad(t *testing.T) { // rule 15
	synctest.Test(t, func(t *testing.T) {
		s, f, l := New(parsed(t, timeoutFile(1), Options{})), &fakeFile{content: timeoutFile(2)}, &log{}
		ctx, cancel := context.WithTimeout(t.Context(), interval+interval/2)
		defer cancel()
		if err := s.watch(ctx, "p.yaml", l.heard, f.read); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want context.DeadlineExceeded", err)
		}
		if got, want := l.take(), []string{changedTimeout}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestWatchReportsErrorOnceUntilAnotherOrGoodContent(t *testing.T) { // rule 15
	watching(t, func(t *testing.T, s *Set, f *fakeFile, l *log) {
		const broken = "p.yaml:1:34: pipelines.p[0].timeout.limit is 5 without a unit, must be a time such as 400ms or 1h30m: write 5s or 5ms"
		const missing = "resilienceconfig: p.yaml: open: file does not exist"
		five := strings.Replace(timeoutFile(5), "5s", "5", 1)
		absent := fmt.Errorf("open: %w", fs.ErrNotExist)
		before := string(s.Effective())

		f.write("", absent) // for one reading, as while an editor renames
		after(t, 0, l)
		f.write(timeoutFile(1), nil)
		after(t, 2, l)

		f.write(five, nil)
		after(t, 9, l, broken)
		f.write("", absent)
		after(t, 9, l, missing)
		f.write(five, nil) // another error came between
		after(t, 9, l, broken)
		f.write(timeoutFile(1), nil) // good
		after(t, 2, l)
		f.write(five, nil)
		after(t, 9, l, broken)
		f.write(five+" # the same error in another content", nil)
		after(t, 9, l)
		if got := string(s.Effective()); got != before {
			t.Errorf("got\n%s\nwant no change", got)
		}
		f.write(timeoutFile(7), nil)
		after(t, 2, l, changedTimeout)
		f.write(five, nil)
		after(t, 2, l, broken)
		f.write(timeoutFile(8), nil) // good, for two readings
		after(t, 1, l)
		f.write(five, nil)
		after(t, 2, l, changedTimeout, broken)
	})
}

// TestWatchParsesOnlyOtherContent counts how often a variable is asked for.
func TestWatchParsesOnlyOtherContent(t *testing.T) { // rule 15
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		o := Options{Env: func(string) (string, bool) { asked++; return "1s", true }}
		text := inPipeline("timeout:\n        limit: ${X}")
		s, f := New(parsed(t, text, o)), &fakeFile{content: text}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		s.watch(ctx, "p.yaml", nil, f.read)
		f.write(text+"  q: 5\n", nil) // is rejected
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		s.watch(ctx, "p.yaml", nil, f.read)
		if asked != 2 {
			t.Errorf("got %d times, want 2: by Parse, and for the content that is rejected", asked)
		}
	})
}

func TestWatchAppliesFileAgainAfterUpdate(t *testing.T) { // rule 15
	watching(t, func(t *testing.T, s *Set, f *fakeFile, l *log) {
		after(t, 2, l)
		s.Update(parsed(t, timeoutFile(9), Options{})) // is not in the file
		after(t, 2, l, changedTimeout)
		if got := string(s.Effective()); !strings.Contains(got, "limit: 1s") {
			t.Errorf("got\n%s\nwant the limit of the file, 1s", got)
		}
	})
}

func TestWatchLetsHeardUseSet(t *testing.T) { // rule 15
	synctest.Test(t, func(t *testing.T) {
		s, f := New(parsed(t, timeoutFile(1), Options{})), &fakeFile{content: timeoutFile(2)}
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		heard := func(d Diff, err error) {
			calls++
			s.Pipeline("p")
			s.Make("p")
			s.Update(parsed(t, timeoutFile(2), Options{}))
			cancel()
		}
		if err := s.watch(ctx, "p.yaml", heard, f.read); !errors.Is(err, context.Canceled) || calls != 1 {
			t.Errorf("got %v and %d calls, want context.Canceled and 1", err, calls)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f.write(timeoutFile(3), nil)
		s.watch(ctx, "p.yaml", nil, f.read) // heard may be nil
		f.write("broken", nil)
		s.watch(ctx, "p.yaml", nil, f.read)
		if got := string(s.Effective()); !strings.Contains(got, "limit: 3s") {
			t.Errorf("got\n%s\nwant the limit of 3s", got)
		}
	})
}

// TestWatchEndsWhileFileSystemHangs has a read that never returns within the context, as on NFS.
func TestWatchEndsWhileFileSystemHangs(t *testing.T) { // rule 15
	synctest.Test(t, func(t *testing.T) {
		s, f := New(parsed(t, timeoutFile(1), Options{})), &fakeFile{slow: time.Hour}
		cause := errors.New("shutdown")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		begun := time.Now()
		err := s.watch(ctx, "p.yaml", nil, f.read)
		if !errors.Is(err, cause) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("got %v after %v, want the context's error and cause after 1s", err, time.Since(begun))
		}
		// A file system that is slow makes it late, not wrong.
		f.mu.Lock()
		f.slow = 10 * time.Second
		f.mu.Unlock()
		f.write(timeoutFile(2), nil)
		l := new(log)
		ctx, cancel = context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		s.watch(ctx, "p.yaml", l.heard, f.read)
		if got, want := l.take(), []string{changedTimeout}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		time.Sleep(2 * time.Hour) // until the reads have ended
	})
}

func TestWatchUsesInterval(t *testing.T) { // rule 15
	synctest.Test(t, func(t *testing.T) {
		s, f := New(parsed(t, timeoutFile(1), Options{Interval: time.Minute})), &fakeFile{content: timeoutFile(1)}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer cancel()
		s.watch(ctx, "p.yaml", nil, f.read)
		if f.reads != 11 {
			t.Errorf("got %d reads in ten minutes, want 11", f.reads)
		}
	})
}

// TestWatchFollowsRealFiles changes files as editors, Kubernetes, and operators do.
func TestWatchFollowsRealFiles(t *testing.T) { // rule 15
	dir := t.TempDir()
	path := filepath.Join(dir, "p.yaml")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, content string) {
		t.Helper()
		check(os.MkdirAll(filepath.Dir(path), 0o700))
		check(os.WriteFile(path, []byte(content), 0o600))
	}
	write(path, timeoutFile(1))
	synctest.Test(t, func(t *testing.T) {
		s, err := Load(path, Options{})
		check(err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		l := new(log)
		go func() { ended <- s.Watch(ctx, path, l.heard) }()
		synctest.Wait()

		write(path, timeoutFile(2)) // a plain save
		after(t, 2, l, changedTimeout)
		check(os.Rename(path, path+"~")) // vim
		write(path, timeoutFile(3))
		check(os.Remove(path + "~"))
		after(t, 2, l, changedTimeout)
		write(path+".tmp", timeoutFile(4)) // others
		check(os.Rename(path+".tmp", path))
		after(t, 2, l, changedTimeout)

		info, err := os.Stat(path) // the same size and time, as on a network file system
		check(err)
		write(path, timeoutFile(5))
		check(os.Chtimes(path, info.ModTime(), info.ModTime()))
		after(t, 2, l, changedTimeout)

		check(os.Remove(path)) // missing for a while
		after(t, 9, l, "resilienceconfig: "+path+": stat: no such file or directory")
		write(path, timeoutFile(5))
		after(t, 2, l)
		check(os.Remove(path))
		check(os.Mkdir(path, 0o700))
		after(t, 9, l, "resilienceconfig: "+path+": is a directory, must be a regular file")
		check(os.Remove(path))

		// Kubernetes: p.yaml -> ..data/p.yaml, ..data -> ..1, replaced by a rename.
		link := func(target, at string) {
			t.Helper()
			check(os.Symlink(target, filepath.Join(dir, "tmp")))
			check(os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, at)))
		}
		write(filepath.Join(dir, "..1", "p.yaml"), timeoutFile(6))
		link("..1", "..data")
		link("..data/p.yaml", "p.yaml")
		after(t, 2, l, changedTimeout)
		write(filepath.Join(dir, "..2", "p.yaml"), timeoutFile(7))
		link("..2", "..data")
		check(os.RemoveAll(filepath.Join(dir, "..1")))
		after(t, 2, l, changedTimeout)
		check(os.RemoveAll(filepath.Join(dir, "..2"))) // a dangling link
		after(t, 2, l, "resilienceconfig: "+path+": stat: no such file or directory")

		check(os.Remove(path))
		write(path, timeoutFile(8)[:20]) // half of a file
		after(t, 2, l, path+":1:16: sequence end token ']' not found")
		write(path, timeoutFile(8))
		after(t, 2, l, changedTimeout)
		write(path, strings.Repeat("#", maxSize+1))
		after(t, 2, l, path+":1:1: the file is larger than 1 MiB (1048576 bytes)")

		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}
