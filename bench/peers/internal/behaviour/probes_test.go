package behaviour

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A defect is one thing that a stand-in does wrong, or leaves undone.
type defect string

// breakerStandIn is a breaker that does all that the probes of breakers ask for, but for its defects.
type breakerStandIn struct {
	want
	defects map[defect]bool

	mu         sync.Mutex
	state      string // "", "open", "half-open"
	generation int    // of the state
	failures   int
	until      time.Time // open
	probe      time.Time // since when one runs, if half-open
	hung       int       // calls that have run for slowCall
}

func (b *breakerStandIn) has(d defect) bool { return b.defects[d] }

func (b *breakerStandIn) enter(state string) {
	b.state, b.failures, b.probe = state, 0, time.Time{}
	b.generation++
}

func (b *breakerStandIn) admit() (generation int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.state == "open" && now.After(b.until) {
		b.enter("half-open")
	}
	switch {
	case b.state == "open", b.hung >= 10 && !b.has("hung"):
		return 0, false
	case b.state == "half-open" && !b.has("probes"):
		if !b.probe.IsZero() && (now.Sub(b.probe) < time.Minute || b.has("lost")) {
			return 0, false
		}
		b.probe = now
	}
	return b.generation, true
}

func (b *breakerStandIn) done(generation int, ctx context.Context, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if generation != b.generation && !b.heedsStale(err) {
		return
	}
	cancelled := errors.Is(err, context.Canceled) || errors.Is(ctx.Err(), context.Canceled) && !b.has("cancelled-any")
	switch {
	case cancelled && (b.has("cancelled is success") && b.state == "" || b.has("cancelled probe closes") && b.state == "half-open"):
		err = nil
	case cancelled && (b.has("cancelled is failure") && b.state == "" || b.has("cancelled probe opens") && b.state == "half-open"):
	case cancelled:
		if !b.has("cancelled probe kept") {
			b.probe = time.Time{}
		}
		return
	}
	switch {
	case err == nil && b.state == "half-open":
		b.enter("")
	case err == nil:
		b.failures = 0
	default:
		if b.failures++; b.state == "half-open" || b.failures >= b.want.failures {
			open := b.openFor
			if !b.has("retry-after") {
				open = retryAfter(err, open)
			}
			b.enter("open")
			b.until = time.Now().Add(open)
		}
	}
}

// heedsStale reports whether it wrongly counts a result of a call that an earlier state admitted.
func (b *breakerStandIn) heedsStale(err error) bool {
	switch b.state {
	case "half-open":
		return b.has("stale failure") && err != nil || b.has("stale success") && err == nil
	default:
		return b.has("stale failures reopen") && err != nil
	}
}

func do[T any](b *breakerStandIn, ctx context.Context, fn call[T]) (T, error) {
	generation, ok := b.admit()
	if !ok {
		var zero T
		return zero, errRefused
	}
	if b.slowCall > 0 {
		defer time.AfterFunc(b.slowCall, func() { b.mu.Lock(); b.hung++; b.mu.Unlock() }).Stop()
	}
	value, err := fn(ctx)
	b.done(generation, ctx, err)
	return value, err
}

func standInBreaker(d defect) Subject {
	share := func(w want) (guard[int], guard[string]) {
		ints := &breakerStandIn{want: w, defects: map[defect]bool{d: true}}
		texts := ints
		if d == "share" {
			texts = &breakerStandIn{want: w}
		}
		return func(ctx context.Context, fn call[int]) (int, error) { return do(ints, ctx, fn) },
			func(ctx context.Context, fn call[string]) (string, error) {
				return do(texts, ctx, fn)
			}
	}
	return Subject{share: share}
}

// retryThrough makes the calls of a retry that does all that the probes of retries ask for, but for its defect.
func retryThrough[T any](w want, d defect) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		for attempt := 1; ; attempt++ {
			value, err := fn(ctx)
			if err == nil || attempt == w.attempts || d == "share" {
				return value, err
			}
			delay := w.delay
			if d != "retry-after" {
				delay = retryAfter(err, delay)
			}
			if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < delay && d != "deadline" {
				return value, err
			}
			if d == "last-error late" {
				time.Sleep(delay)
			}
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				if d == "cancelled" {
					continue
				}
				if d == "last-error" {
					err = ctx.Err()
				}
				return value, err
			}
		}
	}
}

func standInRetry(d defect) Subject {
	share := func(w want) (guard[int], guard[string]) { return retryThrough[int](w, ""), retryThrough[string](w, d) }
	return Subject{make: func(w want) guard[int] { return retryThrough[int](w, d) }, share: share}
}

var errLimit = errors.New("limit passed")

// limitThrough makes the calls of a timeout that does all that the probes of timeouts ask for, but for its defect.
func limitThrough[T any](w want, d defect) guard[T] {
	return func(parent context.Context, fn call[T]) (T, error) {
		ctx, cancel := context.WithTimeout(parent, w.limit)
		defer cancel()
		if d == "share" {
			ctx = parent
		}
		var value T
		var err error
		returned := make(chan struct{})
		go func() { value, err = fn(ctx); close(returned) }()
		select {
		case <-returned:
		case <-time.After(w.limit):
			if w.hangs && d != "hung" {
				return *new(T), errLimit
			}
			<-returned
		}
		if parent.Err() == nil && ctx.Err() != nil && d != "cancelled" {
			if d == "last-error" {
				return value, errLimit
			}
			return value, errors.Join(errLimit, err)
		}
		return value, err
	}
}

func standInTimeout(d defect) Subject {
	share := func(w want) (guard[int], guard[string]) { return limitThrough[int](w, ""), limitThrough[string](w, d) }
	return Subject{make: func(w want) guard[int] { return limitThrough[int](w, d) }, share: share}
}

// standInClient sends requests and does all that the probes of clients ask for, but for its defect.
type standInClient struct {
	want
	defect
	base http.RoundTripper
}

func (c *standInClient) RoundTrip(req *http.Request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		response, err := c.send(req)
		repeatable := req.Method == http.MethodGet || c.defect == "post" || errors.Is(err, syscall.ECONNREFUSED) && c.defect != "refused"
		if err == nil && response.StatusCode < 500 || !repeatable {
			return response, err
		}
		delay := c.delay
		if err == nil && response.Header.Get("Retry-After") != "" {
			delay = 365 * 24 * time.Hour
		}
		deadline, limited := req.Context().Deadline()
		vain := limited && time.Until(deadline) < delay && c.defect != "deadline"
		if vain || attempt == c.attempts {
			return c.last(response, err)
		}
		if response != nil {
			c.drop(response.Body)
		}
		select {
		case <-time.After(delay):
		case <-req.Context().Done():
			return nil, c.interrupted(req.Context().Err(), err)
		}
	}
}

// send makes an attempt with a body of its own, limited to the way to the headers.
func (c *standInClient) send(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	timer := time.AfterFunc(c.limit, cancel)
	copied := req.WithContext(ctx)
	if req.GetBody != nil {
		copied.Body, _ = req.GetBody()
	}
	response, err := c.base.RoundTrip(copied)
	if c.defect != "body" {
		timer.Stop()
	}
	return response, err
}

// last is what becomes of the last attempt's answer.
func (c *standInClient) last(response *http.Response, err error) (*http.Response, error) {
	switch {
	case err != nil:
		return nil, err
	case c.defect == "answer":
		response.Body.Close()
		return nil, errBoom
	case c.defect == "answer without body":
		response.Body.Close()
		response.Body = http.NoBody
	}
	return response, nil
}

func (c *standInClient) drop(body io.ReadCloser) {
	if c.defect != "reuse" {
		io.Copy(io.Discard, body)
	}
	body.Close()
}

func (c *standInClient) interrupted(end, err error) error {
	switch c.defect {
	case "last-error":
		return end
	case "last-error late":
		time.Sleep(c.delay)
	}
	return err
}

func standInClientSubject(d defect) Subject {
	return Subject{over: func(base http.RoundTripper, w want) http.RoundTripper { return &standInClient{w, d, base} }}
}

func TestEachProbeTellsTheOneDefectItAsksFor(t *testing.T) {
	for _, test := range []struct {
		kind    Kind
		standIn func(defect) Subject
		defects map[defect]string // and the ID of the probe that must find it; it may be found by others too
	}{
		{Breaker, standInBreaker, map[defect]string{
			"probes": "probes", "lost": "lost", "stale failures reopen": "stale", "stale failure": "stale", "stale success": "stale",
			"cancelled is success": "cancelled", "cancelled is failure": "cancelled", "cancelled probe kept": "cancelled",
			"cancelled probe opens": "cancelled", "cancelled probe closes": "cancelled", "cancelled-any": "cancelled-any",
			"hung": "hung", "retry-after": "retry-after", "share": "share",
		}},
		{Retry, standInRetry, map[defect]string{
			"deadline": "deadline", "last-error": "last-error", "last-error late": "last-error", "retry-after": "retry-after",
			"cancelled": "cancelled", "share": "share",
		}},
		{Timeout, standInTimeout, map[defect]string{
			"cancelled": "cancelled", "last-error": "last-error", "hung": "hung", "share": "share",
		}},
		{Client, standInClientSubject, map[defect]string{
			"post": "post", "answer": "answer", "answer without body": "answer", "deadline": "deadline", "refused": "refused",
			"body": "body", "last-error": "last-error", "last-error late": "last-error", "reuse": "reuse",
		}},
	} {
		t.Run(string(test.kind), func(t *testing.T) {
			found := map[string]bool{}
			for _, id := range test.defects {
				found[id] = true
			}
			for _, probe := range Probes(test.kind) {
				if _, lacks := test.kind.Lacks(probe.ID); lacks {
					continue
				}
				if answer := probe.Run(t, test.standIn("")); answer.Verdict != Yes {
					t.Errorf("%s: %s of a stand-in without defects", probe.ID, answer.Verdict)
				}
				if !found[probe.ID] {
					t.Errorf("%s: no defect that it must find", probe.ID)
				}
				for d, id := range test.defects {
					if id != probe.ID {
						continue
					}
					if answer := probe.Run(t, test.standIn(d)); answer.Verdict != No {
						t.Errorf("%s: %s of a stand-in with the defect %q", probe.ID, answer.Verdict, d)
					}
				}
			}
		})
	}
}

func TestAnAnswerHasWhatTheProbeFound(t *testing.T) {
	for d, want := range map[defect]Answer{
		"":     {Probe: "post", Verdict: Yes, Found: "sent 1×"},
		"post": {Probe: "post", Verdict: No, Found: "sent 4×"},
	} {
		if answer := sparesPost.Run(t, standInClientSubject(d)); answer != want {
			t.Errorf("%+v, want %+v", answer, want)
		}
	}
}

func TestASubjectThatLacksWhatIsAskedIsNotRun(t *testing.T) {
	s := Subject{lacks: map[string]string{"probes": "has no such state"}} // and nothing to run
	if answer := limitsProbes.Run(t, s); answer.Verdict != Cannot || answer.Why != "has no such state" {
		t.Errorf("%+v", answer)
	}
}

func TestWhatAKindHasNoPlaceForIsNotRun(t *testing.T) {
	answer := sparesVainWait.Run(t, Subject{Kind: Breaker}) // and nothing to run
	if answer.Verdict != Cannot || answer.Why != noAttempts {
		t.Errorf("%+v", answer)
	}
}

func TestTheSameIsAskedOfEveryPolicy(t *testing.T) {
	for _, kind := range []Kind{Breaker, Retry, Timeout, Pipeline} {
		var ids []string
		for _, p := range Probes(kind) {
			if p.ID != "cancelled-any" {
				ids = append(ids, p.ID)
			}
		}
		want := []string{"probes", "lost", "stale", "cancelled", "deadline", "last-error", "hung", "retry-after", "share"}
		if !slices.Equal(ids, want) {
			t.Errorf("%s: %q, want %q", kind, ids, want)
		}
	}
}

func TestEveryKindHasThisLibraryFirst(t *testing.T) {
	for _, kind := range Kinds {
		subjects := Subjects(kind)
		if len(subjects) < 3 || subjects[0].Name != "this library" || len(subjects[0].lacks) > 0 {
			t.Errorf("%s: %d subjects, the first is %q", kind, len(subjects), subjects[0].Name)
		}
		ids := map[string]bool{}
		for _, p := range Probes(kind) {
			ids[p.ID] = true
		}
		for _, s := range subjects {
			if s.Kind != kind {
				t.Errorf("%s: %s is of kind %s", kind, s.Name, s.Kind)
			}
			for id := range s.lacks {
				if !ids[id] {
					t.Errorf("%s: %s lacks %q, which no probe asks", kind, s.Name, id)
				}
			}
		}
	}
}
