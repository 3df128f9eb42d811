package resiliencehttp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/effector-go/resilience"
)

// A StatusError is a failed response as an error: what policies hear of it, and with Config.StatusErrors what the caller gets.
type StatusError struct {
	StatusCode int
	Status     string // as 503 Service Unavailable
	Method     string // of the request, GET if it had none
	URL        string // of the request, without user info and query
	Header     http.Header
}

func newStatusError(req *http.Request, response *http.Response) *StatusError {
	bare := *req.URL
	bare.User, bare.RawQuery, bare.ForceQuery, bare.Fragment, bare.RawFragment = nil, "", false, "", ""
	return &StatusError{
		StatusCode: response.StatusCode,
		Status:     response.Status,
		Method:     methodOf(req),
		URL:        bare.String(),
		Header:     response.Header.Clone(),
	}
}

func methodOf(req *http.Request) string {
	if req.Method == "" {
		return http.MethodGet
	}
	return req.Method
}

// Error reads like "resiliencehttp: GET http://example.com/users: 503 Service Unavailable".
func (e *StatusError) Error() string {
	status := e.Status
	if status == "" {
		status = strings.TrimSpace(fmt.Sprintf("%d %s", e.StatusCode, http.StatusText(e.StatusCode)))
	}
	return fmt.Sprintf("resiliencehttp: %s %s: %s", e.Method, e.URL, status)
}

// RetryAfter is the time that the server asked to wait for with the status 408, 413, 429 or 503, in its header Retry-After (RFC 9110,
// 10.2.3): seconds, or a date, which is taken against the response's own Date if it has one. It is 0 if there is none, or if it makes no
// sense.
func (e *StatusError) RetryAfter() time.Duration {
	switch e.StatusCode {
	case http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, http.StatusServiceUnavailable:
	default:
		return 0
	}
	text := strings.Trim(e.Header.Get("Retry-After"), " \t")
	if digits(text) {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds > math.MaxInt64/int64(time.Second) {
			return 0
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now := time.Now()
	if date, err := http.ParseTime(e.Header.Get("Date")); err == nil {
		now = date
	}
	wait := at.Sub(now)
	if wait == math.MaxInt64 {
		return 0 // beyond what a Duration can tell
	}
	return max(0, wait)
}

func digits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// outward gives an error the face that net/http looks for, by type assertion, at what RoundTrip returns.
func (x *exchange) outward(err error) error {
	x.mu.Lock()
	if err == x.unmade { // the mark was for this exchange's policies
		err = x.unmarks
	}
	x.mu.Unlock()
	if _, ok := err.(tls.RecordHeaderError); ok {
		return err
	}
	face := &outwardError{error: err}
	inTree(err, func(err error) bool {
		if t, ok := err.(interface{ Timeout() bool }); ok && t.Timeout() {
			face.timeout = true
		}
		if t, ok := err.(tls.RecordHeaderError); ok && string(t.RecordHeader[:]) == "HTTP/" {
			face.mismatch = true
		}
		return false
	})
	if t, ok := err.(interface{ Timeout() bool }); !face.mismatch && (!face.timeout || ok && t.Timeout()) {
		return err
	}
	return face
}

type outwardError struct {
	error
	timeout, mismatch bool
}

func (e *outwardError) Unwrap() error { return e.error }
func (e *outwardError) Timeout() bool { return e.timeout }

// Is finds what http.Client makes of the error where that is outermost.
func (e *outwardError) Is(target error) bool { return e.mismatch && target == http.ErrSchemeMismatch }

// inTree calls visit for err and all that it wraps, as [errors.Is] goes, until visit returns true.
func inTree(err error, visit func(error) bool) bool {
	if err == nil {
		return false
	}
	if visit(err) {
		return true
	}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		return inTree(err.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, err := range err.Unwrap() {
			if inTree(err, visit) {
				return true
			}
		}
	}
	return false
}

// refused reports whether a policy turned the call away. Attempts end with errors of Base's and with StatusErrors, so the refusal came
// after them.
func refused(err error) bool { return errors.Is(err, resilience.ErrRefused) }
