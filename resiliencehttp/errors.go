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

// A StatusError represents a failed response. Policies receive it in place of the response. The
// caller receives it only if [Config].StatusErrors is set.
type StatusError struct {
	StatusCode int
	Status     string // for example "503 Service Unavailable"
	Method     string // the request's method, GET if it was empty
	URL        string // the request's URL without user info, query, and fragment
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

// Error returns a text such as "resiliencehttp: GET http://example.com/users: 503 Service
// Unavailable".
func (e *StatusError) Error() string {
	status := e.Status
	if status == "" {
		status = strings.TrimSpace(fmt.Sprintf("%d %s", e.StatusCode, http.StatusText(e.StatusCode)))
	}
	return fmt.Sprintf("resiliencehttp: %s %s: %s", e.Method, e.URL, status)
}

// ErrorType returns the status code, such as "503", the type of the error in logs and metrics.
func (e *StatusError) ErrorType() string { return strconv.Itoa(e.StatusCode) }

// RetryAfter returns how long the server asked the client to wait: the Retry-After header (RFC
// 9110, section 10.2.3), whatever the status. The header holds seconds or a date. A date is compared
// with the response's Date header if it has one, otherwise with the local clock. RetryAfter returns 0
// for a missing or invalid header.
func (e *StatusError) RetryAfter() time.Duration {
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
		return 0 // more than a Duration holds
	}
	return max(0, wait)
}

func digits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// A getBodyError means that an attempt had no body to send.
type getBodyError struct {
	number int
	err    error // of GetBody
	last   error // of the attempt before it; may be nil
}

func (e *getBodyError) Error() string {
	text := fmt.Sprintf("resiliencehttp: GetBody for attempt %d: %v", e.number, e.err)
	if e.last != nil {
		text += fmt.Sprintf("; the attempt before it: %v", e.last)
	}
	return text
}

func (e *getBodyError) Unwrap() []error {
	if e.last == nil {
		return []error{e.err}
	}
	return []error{e.err, e.last}
}

// forCaller returns err as RoundTrip must return it, without the marks of this exchange. net/http
// examines the outermost error by type assertion, so the error returned reports a timeout, or a scheme
// mismatch, that err's tree holds.
func (x *exchange) forCaller(err error) error {
	err = x.unmark(err)
	if _, ok := err.(tls.RecordHeaderError); ok {
		return err
	}
	converted := &callerError{error: err}
	inTree(err, func(err error) bool {
		if t, ok := err.(interface{ Timeout() bool }); ok && t.Timeout() {
			converted.timeout = true
		}
		if schemeMismatch(err) {
			converted.mismatch = true
		}
		return false
	})
	if t, ok := err.(interface{ Timeout() bool }); !converted.mismatch && (!converted.timeout || ok && t.Timeout()) {
		return err
	}
	return converted
}

type callerError struct {
	error
	timeout, mismatch bool
}

func (e *callerError) Unwrap() error { return e.error }
func (e *callerError) Timeout() bool { return e.timeout }

// Is reports whether target is [http.ErrSchemeMismatch], to which http.Client converts the TLS
// error if it is the outermost one.
func (e *callerError) Is(target error) bool { return e.mismatch && target == http.ErrSchemeMismatch }

// inTree calls visit for err and all errors that it wraps, in the order of [errors.Is], until visit
// returns true.
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

// refused reports whether a policy refused the call. Attempts end with StatusErrors and errors of
// Base, so a refusal in the tree came after them.
func refused(err error) bool { return errors.Is(err, resilience.ErrRefused) }
