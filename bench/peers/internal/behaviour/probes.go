package behaviour

import (
	"context"
	"errors"
	"testing/synctest"
	"time"
)

var (
	errBoom  = errors.New("boom")
	errAside = errors.New("driver: the connection was closed") // what some drivers return when their caller has gone away
)

// A laterError asks not to be called again before a time.
type laterError struct{ after time.Duration }

func (e laterError) Error() string             { return "busy, come back later" }
func (e laterError) RetryAfter() time.Duration { return e.after }

// retryAfter is what a delay function of a user's would make of an error, where a library takes one.
func retryAfter(err error, otherwise time.Duration) time.Duration {
	var later interface{ RetryAfter() time.Duration }
	if errors.As(err, &later) {
		return later.RetryAfter()
	}
	return otherwise
}

// usual is what the probes of breakers set, but for what each is about.
var usual = want{failures: 3, openFor: 10 * time.Second, attempts: 1, limit: 24 * time.Hour}

// lets reports whether g makes a call, whose error is then err.
func lets(g guard[int], err error) bool {
	ran := false
	g(context.Background(), func(context.Context) (int, error) { ran = true; return 1, err })
	return ran
}

// trip has calls fail until g refuses one; false if it never does.
func trip(g guard[int], err error) bool {
	for range 200 {
		if !lets(g, err) {
			return true
		}
	}
	return false
}

// halfOpen trips g and waits until it is due to make probes.
func halfOpen(g guard[int]) bool {
	tripped := trip(g, errBoom)
	time.Sleep(usual.openFor + time.Millisecond)
	synctest.Wait()
	return tripped
}

// A hanging is a call that has been admitted and has not come back.
type hanging chan error

// hang makes n calls through g that hang until they are ended, and tells how many of them g let through.
func hang(g guard[int], n int) (_ hanging, running int) {
	h := make(hanging)
	started := make(chan struct{}, n)
	for range n {
		go g(context.Background(), func(context.Context) (int, error) {
			started <- struct{}{}
			err := <-h
			return 1, err
		})
	}
	synctest.Wait()
	return h, len(started)
}

// end has n of the hanging calls return err.
func (h hanging) end(n int, err error) {
	for range n {
		h <- err
	}
	synctest.Wait()
}

var limitsProbes = Probe{
	ID: "probes", Name: "limit half-open calls",
	Asks: "Ten calls come at once when the open time is over. Yes if one is made, as configured.",
	ask: func(s Subject) bool {
		g := s.guard(usual)
		if !halfOpen(g) {
			return false
		}
		h, running := hang(g, 10)
		h.end(running, nil)
		return running == 1
	},
}

var survivesLostProbe = Probe{
	ID: "lost", Name: "survive a lost probe",
	Asks: "A probe never comes back. Yes if a call is made within the next two hours.",
	ask: func(s Subject) bool {
		g := s.guard(usual)
		if !halfOpen(g) {
			return false
		}
		h, running := hang(g, 1)
		defer func() { h.end(running, nil) }()
		for range 120 {
			time.Sleep(time.Minute)
			if lets(g, nil) {
				return true
			}
		}
		return false
	},
}

var ignoresStale = Probe{
	ID: "stale", Name: "ignore a stale result",
	Asks: "Calls of before the breaker opened come back later: failures once it is closed again, a failure and a success while a " +
		"probe runs. Yes if nothing changes: healthy calls are made, the probe alone decides.",
	ask: func(s Subject) bool {
		return !failuresReopen(s.guard(usual)) && !decidesForProbe(s.guard(usual), errBoom) && !decidesForProbe(s.guard(usual), nil)
	},
}

// failuresReopen reports whether failures of calls of before an opening open the closed breaker anew.
func failuresReopen(g guard[int]) bool {
	old, running := hang(g, 10)
	halfOpen(g)
	for range usual.failures {
		lets(g, nil) // closes
	}
	old.end(running, errBoom)
	return !lets(g, nil)
}

// decidesForProbe reports whether an old call's result comes before that of the probe, which is the other.
func decidesForProbe(g guard[int], result error) bool {
	old, oldRunning := hang(g, 1)
	halfOpen(g)
	probe, running := hang(g, 1)
	old.end(oldRunning, result)
	if result == nil {
		probe.end(running, errBoom)
		return lets(g, nil)
	}
	probe.end(running, nil)
	return !lets(g, nil)
}

var ignoresCancellation = Probe{
	ID: "cancelled", Name: "ignore a caller's cancellation",
	Asks: "Callers cancel their calls, which return context.Canceled. Yes if this neither opens the breaker nor makes up for " +
		"failures, and if a cancelled probe leaves the decision to the next.",
	ask: func(s Subject) bool { return ignores(s, context.Canceled) },
}

var ignoresAnyErrorOfCancelled = Probe{
	ID: "cancelled-any", Name: "... whatever the call returns then",
	Asks: "The same, with calls that return an error of their driver's when their caller has gone away.",
	ask:  func(s Subject) bool { return ignores(s, errAside) },
}

// cancel makes a call whose caller goes away meanwhile, which has it return err.
func cancel(g guard[int], err error) {
	ctx, cancel := context.WithCancel(context.Background())
	g(ctx, func(context.Context) (int, error) { cancel(); return 0, err })
	cancel()
}

func ignores(s Subject, err error) bool {
	g := s.guard(usual)
	for range 200 {
		cancel(g, err)
	}
	if !lets(g, nil) {
		return false // counted as failures
	}

	g = s.guard(usual)
	refused := false
	for range 100 {
		refused = refused || !lets(g, errBoom)
		cancel(g, err)
		cancel(g, err)
	}
	if !refused {
		return false // counted as successes
	}

	if _, ok := s.lacks[limitsProbes.ID]; ok {
		return true
	}
	g = s.guard(usual)
	halfOpen(g)
	cancel(g, err)
	if !lets(g, nil) {
		return false // counted as a failed probe, or still holding its place
	}
	g = s.guard(usual)
	halfOpen(g)
	cancel(g, err)
	lets(g, errBoom)
	return !lets(g, nil) // else counted as a successful probe
}

var opensOnHungCalls = Probe{
	ID: "hung", Name: "open on hung calls",
	Asks: "A hundred calls, ten a second, ignore their ctx and do not come back. Yes if some are refused.",
	ask: func(s Subject) bool {
		w := usual
		w.slowCall, w.limit, w.hangs = time.Second, time.Second, true
		g := s.guard(w)
		ends := make([]hanging, 0, 100)
		for range 100 {
			h, running := hang(g, 1)
			if running == 1 {
				ends = append(ends, h)
			}
			time.Sleep(100 * time.Millisecond)
		}
		for _, h := range ends {
			h.end(1, nil)
		}
		return len(ends) < 100
	},
}

var opensForRetryAfter = Probe{
	ID: "retry-after", Name: "wait out RetryAfter",
	Asks: "The failures ask for 40 s, the open time is 10 s. Yes if a call after 20 s is refused and one after 45 s is made.",
	ask: func(s Subject) bool {
		g := s.guard(usual)
		if !trip(g, laterError{40 * time.Second}) {
			return false
		}
		time.Sleep(20 * time.Second)
		if lets(g, nil) {
			return false
		}
		time.Sleep(25 * time.Second)
		return lets(g, nil)
	},
}

var sharedBreaker = Probe{
	ID: "share", Name: "share one policy between result types",
	Asks: "One breaker guards calls of int and of string. Yes if failures of the ones have the others refused.",
	ask: func(s Subject) bool {
		ints, texts := s.share(usual)
		ran := 0
		text := func(context.Context) (string, error) { ran++; return "value", nil }
		if v, err := texts(context.Background(), text); v != "value" || err != nil {
			return false
		}
		if !trip(ints, errBoom) {
			return false
		}
		ran = 0
		for range 50 {
			texts(context.Background(), text)
		}
		return ran < 50
	},
}

var sparesVainWait = Probe{
	ID: "deadline", Name: "avoid sleeping past the deadline",
	Asks: "The call fails, the wait before the next attempt is 10 s, the caller's deadline is in 1 s. Yes if the error comes at " +
		"once.",
	ask: func(s Subject) bool {
		w := usual
		w.attempts, w.delay = 3, 10*time.Second
		g := s.guard(w)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := g(ctx, func(context.Context) (int, error) { return 0, errBoom })
		return err != nil && time.Since(start) == 0
	},
}

var keepsLastError = Probe{
	ID: "last-error", Name: "keep the last error when cancelled while waiting",
	Asks: "The caller cancels 1 s into a wait of 10 s. Yes if the error comes at once and is, for errors.Is, the last attempt's.",
	ask: func(s Subject) bool {
		w := usual
		w.attempts, w.delay = 3, 10*time.Second
		g := s.guard(w)
		ctx, cancel := context.WithCancel(context.Background())
		start := time.Now()
		time.AfterFunc(time.Second, cancel)
		_, err := g(ctx, func(context.Context) (int, error) { return 0, errBoom })
		return errors.Is(err, errBoom) && time.Since(start) == time.Second
	},
}

var leavesCancelled = Probe{
	ID: "cancelled", Name: "ignore a caller's cancellation",
	Asks: "The caller cancels while the call runs, which then returns an error of its driver's. Yes if it is not made again.",
	ask: func(s Subject) bool {
		w := usual
		w.attempts, w.delay = 3, time.Millisecond
		g := s.guard(w)
		ctx, cancel := context.WithCancel(context.Background())
		made := 0
		_, err := g(ctx, func(context.Context) (int, error) { made++; cancel(); return 0, errAside })
		return err != nil && made == 1
	},
}

var waitsOutRetryAfter = Probe{
	ID: "retry-after", Name: "wait out RetryAfter",
	Asks: "The error asks for 30 s, the usual wait is 10 ms. Yes if the next attempt is made, no earlier than asked for.",
	ask: func(s Subject) bool {
		w := usual
		w.attempts, w.delay = 2, 10*time.Millisecond
		g := s.guard(w)
		start, made := time.Now(), 0
		var second time.Duration
		g(context.Background(), func(context.Context) (int, error) {
			if made++; made == 1 {
				return 0, laterError{30 * time.Second}
			}
			second = time.Since(start)
			return 1, nil
		})
		return made == 2 && second >= 30*time.Second
	},
}

var sharedRetry = Probe{
	ID: "share", Name: "share one policy between result types",
	Asks: "One policy guards calls of int and of string. Yes if both are made again after a failure and yield their values.",
	ask: func(s Subject) bool {
		w := usual
		w.attempts, w.delay = 2, 10*time.Millisecond
		ints, texts := s.share(w)
		n := 0
		number, err1 := ints(context.Background(), func(context.Context) (int, error) {
			if n++; n%2 == 1 {
				return 0, errBoom
			}
			return 7, nil
		})
		text, err2 := texts(context.Background(), func(context.Context) (string, error) {
			if n++; n%2 == 1 {
				return "", errBoom
			}
			return "seven", nil
		})
		return n == 4 && err1 == nil && err2 == nil && number == 7 && text == "seven"
	},
}

// heed is a call that waits for the end of its ctx, or for an hour where nothing ends that.
func heed(ctx context.Context) (int, error) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Hour):
	}
	return 0, ctx.Err()
}

var tellsOwnLimit = Probe{
	ID: "cancelled", Name: "ignore a caller's cancellation",
	Asks: "A call ends by the policy's limit, another by its caller's earlier deadline, a third by its caller's cancellation. " +
		"Yes if the first one's error is told from the others'.",
	ask: func(s Subject) bool {
		own := usual
		own.limit = time.Second
		_, passed := s.guard(own)(context.Background(), heed)

		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, callers := s.guard(usual)(ctx, heed)

		ctx, cancel = context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		_, cancelled := s.guard(usual)(ctx, heed)
		return passed != nil && callers != nil && cancelled != nil &&
			passed.Error() != callers.Error() && passed.Error() != cancelled.Error()
	},
}

var keepsOwnError = Probe{
	ID: "last-error", Name: "keep the call's own error",
	Asks: "The call fails after the limit with an error of its own. Yes if that is found in the error by errors.Is.",
	ask: func(s Subject) bool {
		w := usual
		w.limit = time.Second
		_, err := s.guard(w)(context.Background(), func(ctx context.Context) (int, error) { heed(ctx); return 0, errBoom })
		return errors.Is(err, errBoom)
	},
}

var returnsFromHungCall = Probe{
	ID: "hung", Name: "return from hung calls",
	Asks: "A call ignores its ctx and does not come back. Yes if the caller gets an error at the limit. (This library is set to " +
		"Abandon for this, and then does not wait for the call's own error.)",
	ask: func(s Subject) bool {
		w := usual
		w.limit, w.hangs = time.Second, true
		g := s.guard(w)
		end, returned := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := g(context.Background(), func(context.Context) (int, error) { <-end; return 0, nil })
			returned <- err
		}()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		defer close(end)
		return len(returned) == 1 && <-returned != nil
	},
}

var sharedTimeout = Probe{
	ID: "share", Name: "share one policy between result types",
	Asks: "One policy guards calls of int and of string. Yes if both get a ctx that ends at the limit.",
	ask: func(s Subject) bool {
		w := usual
		w.limit = time.Second
		ints, texts := s.share(w)
		start := time.Now()
		ints(context.Background(), heed)
		texts(context.Background(), func(ctx context.Context) (string, error) { _, err := heed(ctx); return "", err })
		return time.Since(start) == 2*time.Second
	},
}
