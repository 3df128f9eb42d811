package dashboard

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// ServeHTTP serves the dashboard. Only the end of the request's path counts, so a Dashboard can be
// mounted at any path, behind http.StripPrefix, and behind proxies. It answers with status 503 after
// Close, 403 if Authorize or Control refuses the request, or if the request is a cross-site one, 404
// for unknown paths and IDs, 405 for other methods, 409 for an action on something that cannot be
// controlled, and 500 if the Report of a policy panicked, or a listener of a change.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	switch {
	case closed:
		fail(w, http.StatusServiceUnavailable, "the dashboard is closed")
	case !d.config.Authorize(r):
		fail(w, http.StatusForbidden, "not authorized to see the dashboard")
	default:
		d.serve(w, r)
	}
}

// serve serves a request by the end of its path.
func (d *Dashboard) serve(w http.ResponseWriter, r *http.Request) {
	segments := strings.Split("//"+r.URL.Path, "/") // at least three
	n := len(segments)
	folder, parent, last := segments[n-3], segments[n-2], segments[n-1]
	read := func(handler http.HandlerFunc) {
		if allowed(w, r, http.MethodGet, http.MethodHead) {
			handler(w, r)
		}
	}
	switch {
	case last == "":
		read(d.servePage)
	case parent == "static" && assets[last] != nil:
		read(assets[last].serve)
	case last == "state.json":
		read(d.serveState)
	case last == "history.json":
		read(d.serveHistory)
	case folder == "policies": // the last case, since the dashboard may be mounted below a folder of that name
		if allowed(w, r, http.MethodPost) {
			d.serveControl(w, r, parent, last)
		}
	default:
		fail(w, http.StatusNotFound, "no such page")
	}
}

// allowed reports whether the request has one of the methods. Otherwise, it sends an error.
func allowed(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	fail(w, http.StatusMethodNotAllowed, "the method must be "+strings.Join(methods, " or "))
	return false
}

// fail sends an error.
func fail(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	w.Write([]byte("dashboard: " + message + "\n"))
}

// notRebound is the default of Authorize. A server on a loopback address is reached by the user's
// browser also on behalf of foreign pages. Their requests name the foreign host.
func notRebound(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		return true
	}
	address, err := netip.ParseAddrPort(local.String())
	if err != nil || !address.Addr().Unmap().IsLoopback() {
		return true
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(host, "]"), "["), "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// isForeign reports whether a browser says that the request comes from another origin.
func isForeign(r *http.Request) bool {
	return slices.ContainsFunc(r.Header.Values("Sec-Fetch-Site"), func(site string) bool {
		return site == "cross-site" || site == "same-site"
	})
}

// acceptsGzip reports whether the client accepts gzip.
func acceptsGzip(r *http.Request) bool {
	for _, field := range r.Header.Values("Accept-Encoding") {
		for coding := range strings.SplitSeq(field, ",") {
			name, parameters, _ := strings.Cut(coding, ";")
			if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
				continue
			}
			q, found := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(parameters, " ", "")), "q=")
			weight, err := strconv.ParseFloat(q, 64)
			return !found || err == nil && weight > 0
		}
	}
	return false
}

// write sends a body, compressed if the client accepts that.
func write(w http.ResponseWriter, r *http.Request, contentType string, code int, plain []byte, compressed func() []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Add("Vary", "Accept-Encoding")
	body := plain
	if acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = compressed()
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}

// serveState sends the state.
func (d *Dashboard) serveState(w http.ResponseWriter, r *http.Request) {
	if p := d.currentJSON(w, r); p != nil {
		write(w, r, "application/json", http.StatusOK, p.plain, func() []byte { return d.gzipped(p) })
	}
}

// serveHistory sends the history of a pipeline.
func (d *Dashboard) serveHistory(w http.ResponseWriter, r *http.Request) {
	p := d.currentJSON(w, r)
	if p == nil {
		return
	}
	h := d.history(p, r.URL.Query().Get("pipeline"))
	if h == nil {
		fail(w, http.StatusNotFound, "no such pipeline")
		return
	}
	write(w, r, "application/json", http.StatusOK, h.plain, func() []byte { return h.compressed })
}

// currentJSON returns the current state, or nil after it has sent an error.
func (d *Dashboard) currentJSON(w http.ResponseWriter, r *http.Request) *published {
	if isForeign(r) {
		fail(w, http.StatusForbidden, "a cross-site request")
		return nil
	}
	p, fresh, err := d.current(r.Context())
	switch {
	case err != nil:
		fail(w, http.StatusServiceUnavailable, err.Error())
	case !fresh:
		fail(w, http.StatusInternalServerError, "no current state: the Report of a policy panicked")
	default:
		return p
	}
	return nil
}

// servePage sends the page.
func (d *Dashboard) servePage(w http.ResponseWriter, r *http.Request) {
	if target := withSlash(r); target != "" {
		w.Header().Set("Location", target)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	p, fresh, err := d.current(r.Context())
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	token := ""
	if d.config.Control(r) {
		token = d.token
	}
	body, code := d.page(p, fresh, r.URL.Query(), token)
	write(w, r, "text/html; charset=utf-8", code, body, func() []byte { return compress(body) })
}

// withSlash returns where to redirect a request whose path http.StripPrefix has left empty: relative
// links would be wrong without a final slash. It returns "" for other requests.
func withSlash(r *http.Request) string {
	if r.URL.Path != "" {
		return ""
	}
	mount, err := url.ParseRequestURI(r.RequestURI)
	if err != nil || mount.Path == "" || strings.HasSuffix(mount.Path, "/") {
		return ""
	}
	target := "./" + url.PathEscape(path.Base(mount.Path)) + "/"
	if mount.RawQuery != "" {
		target += "?" + mount.RawQuery
	}
	return target
}

// serveControl does an action on all live breakers of a name. It looks for reasons to refuse the request
// in the order of their status: 403, 404, 409. The status is 500 if a listener panicked.
func (d *Dashboard) serveControl(w http.ResponseWriter, r *http.Request, policy, action string) {
	if !d.config.Control(r) {
		fail(w, http.StatusForbidden, "not authorized to control breakers")
		return
	}
	if !d.hasToken(r) {
		fail(w, http.StatusForbidden, "the request does not come from the dashboard's page, or the page is older than the process")
		return
	}
	act := actions[action]
	k, found := d.policyByID(r, policy)
	switch {
	case act == nil:
		fail(w, http.StatusNotFound, "no such action")
		return
	case !found:
		fail(w, http.StatusNotFound, "no such policy")
		return
	case k.kind != breakerKind:
		fail(w, http.StatusConflict, "the policy is not a breaker")
		return
	case k.name == "":
		fail(w, http.StatusConflict, "the breaker has no name, so it cannot be told from others")
		return
	}
	done, panicked := d.control(k, act)
	switch {
	case done == 0:
		fail(w, http.StatusConflict, "no breaker of this name is in use")
	case panicked:
		fail(w, http.StatusInternalServerError, "done, but a listener of the change panicked")
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// control does an action on all live breakers of a name. It returns their number, and whether a
// listener of a change panicked.
func (d *Dashboard) control(k key, act func(controllable)) (done int, panicked bool) {
	for _, live := range d.observer.Live(k.kind, k.name) {
		if b, ok := live.(controllable); ok {
			panicked = panics(func() { act(b) }) || panicked
			done++
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.controls++ // so that the next state shows the change
	return done, panicked
}

// controllable is a *breaker.Breaker, or a type that embeds one.
type controllable interface {
	ForceOpen()
	HalfOpen()
	Disable()
	Reset()
}

// actions are what can be done to breakers, by the last part of the path.
var actions = map[string]func(controllable){
	"open":      controllable.ForceOpen,
	"half-open": controllable.HalfOpen,
	"disable":   controllable.Disable,
	"reset":     controllable.Reset,
}

// panics calls f and reports whether it panicked.
func panics(f func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	f()
	return false
}

// hasToken reports whether a POST comes from the dashboard's page.
func (d *Dashboard) hasToken(r *http.Request) bool {
	sites, tokens := r.Header.Values("Sec-Fetch-Site"), r.Header.Values("X-Resilience-Token")
	if slices.Contains(sites, "cross-site") {
		return false
	}
	for _, token := range tokens {
		if subtle.ConstantTimeCompare([]byte(token), []byte(d.token)) != 1 {
			return false
		}
	}
	return len(tokens) > 0 || len(sites) == 1 && sites[0] == "same-origin"
}

// policyByID looks for a policy in the latest sample, then in a new one.
func (d *Dashboard) policyByID(r *http.Request, id string) (key, bool) {
	find := func() (key, bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		for k, memory := range d.recorder.policies {
			if memory.id == id {
				return k, true
			}
		}
		return key{}, false
	}
	k, found := find()
	if !found {
		d.mu.Lock()
		d.controls++ // makes the latest sample stale
		d.mu.Unlock()
		if _, _, err := d.current(r.Context()); err == nil {
			k, found = find()
		}
	}
	return k, found
}
