package behavior

import (
	"context"
	"errors"
	"testing/synctest"
	"time"
)

var (
	errBoom   = errors.New("boom")
	errDriver = errors.New("driver: the connection was closed") // what some drivers return if the caller has canceled
)

// A laterError asks the caller to wait before the next call.
type laterError struct{ after time.Duration }

func (e laterError) Error() string             { return "busy, come back later" }
func (e laterError) RetryAfter() time.Duration { return e.after }

// retryAfter is the delay function that a user would write for a library that accepts one.
func retryAfter(err error, otherwise time.Duration) time.Duration {
	var later interface{ RetryAfter() time.Duration }
	if errors.As(err, &later) {
		return later.RetryAfter()
	}
	return otherwise
}

// usual is the setup of the questions about breakers, apart from what each one is about.
var usual = setup{failures: 3, openFor: 10 * time.Second, attempts: 1, limit: 24 * time.Hour}

// admits reports whether g makes a call that then returns err.
func admits(g guard[int], err error) bool {
	ran := false
	g(context.Background(), func(context.Context) (int, error) { ran = true; return 1, err })
	return ran
}

// trip lets calls fail until g refuses one. It reports false if g never does.
func trip(g guard[int], err error) bool {
	for range 200 {
		if !admits(g, err) {
			return true
		}
	}
	return false
}

// halfOpen trips g and waits until it should admit probes.
func halfOpen(g guard[int]) bool {
	tripped := trip(g, errBoom)
	time.Sleep(usual.openFor + time.Millisecond)
	synctest.Wait()
	return tripped
}

// A hanging is one or more admitted calls that haven't returned.
type hanging chan error

// hang makes n calls through g that hang until they are ended, and returns how many of them g
// admitted.
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

// end lets n of the hanging calls return err.
func (h hanging) end(n int, err error) {
	for range n {
		h <- err
	}
	synctest.Wait()
}

var limitsProbes = Question{
	ID: "probes", Name: "limits half-open calls",
	Text: "Ten calls arrive together when the open time has passed. Yes if one of them is made, as configured.",
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

var survivesLostProbe = Question{
	ID: "lost", Name: "survives a lost probe",
	Text: "A probe never returns. Yes if another call is made within the next two hours.",
	ask: func(s Subject) bool {
		g := s.guard(usual)
		if !halfOpen(g) {
			return false
		}
		h, running := hang(g, 1)
		defer func() { h.end(running, nil) }()
		for range 120 {
			time.Sleep(time.Minute)
			if admits(g, nil) {
				return true
			}
		}
		return false
	},
}

var ignoresStale = Question{
	ID: "stale", Name: "ignores stale results",
	Text: "Calls from before the breaker opened return late: failures after it has closed again, and a failure and a success " +
		"while a probe runs. Yes if they change nothing: healthy calls are made, and only the probe decides.",
	ask: func(s Subject) bool {
		return !staleFailuresReopen(s.guard(usual)) &&
			!staleResultDecides(s.guard(usual), errBoom) && !staleResultDecides(s.guard(usual), nil)
	},
}

// staleFailuresReopen reports whether failures of calls from before the opening open the closed
// breaker again.
func staleFailuresReopen(g guard[int]) bool {
	old, running := hang(g, 10)
	halfOpen(g)
	for range usual.failures {
		admits(g, nil) // closes
	}
	old.end(running, errBoom)
	return !admits(g, nil)
}

// staleResultDecides reports whether the result of an old call decides instead of the probe, whose
// result is the opposite.
func staleResultDecides(g guard[int], result error) bool {
	old, oldRunning := hang(g, 1)
	halfOpen(g)
	probe, running := hang(g, 1)
	old.end(oldRunning, result)
	if result == nil {
		probe.end(running, errBoom)
		return admits(g, nil)
	}
	probe.end(running, nil)
	return !admits(g, nil)
}

var ignoresCancellation = Question{
	ID: "canceled", Name: "ignores a caller's cancellation",
	Text: "Callers cancel their calls, which return context.Canceled. Yes if this neither opens the breaker nor makes up for " +
		"failures, and if the next probe decides after a canceled one.",
	ask: func(s Subject) bool { return ignores(s, context.Canceled) },
}

var ignoresErrorOfCanceled = Question{
	ID: "canceled-any", Name: "ignores it whatever the error",
	Text: "The same, but the canceled calls return a driver's error.",
	ask:  func(s Subject) bool { return ignores(s, errDriver) },
}

// cancel makes a call whose caller cancels while it runs. The call then returns err.
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
	if !admits(g, nil) {
		return false // counted as failures
	}

	g = s.guard(usual)
	refused := false
	for range 100 {
		refused = refused || !admits(g, errBoom)
		cancel(g, err)
		cancel(g, err)
	}
	if !refused {
		return false // counted as successes
	}

	g = s.guard(usual)
	halfOpen(g)
	cancel(g, err)
	if !admits(g, nil) {
		return false // counted as a failed probe, or the probe's permit was never released
	}
	g = s.guard(usual)
	halfOpen(g)
	cancel(g, err)
	admits(g, errBoom)
	return !admits(g, nil) // otherwise it counted as a successful probe
}

var refusesWhenCallsHang = Question{
	ID: "hung", Name: "refuses calls while others hang",
	Text: "A hundred calls, ten per second, ignore their context and don't return. Yes if some of them are refused.",
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

var opensForRetryAfter = Question{
	ID: "retry-after", Name: "waits as long as RetryAfter asks",
	Text: "The failures ask for 40 s, and the open time is 10 s. Yes if a call after 20 s is refused and one after 45 s is made.",
	ask: func(s Subject) bool {
		g := s.guard(usual)
		if !trip(g, laterError{40 * time.Second}) {
			return false
		}
		time.Sleep(20 * time.Second)
		if admits(g, nil) {
			return false
		}
		time.Sleep(25 * time.Second)
		return admits(g, nil)
	},
}

var sharesBreaker = Question{
	ID: "share", Name: "one policy serves several result types",
	Text: "One breaker guards calls that return int and calls that return string. Yes if failures of the former cause refusals " +
		"of the latter.",
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

var neverSleepsPastDeadline = Question{
	ID: "deadline", Name: "never sleeps past the deadline",
	Text: "The call fails, the next attempt is due in 10 s, and the caller's deadline is in 1 s. Yes if the error is returned " +
		"immediately.",
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

var keepsLastError = Question{
	ID: "last-error", Name: "keeps the last error if canceled during a wait",
	Text: "The caller cancels 1 s into a wait of 10 s. Yes if an error is returned immediately, and errors.Is finds the last " +
		"attempt's error in it.",
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

var stopsWhenCanceled = Question{
	ID: "canceled", Name: "stops when the caller cancels",
	Text: "The caller cancels while the call runs, which then returns a driver's error. Yes if there is no further attempt.",
	ask: func(s Subject) bool {
		w := usual
		w.attempts, w.delay = 3, time.Millisecond
		g := s.guard(w)
		ctx, cancel := context.WithCancel(context.Background())
		made := 0
		_, err := g(ctx, func(context.Context) (int, error) { made++; cancel(); return 0, errDriver })
		return err != nil && made == 1
	},
}

var waitsForRetryAfter = Question{
	ID: "retry-after", Name: "waits as long as RetryAfter asks",
	Text: "The error asks for 30 s, and the configured wait is 10 ms. Yes if there is a second attempt, no earlier than asked.",
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

var sharesRetry = Question{
	ID: "share", Name: "one policy serves several result types",
	Text: "One policy guards calls that return int and calls that return string. Yes if both are repeated after a failure and " +
		"return their values.",
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

// await is a call that waits until its context ends, but for an hour at most.
func await(ctx context.Context) (int, error) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Hour):
	}
	return 0, ctx.Err()
}

var distinguishesOwnLimit = Question{
	ID: "canceled", Name: "distinguishes its limit from the caller's",
	Text: "One call ends because the policy's limit expires, another because its caller's earlier deadline passes, a third " +
		"because its caller cancels. Yes if the error of the first differs from the other two.",
	ask: func(s Subject) bool {
		own := usual
		own.limit = time.Second
		_, expired := s.guard(own)(context.Background(), await)

		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, callers := s.guard(usual)(ctx, await)

		ctx, cancel = context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		_, canceled := s.guard(usual)(ctx, await)
		return expired != nil && callers != nil && canceled != nil &&
			expired.Error() != callers.Error() && expired.Error() != canceled.Error()
	},
}

var keepsOwnError = Question{
	ID: "last-error", Name: "keeps the call's own error",
	Text: "The call fails after the limit with its own error. Yes if errors.Is finds that in the returned error.",
	ask: func(s Subject) bool {
		w := usual
		w.limit = time.Second
		_, err := s.guard(w)(context.Background(), func(ctx context.Context) (int, error) { await(ctx); return 0, errBoom })
		return errors.Is(err, errBoom)
	},
}

var returnsFromHungCall = Question{
	ID: "hung", Name: "returns from hung calls",
	Text: "A call ignores its context and doesn't return. Yes if the caller gets an error when the limit expires. (This library " +
		"is configured with Abandon for this question, and then doesn't wait for the call's own error.)",
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

var sharesTimeout = Question{
	ID: "share", Name: "one policy serves several result types",
	Text: "One policy guards calls that return int and calls that return string. Yes if both get a context that ends at the limit.",
	ask: func(s Subject) bool {
		w := usual
		w.limit = time.Second
		ints, texts := s.share(w)
		start := time.Now()
		ints(context.Background(), await)
		texts(context.Background(), func(ctx context.Context) (string, error) { _, err := await(ctx); return "", err })
		return time.Since(start) == 2*time.Second
	},
}
