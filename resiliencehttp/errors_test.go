package resiliencehttp_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencehttp"
)

// TestStatusErrorRetryAfterParsesHeader and ignores invalid values.
func TestStatusErrorRetryAfterParsesHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is the year 2000
		for _, c := range []struct {
			status      int
			after, date string
			want        time.Duration
		}{
			{503, "7", "", 7 * time.Second},
			{408, "7", "", 7 * time.Second},
			{413, "7", "", 7 * time.Second},
			{429, "7", "", 7 * time.Second},
			{500, "7", "", 7 * time.Second}, // whatever the status
			{502, "7", "", 7 * time.Second},
			{504, "7", "", 7 * time.Second},
			{500, "", "", 0},
			{503, "", "", 0},
			{503, "0", "", 0},
			{503, "-7", "", 0},
			{503, "+7", "", 0},
			{503, "7.5", "", 0},
			{503, " 7 ", "", 7 * time.Second},
			{503, "soon", "", 0},
			{503, "31536000", "", 365 * 24 * time.Hour},
			{503, "9223372036", "", 9223372036 * time.Second},
			{503, "9223372037", "", 0},
			{503, "99999999999999999999", "", 0},
			{503, "Sat, 01 Jan 2000 00:01:00 GMT", "", time.Minute},
			{503, "Fri, 31 Dec 1999 23:59:00 GMT", "", 0},
			{503, "Sat, 01 Jan 2000 00:01:00 GMT", "Sat, 01 Jan 2000 00:00:30 GMT", 30 * time.Second},
			{503, "Mon, 01 Jan 1990 00:01:00 GMT", "Mon, 01 Jan 1990 00:00:00 GMT", time.Minute},
			{503, "Sat, 01 Jan 2000 00:01:00 GMT", "nonsense", time.Minute},
			{503, "Fri, 31 Dec 9999 00:00:00 GMT", "", 0},
			{503, "Saturday, 01-Jan-00 00:01:00 GMT", "", time.Minute},
		} {
			err := &resiliencehttp.StatusError{StatusCode: c.status, Header: http.Header{"Retry-After": {c.after}, "Date": {c.date}}}
			if got := err.RetryAfter(); got != c.want {
				t.Errorf("got %d, Retry-After: %s, Date: %s: %v, want %v", c.status, c.after, c.date, got, c.want)
			}
			if got, ok := resilience.RetryAfter(err); ok != (c.want > 0) || got != c.want {
				t.Errorf("%s: RetryAfter is %v, %v", c.after, got, ok)
			}
		}
	})
}

func TestStatusErrorText(t *testing.T) {
	for want, err := range map[string]*resiliencehttp.StatusError{
		"resiliencehttp: GET http://a/b: 503 Service Unavailable": {StatusCode: 503, Method: "GET", URL: "http://a/b"},
		"resiliencehttp: PUT http://a/b: 599 What":                {StatusCode: 599, Status: "599 What", Method: "PUT", URL: "http://a/b"},
		"resiliencehttp: GET http://a/b: 599":                     {StatusCode: 599, Method: "GET", URL: "http://a/b"},
	} {
		if err.Error() != want {
			t.Errorf("got %s, want %s", err.Error(), want)
		}
	}
}

func TestDefaultFailedStatuses(t *testing.T) {
	failed := map[int]bool{408: true, 429: true, 500: true, 502: true, 503: true, 504: true, 506: true, 599: true}
	for status := 100; status < 700; status++ {
		want := failed[status] || status >= 507 && status <= 599
		if got := resiliencehttp.DefaultFailed(&http.Response{StatusCode: status}); got != want {
			t.Errorf("%d: got %v", status, got)
		}
	}
}

// TestConfigValidateReportsAllErrors, each with its field, value, and range.
func TestConfigValidateReportsAllErrors(t *testing.T) {
	err := resiliencehttp.Config{MaxKeys: -1, IdleAfter: -time.Second, DrainLimit: -2, DeadlineHeader: "a b"}.Validate()
	want := `resiliencehttp: Policies is nil, must be a function
resiliencehttp: MaxKeys is -1, must be at least 1, or 0 for 10000
resiliencehttp: IdleAfter is -1s, must be positive, or 0 for 15m
resiliencehttp: DrainLimit is -2, must be at least 1, or 0 for 65536
resiliencehttp: DeadlineHeader is "a b", must be a header name, or empty for none`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	func() {
		defer func() {
			if value := recover(); value != want {
				t.Errorf("got panic %v", value)
			}
		}()
		resiliencehttp.NewTransport(resiliencehttp.Config{MaxKeys: -1, IdleAfter: -time.Second, DrainLimit: -2, DeadlineHeader: "a b"})
	}()
	if err := (resiliencehttp.Config{Policies: func(string) resilience.Policy { return nil }, DeadlineHeader: "X-Time-Left"}).Validate(); err != nil {
		t.Error(err)
	}
}

// FuzzStatusErrorRetryAfter: whatever a server sends, the time isn't negative.
func FuzzStatusErrorRetryAfter(f *testing.F) {
	for _, after := range []string{"7", "-7", "9223372037", "Fri, 31 Dec 9999 00:00:00 GMT", "soon"} {
		f.Add(500, after, "Sat, 01 Jan 2000 00:00:00 GMT")
	}
	f.Fuzz(func(t *testing.T, status int, after, date string) {
		err := &resiliencehttp.StatusError{StatusCode: status, Header: http.Header{"Retry-After": {after}, "Date": {date}}}
		if got := err.RetryAfter(); got < 0 {
			t.Errorf("got %v", got)
		}
	})
}
