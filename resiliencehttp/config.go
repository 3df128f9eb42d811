package resiliencehttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/effector-go/resilience"
)

// Config says how a [Transport] sends. Policies must be set. The functions must be safe for concurrent use.
type Config struct {
	// Base sends the requests that the policies admit. Default [http.DefaultTransport].
	Base http.RoundTripper

	// Policies makes the policy for a key, usually a [resilience.Pipeline], once, when the key is first used, and anew after the
	// key fell away. It must be set. If it gives nil for a key, that is the request's error.
	Policies func(key string) resilience.Policy

	// Key says which requests share policies: those that fail together. Default scheme://host:port of the URL, the host
	// in lower case, the scheme's port filled in.
	Key func(*http.Request) string

	// MaxKeys is how many keys are kept: beyond it the key that was idle longest falls away, with its breaker's state. Keys in flight may
	// exceed it. Default 10,000.
	MaxKeys int

	// IdleAfter is how long a key may be idle until it falls away, its breaker's state with it. Judged when a key is looked up. Default 15
	// min.
	IdleAfter time.Duration

	// Failed says which responses are failures. It must leave the body alone. Default [DefaultFailed].
	Failed func(*http.Response) bool

	// Repeatable says which requests may be sent again though they may have had an effect. It is not asked where [AllowRepeat] has
	// the word, or where the body cannot be replayed. Default [DefaultRepeatable].
	Repeatable func(*http.Request) bool

	// StatusErrors has a failed response returned as [*StatusError], and its body dropped, where the caller else would get the response.
	StatusErrors bool

	// DrainLimit is how many bytes are read of a body that is dropped, so that its connection can be used again. Longer bodies
	// are closed, as are those that do not end within 100 ms. Default 64 KiB.
	DrainLimit int64

	// DeadlineHeader is the name of a header that tells the server how many milliseconds are left until the attempt's
	// deadline, the policies' limits included: at least 1. A server that keeps to it ([ServerConfig].DeadlineHeader) ends the response at that time, also a
	// body that the client might still read, although the policies' limits end with the headers. Default none.
	DeadlineHeader string
}

// Validate reports all mistakes of c at once, joined by [errors.Join], each naming the field, its value and the allowed range;
// nil if there is none.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, allowed string) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("resiliencehttp: %s is %v, must be %s", field, value, allowed))
		}
	}
	mistake(c.Policies != nil, "Policies", "nil", "a function")
	mistake(c.MaxKeys >= 0, "MaxKeys", c.MaxKeys, "at least 1, or 0 for 10000")
	mistake(c.IdleAfter >= 0, "IdleAfter", c.IdleAfter, "positive, or 0 for 15m")
	mistake(c.DrainLimit >= 0, "DrainLimit", c.DrainLimit, "at least 1, or 0 for 65536")
	mistake(headerName(c.DeadlineHeader), "DeadlineHeader", fmt.Sprintf("%q", c.DeadlineHeader), "a header name, or empty for none")
	return errors.Join(mistakes...)
}

// withDefaults fills in the defaults of the fields that are zero.
func (c Config) withDefaults() Config {
	if c.Base == nil {
		c.Base = http.DefaultTransport
	}
	if c.Key == nil {
		c.Key = defaultKey
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = 10_000
	}
	if c.IdleAfter == 0 {
		c.IdleAfter = 15 * time.Minute
	}
	if c.Failed == nil {
		c.Failed = DefaultFailed
	}
	if c.Repeatable == nil {
		c.Repeatable = DefaultRepeatable
	}
	if c.DrainLimit == 0 {
		c.DrainLimit = 64 << 10
	}
	return c
}

// headerName reports whether name is empty or a token of RFC 9110.
func headerName(name string) bool {
	return strings.IndexFunc(name, func(r rune) bool {
		alphanumeric := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !alphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}) < 0
}

// DefaultFailed is the Failed of a Config that has none: 408, 429, and 5xx but for 501 and 505, which would be the same
// another time.
func DefaultFailed(response *http.Response) bool {
	code := response.StatusCode
	return code == http.StatusRequestTimeout || code == http.StatusTooManyRequests || serverFailed(code)
}

// serverFailed is the Failed of a ServerConfig that has none.
func serverFailed(code int) bool {
	return 500 <= code && code <= 599 && code != http.StatusNotImplemented && code != http.StatusHTTPVersionNotSupported
}

// DefaultRepeatable is the Repeatable of a Config that has none: GET (also as ""), HEAD, OPTIONS, TRACE, PUT and DELETE, which
// are idempotent (RFC 9110, 9.2.2), and any request that has a header Idempotency-Key or X-Idempotency-Key, even an empty one.
func DefaultRepeatable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	_, key := req.Header["Idempotency-Key"]
	_, xkey := req.Header["X-Idempotency-Key"]
	return key || xkey
}

type repeatKey struct{}

// AllowRepeat gives a ctx for one request that may, or may not, be sent again though it may have had an effect, whatever
// Config.Repeatable says. It does not concern requests that Base sends in turn. A body that cannot be replayed is not sent again
// all the same.
func AllowRepeat(ctx context.Context, repeatable bool) context.Context {
	return context.WithValue(ctx, repeatKey{}, repeatable)
}
