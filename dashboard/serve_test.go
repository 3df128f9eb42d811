package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"html/template"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
)

func everybody(*http.Request) bool { return true }

// opened returns a dashboard with one pipeline, users, that has one breaker of that name.
func opened(t *testing.T, c Config) (*Dashboard, *breaker.Breaker) {
	obs := observe.New(observe.Config{})
	b := breaker.New(breaker.Config{Name: "users"})
	pipeline := obs.Pipeline("users", retry.New(retry.Config{Name: "users"}), b)
	d := New(obs, c)
	t.Cleanup(func() {
		d.Close()
		runtime.KeepAlive(pipeline)
	})
	return d, b
}

func TestServeHTTPCountsOnlyEndOfPath(t *testing.T) {
	d, _ := opened(t, Config{})
	pipeline, policy := id("pipeline", "users"), id(breakerKind, "users")
	script := assetNames["script.js"]
	for path, want := range map[string]int{
		"/":                  200,
		"/debug/resilience/": 200,
		"/debug/resilience/?pipeline=" + pipeline: 200,
		"/debug/resilience/?policy=" + policy:     200,
		"/debug/?q=us&trouble=1":                  200,
		"/?pipeline=unknown12":                    404,
		"/?policy=" + pipeline:                    404,
		"/?pipeline=":                             404,
		"/state.json":                             200,
		"/debug/resilience/state.json":            200,
		"/history.json?pipeline=" + pipeline:      200,
		"/a/b/history.json?pipeline=" + pipeline:  200,
		"/history.json":                           404,
		"/history.json?pipeline=unknown12":        404,
		"/static/" + script:                       200,
		"/a/static/" + script:                     200,
		"/static/script.js":                       404,
		"/" + script:                              404,
		"/static/page.html":                       404,
		"/static/../page.go":                      404,
		"/debug/resilience":                       404,
		"/xstate.json":                            404,
		"/state.json/x":                           404,
		"/state.jsonx":                            404,
		"/policies/" + policy + "/open":           405,
		"/policies/x/y":                           405,
		"/policies/" + policy:                     404,
	} {
		w := get(d, path)
		if w.Code != want {
			t.Errorf("%s: got status %d, want %d", path, w.Code, want)
		}
		if w.Code == 404 && strings.Contains(path, "?p") && !strings.Contains(path, "json") && !strings.Contains(w.Body.String(), "<h1>Unknown p") {
			t.Errorf("%s: got no page with the status 404", path)
		}
	}
}

// Every mount point that net/http knows leads to a page whose relative links work.
func TestServeHTTPIsMountedAnywhere(t *testing.T) {
	d, _ := opened(t, Config{})
	mux := http.NewServeMux()
	mux.Handle("/plain/", d)
	mux.Handle("/stripped/", http.StripPrefix("/stripped/", d))
	mux.Handle("/noslash/", http.StripPrefix("/noslash", d))
	mux.Handle("/policies/x/", d)
	mux.Handle("/exact", http.StripPrefix("/exact", d))
	mux.Handle("/exact/", http.StripPrefix("/exact", d))
	mux.Handle("GET /a%20b/", http.StripPrefix("/a b", d))
	mux.Handle("/c%20d", http.StripPrefix("/c d", d))
	mux.Handle("/c%20d/", http.StripPrefix("/c d", d))
	inner := httptest.NewServer(mux)
	defer inner.Close()
	// A proxy that removes a prefix, so that the process does not know its public path.
	proxy := httptest.NewServer(http.StripPrefix("/public/x", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequest(r.Method, inner.URL+r.URL.RequestURI(), nil)
		if err != nil {
			t.Error(err)
			return
		}
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		maps.Copy(w.Header(), response.Header)
		w.WriteHeader(response.StatusCode)
		io.Copy(w, response.Body)
	})))
	defer proxy.Close()
	link := regexp.MustCompile(`(?:href|src)="((?:static/|\./)[^"]*)"`)
	for _, start := range []string{
		inner.URL + "/plain/", inner.URL + "/plain", inner.URL + "/stripped/", inner.URL + "/stripped", inner.URL + "/noslash/", inner.URL + "/policies/x/",
		inner.URL + "/exact/", inner.URL + "/exact?q=x", inner.URL + "/a%20b/", inner.URL + "/c%20d?q=x",
		proxy.URL + "/public/x/plain/", proxy.URL + "/public/x/exact/", proxy.URL + "/public/x/exact?q=x",
	} {
		response, err := http.Get(start)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != 200 {
			t.Fatalf("%s: got status %d, %v", start, response.StatusCode, err)
		}
		if !strings.HasSuffix(response.Request.URL.Path, "/") || strings.HasSuffix(start, "?q=x") && response.Request.URL.RawQuery != "q=x" {
			t.Errorf("%s: got %s, want a path that ends in a slash, and the query", start, response.Request.URL)
		}
		links := link.FindAllStringSubmatch(string(body), -1)
		if len(links) < 3 {
			t.Errorf("%s: got links %v, want 3 or more", start, links)
		}
		for _, target := range append(links, []string{"", "state.json"}) {
			u, err := response.Request.URL.Parse(target[1])
			if err != nil {
				t.Fatal(err)
			}
			linked, err := http.Get(u.String())
			if err != nil {
				t.Fatal(err)
			}
			linked.Body.Close()
			if linked.StatusCode != 200 {
				t.Errorf("%s: got status %d for %s, want 200", start, linked.StatusCode, u)
			}
		}
		if absolute := regexp.MustCompile(`(?:href|src)="(?:/|http)[^"]*"`).FindString(string(body)); absolute != "" {
			t.Errorf("%s: got the absolute link %s, want only relative ones", start, absolute)
		}
	}
}

func TestServeHTTPRedirectsRelatively(t *testing.T) {
	d, _ := opened(t, Config{})
	for target, want := range map[string]string{
		"/debug/resilience":         "./resilience/",
		"/debug/resilience?q=a%26b": "./resilience/?q=a%26b",
		"/debug/a%2f%2fevil.com":    "./evil.com/",
		"/debug/http:%5C%5Cevil":    "./http:%5C%5Cevil/",
		"/debug/":                   "",
	} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		r.URL.Path = "" // as StripPrefix leaves it
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		if got := w.Header().Get("Location"); got != want || want == "" && w.Code != 200 || want != "" && w.Code/100 != 3 {
			t.Errorf("%s: got status %d, %q, want %q", target, w.Code, got, want)
		}
	}
}

func TestServeHTTPAllowsOnlyReading(t *testing.T) {
	d, _ := opened(t, Config{})
	for _, path := range []string{"/", "/state.json", "/history.json", "/static/" + assetNames["style.css"]} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"} {
			w := httptest.NewRecorder()
			d.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: got status %d, Allow %q", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
		w := httptest.NewRecorder()
		d.ServeHTTP(w, httptest.NewRequest(method, "/policies/x/open", nil))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
			t.Errorf("%s: got status %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest("HEAD", "/", nil))
	if w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") == "" {
		t.Errorf("HEAD: got status %d, %d bytes, Content-Length %q", w.Code, w.Body.Len(), w.Header().Get("Content-Length"))
	}
}

func TestServeHTTPSendsHeadersWithEveryAnswer(t *testing.T) {
	d, _ := opened(t, Config{Authorize: func(r *http.Request) bool { return !strings.Contains(r.URL.RawQuery, "forbidden") }})
	want := map[string]string{
		"Content-Security-Policy":      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Cache-Control":                "no-store",
		"Set-Cookie":                   "",
	}
	for _, path := range []string{"/", "/?pipeline=unknown12", "/state.json", "/history.json", "/nothing", "/?forbidden", "/static/" + assetNames["script.js"], "/policies/x/open"} {
		h := get(d, path).Header()
		for name, value := range want {
			if strings.HasPrefix(path, "/static/") && name == "Cache-Control" {
				if !strings.Contains(h.Get(name), "immutable") {
					t.Errorf("%s: got %s %q, want immutable", path, name, h.Get(name))
				}
				continue
			}
			if got := h.Get(name); got != value {
				t.Errorf("%s: got %s %q, want %q", path, name, got, value)
			}
		}
		if h.Get("Content-Type") == "" {
			t.Errorf("%s: got no Content-Type", path)
		}
	}
}

func TestServeHTTPAsksAuthorizeForEveryRequest(t *testing.T) {
	asked := 0
	d, _ := opened(t, Config{Control: everybody, Authorize: func(*http.Request) bool { asked++; return false }})
	paths := []string{"/", "/state.json", "/history.json", "/nothing", "/static/" + assetNames["script.js"], "/policies/x/open"}
	for _, path := range paths {
		if w := get(d, path); w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "users") {
			t.Errorf("%s: got status %d, %s", path, w.Code, w.Body)
		}
	}
	if asked != len(paths) {
		t.Errorf("got %d calls of Authorize, want %d", asked, len(paths))
	}
}

func TestServeHTTPRefusesReboundNames(t *testing.T) {
	d, _ := opened(t, Config{})
	authorized, _ := opened(t, Config{Authorize: everybody})
	request := func(d http.Handler, local net.Addr, host string) int {
		r := httptest.NewRequest(http.MethodGet, "/state.json", nil)
		r.Host = host
		if local != nil {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
		}
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		return w.Code
	}
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}
	loopback6 := &net.TCPAddr{IP: net.IPv6loopback, Port: 8080}
	mapped := &net.TCPAddr{IP: net.ParseIP("::ffff:127.0.0.2"), Port: 8080}
	public := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 8080}
	for _, local := range []net.Addr{loopback, loopback6, mapped} {
		for host, want := range map[string]int{
			"127.0.0.1": 200, "127.0.0.1:8080": 200, "[::1]": 200, "[::1]:8080": 200, "192.0.2.1:80": 200, "localhost": 200, "LOCALHOST:8080": 200,
			"localhost.": 200, "shop.localhost:8080": 200, "evil.example": 403, "evil.example:8080": 403, "localhost.evil.example": 403,
			"notlocalhost": 403, "": 403, "127.0.0.1.evil.example": 403, ".localhost.evil": 403,
		} {
			if got := request(d, local, host); got != want {
				t.Errorf("%v, host %q: got status %d, want %d", local, host, got, want)
			}
		}
	}
	if got := request(d, public, "dashboard.example"); got != 200 {
		t.Errorf("a public address: got status %d, want 200", got)
	}
	if got := request(d, &net.UnixAddr{Name: "/run/x"}, "dashboard.example"); got != 200 {
		t.Errorf("a socket: got status %d, want 200", got)
	}
	if got := request(authorized, loopback, "dashboard.example"); got != 200 {
		t.Errorf("with Authorize: got status %d, want 200", got)
	}
	server := httptest.NewServer(d)
	defer server.Close()
	r, err := http.NewRequest(http.MethodGet, server.URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "evil.example"
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 403 {
		t.Errorf("a real server: got status %d, want 403", response.StatusCode)
	}
}

func TestServeHTTPRefusesJSONToOtherSites(t *testing.T) {
	d, _ := opened(t, Config{})
	for _, path := range []string{"/state.json", "/history.json?pipeline=" + id("pipeline", "users"), "/"} {
		for site, want := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 200, "none": 200} {
			if path == "/" {
				want = 200
			}
			if got := get(d, path, "Sec-Fetch-Site", site).Code; got != want {
				t.Errorf("%s, %s: got status %d, want %d", path, site, got, want)
			}
		}
	}
}

var tokenPattern = regexp.MustCompile(`data-token="([^"]+)"`)

func tokenOf(t *testing.T, d http.Handler) string {
	t.Helper()
	match := tokenPattern.FindSubmatch(get(d, "/").Body.Bytes())
	if match == nil {
		t.Fatal("got no token on the page, want one")
	}
	return string(match[1])
}

func TestPageHasTokenOnlyWithControl(t *testing.T) {
	d, _ := opened(t, Config{})
	if strings.Contains(get(d, "/").Body.String(), "data-token") {
		t.Error("got a token without Control, want none")
	}
	d, _ = opened(t, Config{Control: func(r *http.Request) bool { return r.Header.Get("User") == "operator" }})
	if body := get(d, "/", "User", "guest").Body.String(); strings.Contains(body, "data-token") || strings.Contains(body, d.token) {
		t.Error("got a token for somebody whom Control refuses, want none")
	}
	if body := get(d, "/", "User", "operator").Body.String(); !strings.Contains(body, `data-token="`+d.token+`"`) {
		t.Error("got no token for somebody whom Control allows, want one")
	}
	if strings.Contains(get(d, "/state.json", "User", "operator").Body.String(), d.token) {
		t.Error("got the token in the state, want it only on the page")
	}
	if other, _ := opened(t, Config{Control: everybody}); tokenOf(t, other) == d.token || len(d.token) < 20 {
		t.Errorf("got token %q, want a long one that no other Dashboard has", d.token)
	}
}

func post(d http.Handler, path string, fields ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, nil)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

func TestControlNeedsOriginOrToken(t *testing.T) {
	const site, header = "Sec-Fetch-Site", "X-Resilience-Token"
	d, b := opened(t, Config{Control: everybody})
	token := tokenOf(t, d)
	path := "/policies/" + id(breakerKind, "users") + "/open"
	for _, test := range []struct {
		fields []string
		want   int
	}{
		{nil, 403},
		{[]string{site, "none"}, 403},
		{[]string{site, "same-site"}, 403},
		{[]string{site, "cross-site"}, 403},
		{[]string{site, "cross-site", header, token}, 403},
		{[]string{site, "same-origin", site, "cross-site", header, token}, 403},
		{[]string{site, "same-origin", header, "wrong"}, 403},
		{[]string{site, "same-origin", header, ""}, 403},
		{[]string{site, "same-origin", header, token, header, "wrong"}, 403},
		{[]string{header, token + "x"}, 403},
		{[]string{header, token[1:]}, 403},
		{[]string{site, "same-origin"}, 204},
		{[]string{header, token}, 204},
		{[]string{site, "none", header, token}, 204},
		{[]string{site, "same-origin", header, token}, 204},
	} {
		b.Reset()
		got := post(d, path, test.fields...)
		if got.Code != test.want || (b.State() == breaker.ForcedOpen) != (test.want == 204) {
			t.Errorf("%q: got status %d and state %v, want %d", test.fields, got.Code, b.State(), test.want)
		}
	}
}

func TestControlDefaultsToNobody(t *testing.T) {
	d, b := opened(t, Config{})
	if got := post(d, "/policies/"+id(breakerKind, "users")+"/open", "Sec-Fetch-Site", "same-origin").Code; got != 403 || b.State() != breaker.Closed {
		t.Errorf("got status %d and state %v, want 403 and closed", got, b.State())
	}
}

func TestControlAnswersInOrder(t *testing.T) {
	var order []string
	allow := true
	obs := observe.New(observe.Config{})
	unnamed, dead := breaker.New(breaker.Config{}), breaker.New(breaker.Config{Name: "dead"})
	keep := []resilience.Policy{obs.Pipeline("p", retry.New(retry.Config{Name: "r"}), unnamed, dead)}
	d := New(obs, Config{
		Authorize: func(*http.Request) bool { order = append(order, "authorize"); return true },
		Control:   func(*http.Request) bool { order = append(order, "control"); return allow },
	})
	defer d.Close()
	request := func(kind, name, action string, fields ...string) int {
		return post(d, "/policies/"+id(kind, name)+"/"+action, fields...).Code
	}
	same := []string{"Sec-Fetch-Site", "same-origin"}
	for _, test := range []struct {
		got  int
		want int
		name string
	}{
		{request(breakerKind, "unknown", "open"), 403, "no token, before an unknown policy"},
		{request("retry", "r", "explode"), 403, "no token, before an unknown action"},
		{request(breakerKind, "unknown", "open", same...), 404, "an unknown policy"},
		{request(breakerKind, "dead", "explode", same...), 404, "an unknown action"},
		{request("retry", "r", "explode", same...), 404, "an unknown action, before not a breaker"},
		{request("retry", "r", "open", same...), 409, "not a breaker"},
		{request(breakerKind, "", "open", same...), 409, "no name"},
		{request(pipelineKind, "p", "open", same...), 404, "a pipeline that is no policy"},
	} {
		if test.got != test.want {
			t.Errorf("%s: got status %d, want %d", test.name, test.got, test.want)
		}
	}
	if strings.Join(order[:2], " ") != "authorize control" {
		t.Errorf("got order %v, want authorize before control", order)
	}
	allow = false
	if got := request(breakerKind, "unknown", "open", same...); got != 403 {
		t.Errorf("without Control: got status %d, want 403 before 404", got)
	}
	runtime.KeepAlive(keep)
}

func TestControlNeedsLiveBreaker(t *testing.T) {
	f := &fakeSource{snap: observe.Snapshot{Policies: []observe.PolicySnapshot{breakerOf("gone")}}}
	d := start(f, Config{Control: everybody})
	defer d.Close()
	path := "/policies/" + id(breakerKind, "gone") + "/open"
	if got := post(d, path, "Sec-Fetch-Site", "same-origin").Code; got != 409 {
		t.Errorf("none live: got status %d, want 409", got)
	}
	f.live = map[key][]resilience.Reporter{{breakerKind, "gone"}: {retry.New(retry.Config{})}}
	if got := post(d, path, "Sec-Fetch-Site", "same-origin").Code; got != 409 {
		t.Errorf("not a breaker: got status %d, want 409", got)
	}
}

func TestControlActsOnAllOfTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		obs := observe.New(observe.Config{})
		one, two, other := breaker.New(breaker.Config{Name: "b"}), breaker.New(breaker.Config{Name: "b"}), breaker.New(breaker.Config{Name: "c"})
		keep := []resilience.Policy{obs.Pipeline("p", one), obs.Pipeline("q", two, other)}
		d := New(obs, Config{Control: everybody})
		defer d.Close()
		for action, want := range map[string]breaker.State{"open": breaker.ForcedOpen, "half-open": breaker.HalfOpen, "disable": breaker.Disabled, "reset": breaker.Closed} {
			if got := post(d, "/x/policies/"+id(breakerKind, "b")+"/"+action, "Sec-Fetch-Site", "same-origin"); got.Code != 204 || got.Body.Len() != 0 {
				t.Errorf("%s: got status %d, %s", action, got.Code, got.Body)
			}
			if one.State() != want || two.State() != want || other.State() != breaker.Closed {
				t.Errorf("%s: got %v, %v, and %v of another name, want %v twice and closed", action, one.State(), two.State(), other.State(), want)
			}
			// The next state shows it, although no time has passed.
			for _, p := range stateOf(t, d)["policies"].([]any) {
				p := p.(map[string]any)
				if p["name"] == "b" && p["states"].(map[string]any)[want.String()] != 2.0 {
					t.Errorf("%s: got %v in the next state, want 2 %v", action, p["states"], want)
				}
				manual := p["name"] == "b" && (want == breaker.ForcedOpen || want == breaker.Disabled)
				if (p["manual"] != nil) != manual {
					t.Errorf("%s: %v: got manual %v, want a time: %v", action, p["name"], p["manual"], manual)
				}
			}
		}
		runtime.KeepAlive(keep)
	})
}

func TestControlGoesOnAfterPanic(t *testing.T) {
	obs := observe.New(observe.Config{})
	one := breaker.New(breaker.Config{Name: "b", OnStateChange: func(breaker.Transition) { panic("listener") }})
	two := breaker.New(breaker.Config{Name: "b"})
	obs.Watch(one, two)
	d := New(obs, Config{Control: everybody})
	defer d.Close()
	if got := post(d, "/policies/"+id(breakerKind, "b")+"/open", "Sec-Fetch-Site", "same-origin").Code; got != 500 {
		t.Errorf("got status %d, want 500", got)
	}
	if one.State() != breaker.ForcedOpen || two.State() != breaker.ForcedOpen {
		t.Errorf("got %v and %v, want both forced open", one.State(), two.State())
	}
	runtime.KeepAlive(one)
}

func TestControlFindsPolicyCreatedSinceSample(t *testing.T) {
	obs := observe.New(observe.Config{})
	d := New(obs, Config{Control: everybody})
	defer d.Close()
	b := breaker.New(breaker.Config{Name: "new"})
	obs.Watch(b)
	if got := post(d, "/policies/"+id(breakerKind, "new")+"/disable", "Sec-Fetch-Site", "same-origin").Code; got != 204 || b.State() != breaker.Disabled {
		t.Errorf("got status %d and state %v, want 204 and disabled", got, b.State())
	}
}

func TestControlLeavesOthersAlone(t *testing.T) {
	obs := observe.New(observe.Config{MaxNames: 1})
	first, second := breaker.New(breaker.Config{Name: "first"}), breaker.New(breaker.Config{Name: "second"})
	obs.Watch(first, second)
	d := New(obs, Config{Control: everybody})
	defer d.Close()
	if got := post(d, "/policies/"+id(breakerKind, "other")+"/open", "Sec-Fetch-Site", "same-origin").Code; got != 409 {
		t.Errorf("got status %d, want 409", got)
	}
	if first.State() != breaker.Closed || second.State() != breaker.Closed {
		t.Errorf("got %v and %v, want both closed", first.State(), second.State())
	}
}

func TestStateHasEveryName(t *testing.T) {
	d, _ := opened(t, Config{Title: "shop"})
	var s map[string]json.RawMessage
	if err := json.Unmarshal(get(d, "/state.json").Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	want := "at title host pid started instance build interval window bounds troubles pipelines policies changes"
	for _, name := range strings.Fields(want) {
		if value := s[name]; len(value) == 0 || bytes.Equal(value, []byte("null")) {
			t.Errorf("%s: got %q, want a value", name, value)
		}
	}
	if len(s) != len(strings.Fields(want)) {
		t.Errorf("got %d fields, want %d", len(s), len(strings.Fields(want)))
	}
	elements := func(text json.RawMessage, field string) map[string]json.RawMessage {
		var list []map[string]json.RawMessage
		if err := json.Unmarshal(text, &list); err != nil || len(list) == 0 {
			t.Fatalf("%s: got %s, %v, want a list that is not empty", field, text, err)
		}
		return list[0]
	}
	same := func(object map[string]json.RawMessage, names string) {
		t.Helper()
		fields := strings.Fields(names)
		for _, name := range fields {
			if _, found := object[name]; !found {
				t.Errorf("got no %s, want it", name)
			}
		}
		if len(object) != len(fields) {
			t.Errorf("got %d fields, want %d", len(object), len(fields))
		}
	}
	pipeline := elements(s["pipelines"], "pipelines")
	same(pipeline, "id name level why running rate good p50 p99 attempts results total errors layers spark")
	same(elements(pipeline["layers"], "layers"), "position kind name policy states entered passed events")
	same(elements(s["policies"], "policies"), "id kind name live states since manual controls pipelines values config changes")
	var history map[string]json.RawMessage
	if err := json.Unmarshal(get(d, "/history.json?pipeline="+id("pipeline", "users")).Body.Bytes(), &history); err != nil {
		t.Fatal(err)
	}
	same(history, "start step results attempts running p50 p99")
}

func TestStateShowsChangesNewestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		obs := observe.New(observe.Config{})
		var all []*breaker.Breaker
		for _, name := range []string{"a", "b", "c"} {
			b := breaker.New(breaker.Config{Name: name})
			obs.Watch(b)
			all = append(all, b)
		}
		d := New(obs, Config{})
		defer d.Close()
		for range 10 {
			for _, b := range all {
				b.ForceOpen()
				time.Sleep(time.Millisecond)
				b.Reset()
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(time.Second)
		changes := stateOf(t, d)["changes"].([]any)
		if len(changes) != 50 {
			t.Fatalf("got %d changes, want the latest 50", len(changes))
		}
		var last time.Time
		for i, c := range changes {
			c := c.(map[string]any)
			at, err := time.Parse(time.RFC3339Nano, c["at"].(string))
			if err != nil || i > 0 && at.After(last) {
				t.Fatalf("change %d: got time %v (%v), want none after %v", i, at, err, last)
			}
			last = at
			for _, field := range []string{"policy", "kind", "name", "at", "from", "to", "cause", "error"} {
				if _, found := c[field]; !found {
					t.Errorf("change %d: got no %s, want it", i, field)
				}
			}
		}
	})
}

func TestPolicyConfigIsNullIfItDiffers(t *testing.T) {
	obs := observe.New(observe.Config{})
	b := []*breaker.Breaker{breaker.New(breaker.Config{Name: "same"}), breaker.New(breaker.Config{Name: "same"}), breaker.New(breaker.Config{Name: "mixed"}), breaker.New(breaker.Config{Name: "mixed", OpenFor: time.Hour})}
	for _, one := range b {
		obs.Watch(one)
	}
	d := New(obs, Config{})
	defer d.Close()
	for _, p := range stateOf(t, d)["policies"].([]any) {
		p := p.(map[string]any)
		if (p["config"] == nil) != (p["name"] == "mixed") || p["live"] != 2.0 {
			t.Errorf("%v: got config %v of %v", p["name"], p["config"], p["live"])
		}
	}
	runtime.KeepAlive(b)
}

func TestPolicyListControlsOnlyLiveBreakersWithName(t *testing.T) {
	for _, test := range []struct {
		kind, name string
		live       int
		want       bool
	}{
		{breakerKind, "users", 1, true},
		{breakerKind, "users", 0, false},
		{breakerKind, "", 1, false},
		{"retry", "users", 1, false},
	} {
		p := observe.PolicySnapshot{Kind: test.kind, Name: test.name, Reports: make([]resilience.Report, test.live)}
		if got := record(t, nil, p).Policies[0].Controls; got != test.want {
			t.Errorf("%d live policies %s %q: got %v, want %v", test.live, test.kind, test.name, got, test.want)
		}
	}
}

func TestValuesAddsUpReports(t *testing.T) {
	reports := func(of ...float64) (list []resilience.Report) {
		for _, v := range of {
			list = append(list, resilience.Report{Values: []resilience.Value{{Name: "running", Unit: "calls", Value: v}}})
		}
		return list
	}
	for _, test := range []struct {
		values          []float64
		min, max, total number
	}{
		{[]float64{3}, 3, 3, 3},
		{[]float64{3, 1, 2}, 1, 3, 6},
		{[]float64{1, 3, 2}, 1, 3, 6},
	} {
		want := []valueJSON{{Name: "running", Unit: "calls", Min: test.min, Max: test.max, Total: test.total}}
		if got := values(reports(test.values...)); !slices.Equal(got, want) {
			t.Errorf("%v: got %+v, want %+v", test.values, got, want)
		}
	}
}

func TestServeHTTPRedactsTextsEverywhere(t *testing.T) {
	const secret = "SECRET"
	text := "https://user:SECRET@host/?key=SECRET#SECRET /path?SECRET=SECRET \u202e"
	sample := observe.ErrorSample{At: begin, Type: "T\u202e", Text: text}
	p := pipelineOf("name\u202e", map[observe.Result]uint64{observe.Failure: 10}, observe.LayerSnapshot{Position: 1, Kind: "breaker", Name: "name\u202e", States: map[string]int{"open\u202e": 1}})
	p.Errors = map[observe.Result]observe.ErrorSample{observe.Failure: sample}
	b := breakerOf("name\u202e", open)
	b.Recent = []observe.Change{{At: begin, From: closed, To: open, Cause: text, Error: &sample}}
	b.Reports[0].Config = map[string]string{"URL\u202e": text}
	b.Reports[0].Values = []resilience.Value{{Name: "v\u202e", Unit: "s\u202e"}}
	d := start(&fakeSource{snap: observe.Snapshot{Pipelines: []observe.PipelineSnapshot{p, pipelineOf("", nil)}, Policies: []observe.PolicySnapshot{b}}}, Config{Title: "title\u202e", Control: everybody})
	defer d.Close()
	for _, path := range []string{"/state.json", "/", "/?pipeline=" + id("pipeline", "name\u202e"), "/?policy=" + id(breakerKind, "name\u202e")} {
		body := get(d, path).Body.String()
		if strings.Contains(body, secret) || strings.Contains(body, "\u202e") || strings.Contains(strings.ReplaceAll(body, `\\u202e`, ""), `"\u202e`) {
			t.Errorf("%s: got a secret, or a character that cannot be printed:\n%s", path, body)
		}
		if !strings.Contains(body, `\u202e`) {
			t.Errorf("%s: got\n%s\nwant the name in it", path, body)
		}
	}
	if body := get(d, "/state.json").Body.String(); !strings.Contains(body, `"(unnamed)"`) {
		t.Errorf("got\n%s\nwant (unnamed) in it", body)
	}
}

func TestPageEscapesNames(t *testing.T) {
	const name = `<script>alert(1)</script>"'></noscript><img src=x onerror=alert(1)>`
	p := pipelineOf(name, nil, layerOf(1, breakerKind, name, map[string]int{open: 1}))
	b := breakerOf(name, open)
	b.Recent = []observe.Change{{At: begin, From: closed, To: name, Cause: name, Error: &observe.ErrorSample{Type: name, Text: name}}}
	b.Reports[0].Config = map[string]string{name: name}
	d := start(&fakeSource{snap: observe.Snapshot{Pipelines: []observe.PipelineSnapshot{p}, Policies: []observe.PolicySnapshot{b}}}, Config{Title: name, Control: everybody})
	defer d.Close()
	for _, query := range []string{"", "?q=" + url.QueryEscape(name), "?pipeline=" + id("pipeline", name), "?policy=" + id(breakerKind, name), "?pipeline=" + url.QueryEscape(name)} {
		body := get(d, "/"+query).Body.String()
		if strings.Contains(body, "<script>alert") || strings.Contains(body, "<img") || strings.Count(body, "</noscript>") != 2 {
			t.Errorf("%s: got markup from a name:\n%s", query, body)
		}
		body = strings.ReplaceAll(body, template.HTMLEscapeString(name), "")
		if regexp.MustCompile(`(?i)<style|\sstyle=|<script>|\son\w+=|javascript:`).MatchString(body) {
			t.Errorf("%s: got an inline script or style:\n%s", query, body)
		}
	}
}

// Rule 20: without JavaScript.
func TestPageHasTablesWithoutJavaScript(t *testing.T) {
	p := pipelineOf("payments", map[observe.Result]uint64{observe.Failure: 10}, layerOf(1, breakerKind, "b", map[string]int{open: 1}))
	p.Errors = map[observe.Result]observe.ErrorSample{observe.Failure: {At: begin, Type: "*net.OpError", Text: "connection refused"}}
	b := breakerOf("b", open)
	b.Recent = []observe.Change{
		{At: begin, From: closed, To: open, Cause: "5 failures in a row"},
		{At: begin, From: open, To: halfOpen, Cause: "open time over"},
		{At: begin, From: halfOpen, To: open, Cause: "a probe failed"},
	}
	b.Reports[0].Config = map[string]string{"OpenFor": "5s"}
	d := start(&fakeSource{snap: observe.Snapshot{Pipelines: []observe.PipelineSnapshot{p, pipelineOf("idle", nil)}, Policies: []observe.PolicySnapshot{b}}}, Config{Control: everybody})
	defer d.Close()
	for query, want := range map[string][]string{
		"":           {"1 thing is in trouble", "breaker b is open", "payments", ">idle<", "5 failures in a row"},
		"?trouble=1": {"payments", "All pipelines"},
		"?pipeline=" + id("pipeline", "payments"): {"connection refused", "*net.OpError", "breaker", "1 open"},
		"?policy=" + id(breakerKind, "b"):         {"OpenFor", "5 failures in a row", "a probe failed", "1 open"},
	} {
		body := get(d, "/"+query).Body.String()
		for _, text := range append(want, `<noscript><meta http-equiv="refresh" content="5"></noscript>`, "<table", "<title>(1) ") {
			if !strings.Contains(body, text) {
				t.Errorf("%q: got\n%s\nwant %q in it", query, body, text)
			}
		}
		if strings.Contains(body, "<form") || strings.Count(body, "<h1") != 1 {
			t.Errorf("%q: got\n%s\nwant one h1 and no form", query, body)
		}
	}
	if body := get(d, "/?trouble=1").Body.String(); strings.Contains(body, ">idle<") {
		t.Error("?trouble=1: got an idle pipeline, want only those in trouble")
	}
	if body := get(d, "/?q=PAY").Body.String(); strings.Contains(body, ">idle<") || !strings.Contains(body, "payments") {
		t.Error("?q=PAY: got other pipelines, or none, want payments")
	}
}

func TestPercentNeverRoundsUpTo100(t *testing.T) {
	for share, want := range map[float64]string{1: "100%", 0.99999: "99.9%", 0.999: "99.9%", 0.9951: "99.5%", 0.99: "99.0%", 0.989: "99%", 0.5: "50%", 0.001: "<1%", 0: "0%"} {
		if got := percent(&share); got != want {
			t.Errorf("percent(%v): got %s, want %s", share, got, want)
		}
	}
	if got := percent(nil); got != "–" {
		t.Errorf("got %s for no calls, want –", got)
	}
}

func TestLatencyShowsFirstAndLastBound(t *testing.T) {
	limits := []float64{0.001, 10}
	for s, want := range map[float64]string{0.0005: "<1 ms", 0.001: "<1 ms", 0.0011: "1.1 ms", 9.99: "10 s", 10: ">10 s", 0.0999: "100 ms"} {
		if got := latency(limits, &s); got != want {
			t.Errorf("latency(%v): got %s, want %s", s, got, want)
		}
	}
}

func TestShortHasTwoDigits(t *testing.T) {
	for s, want := range map[float64]string{
		0: "0 s", 0.0000012: "1.2 µs", 0.000999: "999 µs", 0.0009995: "1 ms", 0.00995: "10 ms", 0.9994: "999 ms", 0.9995: "1 s", 119: "119 s", 120: "2 min 0 s", 1e10: "104166 d 16 h",
	} {
		if got := short(s); got != want {
			t.Errorf("short(%v): got %s, want %s", s, got, want)
		}
	}
}

func TestRateNeverRoundsDownToZero(t *testing.T) {
	for r, want := range map[float64]string{
		0: "0", 0.001: "<0.1", 0.049: "<0.1", 0.05: "0.1", 2: "2", 2.54: "2.5", 9.94: "9.9", 9.95: "10", 99.6: "100", 1234: "1,234", 1234567: "1,234,567",
	} {
		if got := rate(r); got != want {
			t.Errorf("rate(%v): got %s, want %s", r, got, want)
		}
	}
}

func TestAgeHasTwoLargestUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                  "0 s",
		1600 * time.Millisecond:       "2 s",
		59 * time.Second:              "59 s",
		time.Minute:                   "1 min 0 s",
		61 * time.Second:              "1 min 1 s",
		time.Hour - time.Second:       "59 min 59 s",
		time.Hour:                     "1 h 0 min",
		3*time.Hour + 150*time.Second: "3 h 2 min",
		24*time.Hour - time.Second:    "23 h 59 min",
		24 * time.Hour:                "1 d 0 h",
		49*time.Hour + 59*time.Minute: "2 d 1 h",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v): got %s, want %s", d, got, want)
		}
	}
}

func TestValueDependsOnUnit(t *testing.T) {
	for _, test := range []struct {
		v    float64
		unit string
		want string
	}{
		{0.25, "s", "250 ms"},
		{0.25, "", "0.25"},
		{0.25, "calls/s", "0.25/s"},
		{100, "", "100"},
		{1.999, "", "2"},
		{1e300, "", strconv.FormatFloat(1e300, 'f', 0, 64)},
		{math.Nextafter(1e300, math.Inf(1)), "", "–"},
		{math.Inf(1), "", "–"},
		{math.Inf(1), "s", "–"},
		{math.Inf(-1), "", "–"},
		{math.NaN(), "s", "–"},
	} {
		if got := value(test.v, test.unit); got != test.want {
			t.Errorf("value(%v, %q): got %s, want %s", test.v, test.unit, got, test.want)
		}
	}
}
