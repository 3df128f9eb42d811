package behavior

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

// A defect is one thing that a fake does wrong or doesn't do.
type defect string

// fakeBreaker is a breaker that does all that the questions about breakers ask, apart from its
// defects.
type fakeBreaker struct {
	setup
	defects map[defect]bool

	mu         sync.Mutex
	state      string // "", "open", "half-open"
	generation int    // of the state
	failures   int
	until      time.Time // end of the open time
	probe      time.Time // start of the running probe, if any
	hung       int       // calls that have run for slowCall
}

func (b *fakeBreaker) has(d defect) bool { return b.defects[d] }

func (b *fakeBreaker) enter(state string) {
	b.state, b.failures, b.probe = state, 0, time.Time{}
	b.generation++
}

func (b *fakeBreaker) admit() (generation int, ok bool) {
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

func (b *fakeBreaker) done(generation int, ctx context.Context, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if generation != b.generation && !b.countsStale(err) {
		return
	}
	canceled := errors.Is(err, context.Canceled) || errors.Is(ctx.Err(), context.Canceled) && !b.has("canceled-any")
	switch {
	case canceled && (b.has("canceled is success") && b.state == "" || b.has("canceled probe closes") && b.state == "half-open"):
		err = nil
	case canceled && (b.has("canceled is failure") && b.state == "" || b.has("canceled probe opens") && b.state == "half-open"):
	case canceled:
		if !b.has("canceled probe kept") {
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
		if b.failures++; b.state == "half-open" || b.failures >= b.setup.failures {
			open := b.openFor
			if !b.has("retry-after") {
				open = retryAfter(err, open)
			}
			b.enter("open")
			b.until = time.Now().Add(open)
		}
	}
}

// countsStale reports whether b wrongly counts the result of a call that an earlier state admitted.
func (b *fakeBreaker) countsStale(err error) bool {
	switch b.state {
	case "half-open":
		return b.has("stale failure") && err != nil || b.has("stale success") && err == nil
	default:
		return b.has("stale failures reopen") && err != nil
	}
}

func do[T any](b *fakeBreaker, ctx context.Context, fn call[T]) (T, error) {
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

func fakeBreakerSubject(d defect) Subject {
	share := func(w setup) (guard[int], guard[string]) {
		ints := &fakeBreaker{setup: w, defects: map[defect]bool{d: true}}
		texts := ints
		if d == "share" {
			texts = &fakeBreaker{setup: w}
		}
		return func(ctx context.Context, fn call[int]) (int, error) { return do(ints, ctx, fn) },
			func(ctx context.Context, fn call[string]) (string, error) {
				return do(texts, ctx, fn)
			}
	}
	return Subject{share: share}
}

// fakeRetry returns a retry that does all that the questions about retries ask, apart from its
// defect.
func fakeRetry[T any](w setup, d defect) guard[T] {
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
				if d == "canceled" {
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

func fakeRetrySubject(d defect) Subject {
	share := func(w setup) (guard[int], guard[string]) { return fakeRetry[int](w, ""), fakeRetry[string](w, d) }
	return Subject{make: func(w setup) guard[int] { return fakeRetry[int](w, d) }, share: share}
}

var errRefused = errors.New("refused")

var errLimit = errors.New("limit expired")

// fakeTimeout returns a timeout that does all that the questions about timeouts ask, apart from its
// defect.
func fakeTimeout[T any](w setup, d defect) guard[T] {
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
		if parent.Err() == nil && ctx.Err() != nil && d != "canceled" {
			if d == "last-error" {
				return value, errLimit
			}
			return value, errors.Join(errLimit, err)
		}
		return value, err
	}
}

func fakeTimeoutSubject(d defect) Subject {
	share := func(w setup) (guard[int], guard[string]) { return fakeTimeout[int](w, ""), fakeTimeout[string](w, d) }
	return Subject{make: func(w setup) guard[int] { return fakeTimeout[int](w, d) }, share: share}
}

// fakeClient sends requests and does all that the questions about clients ask, apart from its
// defect.
type fakeClient struct {
	setup
	defect
	base http.RoundTripper
}

func (c *fakeClient) RoundTrip(req *http.Request) (*http.Response, error) {
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
		tooLate := limited && time.Until(deadline) < delay && c.defect != "deadline"
		if tooLate || attempt == c.attempts {
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

// send makes an attempt with its own body. The limit ends when the headers arrive.
func (c *fakeClient) send(req *http.Request) (*http.Response, error) {
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

// last returns what the caller gets of the last attempt.
func (c *fakeClient) last(response *http.Response, err error) (*http.Response, error) {
	switch {
	case err != nil:
		return nil, err
	case c.defect == "response":
		response.Body.Close()
		return nil, errBoom
	case c.defect == "response without body":
		response.Body.Close()
		response.Body = http.NoBody
	}
	return response, nil
}

func (c *fakeClient) drop(body io.ReadCloser) {
	if c.defect != "reuse" {
		io.Copy(io.Discard, body)
	}
	body.Close()
}

func (c *fakeClient) interrupted(end, err error) error {
	switch c.defect {
	case "last-error":
		return end
	case "last-error late":
		time.Sleep(c.delay)
	}
	return err
}

func fakeClientSubject(d defect) Subject {
	return Subject{over: func(base http.RoundTripper, w setup) http.RoundTripper { return &fakeClient{w, d, base} }}
}

func TestQuestionFindsDefect(t *testing.T) {
	for _, test := range []struct {
		kind    Kind
		fake    func(defect) Subject
		defects map[defect]string // with the ID of the question that must find it; others may find it too
	}{
		{Breaker, fakeBreakerSubject, map[defect]string{
			"probes": "probes", "lost": "lost", "stale failures reopen": "stale", "stale failure": "stale", "stale success": "stale",
			"canceled is success": "canceled", "canceled is failure": "canceled", "canceled probe kept": "canceled",
			"canceled probe opens": "canceled", "canceled probe closes": "canceled", "canceled-any": "canceled-any",
			"hung": "hung", "retry-after": "retry-after", "share": "share",
		}},
		{Retry, fakeRetrySubject, map[defect]string{
			"deadline": "deadline", "last-error": "last-error", "last-error late": "last-error", "retry-after": "retry-after",
			"canceled": "canceled", "share": "share",
		}},
		{Timeout, fakeTimeoutSubject, map[defect]string{
			"canceled": "canceled", "last-error": "last-error", "hung": "hung", "share": "share",
		}},
		{Client, fakeClientSubject, map[defect]string{
			"post": "post", "response": "response", "response without body": "response", "deadline": "deadline", "refused": "refused",
			"body": "body", "last-error": "last-error", "last-error late": "last-error", "reuse": "reuse",
		}},
	} {
		t.Run(string(test.kind), func(t *testing.T) {
			found := map[string]bool{}
			for _, id := range test.defects {
				found[id] = true
			}
			for _, question := range Questions(test.kind) {
				if answer := question.Ask(t, test.fake("")); answer.Verdict != Yes {
					t.Errorf("%s: %s, want yes of a fake without defects", question.ID, answer.Verdict)
				}
				if !found[question.ID] {
					t.Errorf("%s: there is no defect for it to find", question.ID)
				}
				for d, id := range test.defects {
					if id != question.ID {
						continue
					}
					if answer := question.Ask(t, test.fake(d)); answer.Verdict != No {
						t.Errorf("%s: %s, want no of a fake with the defect %q", question.ID, answer.Verdict, d)
					}
				}
			}
		})
	}
}

func TestAnswerHasFoundDetail(t *testing.T) {
	for d, want := range map[defect]Answer{
		"":     {Question: "post", Verdict: Yes, Found: "sent 1×"},
		"post": {Question: "post", Verdict: No, Found: "sent 4×"},
	} {
		if answer := sendsPostOnce.Ask(t, fakeClientSubject(d)); answer != want {
			t.Errorf("%+v, want %+v", answer, want)
		}
	}
}

func TestQuestionSkipsSubjectThatCannot(t *testing.T) {
	s := Subject{cannot: map[string]string{"probes": "has no such state"}} // with nothing to run
	if answer := limitsProbes.Ask(t, s); answer.Verdict != Cannot || answer.Why != "has no such state" {
		t.Errorf("%+v", answer)
	}
}

func TestQuestionsHaveSameOrderForEveryKind(t *testing.T) {
	order := []string{"probes", "lost", "stale", "canceled", "canceled-any", "deadline", "last-error", "hung", "retry-after", "share"}
	for _, kind := range []Kind{Breaker, Retry, Timeout, Pipeline} {
		at := -1
		for _, q := range Questions(kind) {
			if next := slices.Index(order, q.ID); next <= at {
				t.Errorf("%s: the question %s is out of order", kind, q.ID)
			} else {
				at = next
			}
		}
	}
}

func TestQuestionsOfPipelineIncludeThoseOfItsPolicies(t *testing.T) {
	asked := map[string]bool{}
	for _, q := range Questions(Pipeline) {
		asked[q.ID] = true
	}
	for _, kind := range []Kind{Breaker, Retry, Timeout} {
		for _, q := range Questions(kind) {
			if !asked[q.ID] {
				t.Errorf("%s: %s isn't asked of pipelines", kind, q.ID)
			}
		}
	}
}

func TestSubjectsStartWithThisLibrary(t *testing.T) {
	for _, kind := range Kinds {
		subjects := Subjects(kind)
		if len(subjects) < 3 || subjects[0].Name != "this library" || len(subjects[0].cannot) > 0 {
			t.Errorf("%s: %d subjects, the first is %q", kind, len(subjects), subjects[0].Name)
		}
		ids := map[string]bool{}
		for _, q := range Questions(kind) {
			ids[q.ID] = true
		}
		for _, s := range subjects {
			if s.Kind != kind {
				t.Errorf("%s: %s is of kind %s", kind, s.Name, s.Kind)
			}
			for id := range s.cannot {
				if !ids[id] {
					t.Errorf("%s: %s can't answer %q, which is not asked", kind, s.Name, id)
				}
			}
		}
	}
}

// A column in which nearly everything is "cannot" is useless to the reader.
func TestSubjectsCanAnswerMostQuestions(t *testing.T) {
	for _, kind := range Kinds {
		for _, s := range Subjects(kind) {
			if most := len(Questions(kind)) / 2; len(s.cannot) > most {
				t.Errorf("%s: %s can't answer %d questions, want at most %d", kind, s.Name, len(s.cannot), most)
			}
		}
	}
}
