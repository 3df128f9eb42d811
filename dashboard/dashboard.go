// Package dashboard serves a live page of what the pipelines of one process do: what is broken, since
// when, why, and what can be done.
//
//	obs := observe.New(observe.Config{})
//	payments := obs.Pipeline("payments", retry.New(retry.Config{}), breaker.New(breaker.Config{Name: "payments"}))
//
//	d := dashboard.New(obs, dashboard.Config{})
//	defer d.Close()
//	mux.Handle("/debug/resilience/", d)
//
// The page shows error texts and configurations, without the parts of URLs that are often secret.
// Mount it where only operators can reach it, or set [Config.Authorize]. By default, nobody can
// control breakers: see [Config.Control].
//
// A Dashboard takes samples of an [observe.Observer] as long as it is open, so that its charts show
// the time before somebody looks at them. A sample of 200 pipelines takes about 20 ms of CPU time
// (BenchmarkSample). Without a viewer, there is one in 10 s. However many viewers there are, samples
// take at most a twentieth of one processor; they become rarer if they would take more.
package dashboard

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

const (
	attention  = time.Minute      // how long after a request somebody counts as a viewer
	unattended = 10 * time.Second // between samples without a viewer
	costShare  = 20               // samples take at most 1/costShare of the time
	credit     = 5 * time.Second  // of time that samples did not use, so that a single slow one delays none
)

// A Dashboard is an http.Handler that serves the page of an observer. Create it with [New]. It is safe
// for concurrent use. It has no goroutine, only a timer, which keeps it alive until [Dashboard.Close].
type Dashboard struct {
	observer source
	config   Config
	instance string // differs for each Dashboard
	token    string // that a POST needs unless the browser says that it has the same origin
	host     string
	started  time.Time

	// sampling is a lock: it has room for one value, which the goroutine that takes a sample puts
	// there. It is a channel so that a request waits for it only as long as its client does. It is
	// acquired before mu.
	sampling chan struct{}
	recorder *recorder // written with both sampling and mu held, so that either is enough for reading

	mu       sync.Mutex // guards the following; not held while policies report
	closed   bool
	timer    *time.Timer
	viewed   time.Time  // the latest request
	sampled  time.Time  // when the latest sample began, successful or not
	paid     time.Time  // no sample begins earlier, because samples have taken too much time
	failed   bool       // the latest sample
	latest   *published // the latest successful sample; nil before the first
	controls uint64     // number of actions; the state must show each of them
	seen     uint64     // controls when the latest sample began
}

// A source is what a Dashboard uses of an *observe.Observer. Tests have others.
type source interface {
	Snapshot() observe.Snapshot
	Live(kind, name string) []resilience.Reporter
}

// A published is a sample as it is served. Only its compressed forms and histories change.
type published struct {
	state *state
	plain []byte // state in JSON

	compress   sync.Once // guards compressed
	compressed []byte

	mu        sync.Mutex          // guards histories; acquired before the Dashboard's mu
	histories map[string]*history // by ID: those that were requested since the sample
}

// A history is the answer to history.json for a pipeline.
type history struct {
	plain, compressed []byte
}

// New returns a Dashboard of what o observes and takes the first sample. It panics if o is nil, and
// with the text of [Config.Validate] if c is invalid. Call Close when it is no longer needed.
func New(o *observe.Observer, c Config) *Dashboard {
	if o == nil {
		panic("dashboard: the Observer is nil")
	}
	return start(o, c)
}

// start is New for any source.
func start(o source, c Config) *Dashboard {
	if err := c.Validate(); err != nil {
		panic(err.Error())
	}
	c = c.withDefaults()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	now := time.Now()
	d := &Dashboard{
		observer: o, config: c, instance: rand.Text(), token: rand.Text(), host: host, started: now,
		sampling: make(chan struct{}, 1),
		recorder: newRecorder(now, c.History, c.Interval),
		viewed:   now.Add(-attention - 1), paid: now,
	}
	d.sampling <- struct{}{}
	d.sample()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer = time.AfterFunc(time.Until(d.next(now)), d.tick)
	return d
}

// Close stops sampling. Later requests are answered with status 503. Close can be called repeatedly;
// it returns nil and does not wait for a sample that is being taken.
func (d *Dashboard) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.timer.Stop()
	return nil
}

// next returns when the next sample is due. It is called with mu held.
func (d *Dashboard) next(now time.Time) time.Time {
	gap := d.config.Interval
	if now.Sub(d.viewed) > attention {
		gap = max(gap, unattended)
	}
	next := d.sampled.Add(gap)
	if next.Before(d.paid) {
		return d.paid
	}
	return next
}

// charge counts the time since start as taken by samples. It is called with mu held.
func (d *Dashboard) charge(start time.Time) {
	now := time.Now()
	if earliest := now.Add(-credit); d.paid.Before(earliest) {
		d.paid = earliest
	}
	d.paid = d.paid.Add(costShare * now.Sub(start))
}

// tick takes the sample that is due, on the timer's goroutine.
func (d *Dashboard) tick() {
	d.sampling <- struct{}{}
	d.mu.Lock()
	now := time.Now()
	due := !d.closed && !now.Before(d.next(now))
	d.mu.Unlock()
	if due {
		d.sample()
	} else {
		<-d.sampling
	}
	d.schedule()
}

// schedule sets the timer to the time of the next sample.
func (d *Dashboard) schedule() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.timer.Reset(max(0, time.Until(d.next(time.Now()))))
	}
}

// current returns the state for a viewer: at most an Interval old, unless samples take too much time.
// The state is nil if no sample has succeeded, and fresh is false if the latest one failed. The error
// is that of a context that ended.
func (d *Dashboard) current(ctx context.Context) (p *published, fresh bool, err error) {
	d.mu.Lock()
	now := time.Now()
	first := now.Sub(d.viewed) > attention
	d.viewed = now
	stale := d.stale(now)
	p, fresh = d.latest, !d.failed
	d.mu.Unlock()
	if stale {
		select {
		case d.sampling <- struct{}{}:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
		d.mu.Lock()
		stale = d.stale(time.Now())
		d.mu.Unlock()
		if stale { // unless another request took one meanwhile
			d.sample()
		} else {
			<-d.sampling
		}
		d.mu.Lock()
		p, fresh = d.latest, !d.failed
		d.mu.Unlock()
	}
	if stale || first {
		d.schedule()
	}
	return p, fresh, nil
}

// stale reports whether a viewer needs a new sample. It is called with mu held.
func (d *Dashboard) stale(now time.Time) bool {
	return !now.Before(d.next(now)) || d.seen != d.controls
}

// sample takes a sample and publishes it. The caller has put a value into sampling, which sample
// removes. A Report that panics, or ends the goroutine, makes the sample fail.
func (d *Dashboard) sample() {
	d.mu.Lock()
	controls := d.controls
	d.mu.Unlock()
	start := time.Now()
	succeeded := false
	defer func() {
		recover()
		d.mu.Lock()
		d.sampled, d.seen, d.failed = start, controls, !succeeded
		d.charge(start)
		d.mu.Unlock()
		<-d.sampling
	}()
	snap := d.observer.Snapshot()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.recorder.add(&snap)
	s.Title, s.Host, s.PID, s.Started = printable(d.config.Title), printable(d.host), os.Getpid(), d.started.UTC()
	s.Instance, s.Build, s.Interval = d.instance, build, d.config.Interval.Seconds()
	plain, err := json.Marshal(s)
	if err != nil { // a time beyond the year 9999
		return
	}
	d.latest = &published{state: s, plain: plain, histories: map[string]*history{}}
	succeeded = true
}

// gzipped returns the compressed state, compressed once.
func (d *Dashboard) gzipped(p *published) []byte {
	p.compress.Do(func() {
		start := time.Now()
		p.compressed = compress(p.plain)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.charge(start)
	})
	return p.compressed
}

// history returns the history of a pipeline, encoded once for each sample, or nil if the ID is
// unknown.
func (d *Dashboard) history(p *published, id string) *history {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.histories[id]; h != nil {
		return h
	}
	start := time.Now()
	j, found := d.historyJSON(id, p.state.At)
	if !found {
		return nil
	}
	plain, err := json.Marshal(j)
	if err != nil { // a time beyond the year 9999
		return nil
	}
	h := &history{plain, compress(plain)}
	p.histories[id] = h
	d.mu.Lock()
	defer d.mu.Unlock()
	d.charge(start)
	return h
}

// historyJSON returns what is recorded of a pipeline as of now.
func (d *Dashboard) historyJSON(id string, now time.Time) (h historyJSON, found bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, memory := range d.recorder.pipelines {
		if memory.id == id {
			return memory.series.json(d.recorder.grid, now), true
		}
	}
	return historyJSON{}, false
}

// writers are reused, because a gzip.Writer has large buffers.
var writers = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is valid
	}
	return w
}}

// compress returns plain in gzip format.
func compress(plain []byte) []byte {
	var b bytes.Buffer
	w := writers.Get().(*gzip.Writer)
	defer writers.Put(w)
	w.Reset(&b)
	w.Write(plain) // a Buffer returns no errors
	w.Close()
	return b.Bytes()
}
