// Package browsertest tests the page of package dashboard in Chromium, and takes the screenshots of
// its documentation:
//
//	go test ./dashboard/browsertest
//	go test -tags screenshots -run TestScreenshots ./dashboard/browsertest
//
// The tests are skipped without Chromium, unless BROWSERTEST is "required". The script .ci/chromium
// installs it. Accessibility is checked with axe-core, which the tests fetch from the npm
// registry.
package browsertest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/effector-go/resilience/dashboard"
	"github.com/effector-go/resilience/observe"
)

// browser is the context of the one browser that all tests share, or nil without Chromium.
var (
	browser context.Context
	missing error
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := 1
	func() {
		stop := start()
		defer stop()
		code = m.Run()
	}()
	os.Exit(code)
}

func start() (stop func()) {
	path := ""
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "headless-shell", "headless_shell", "chrome"} {
		if found, err := exec.LookPath(name); err == nil && name != "" {
			path = found
			break
		}
	}
	if path == "" {
		missing = errors.New("found no Chromium: run .ci/chromium, or set CHROMIUM to its path")
		return func() {}
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("hide-scrollbars", true))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which does not work for root
	}
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	if err := chromedp.Do(ctx); err != nil {
		missing = fmt.Errorf("cannot start %s: %w", path, err)
	}
	browser = ctx
	return func() {
		cancel()
		cancelAllocator()
	}
}

// A tab is a page in a window of its own size.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	messages []string // of the console
}

// open opens an address in a new tab. At the end of the test, there must be no message in the console.
func open(t *testing.T, width, height int64, address string) *tab {
	t.Helper()
	if missing != nil {
		if os.Getenv("BROWSERTEST") == "required" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	ctx, cancelTime := context.WithTimeout(ctx, 4*time.Minute)
	t.Cleanup(cancelTime)
	p := &tab{t: t, ctx: ctx}
	p.do(chromedp.EmulateViewport(width, height))
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			p.mu.Lock()
			p.messages = append(p.messages, m.String())
			p.mu.Unlock()
		}
	}()
	if address != "" {
		p.do(chromedp.Navigate(address))
	}
	return p
}

// quiet fails the test if there was a message in the console.
func (p *tab) quiet() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.messages {
		p.t.Errorf("console: %s", m)
	}
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// eval returns the value of an expression.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	value, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// wait waits until an expression is true, also across navigations. The page's policy forbids the
// evaluation that chromedp.Poll needs.
func (p *tab) wait(expression string) {
	p.t.Helper()
	for range 20 {
		found, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](`(async () => {
			for (let i = 0; i < 40; i++) {
				if (document.body && (`+expression+`)) return true;
				await new Promise((done) => setTimeout(done, 50));
			}
			return false;
		})()`, chromedp.EvalAwaitPromise))
		if p.ctx.Err() != nil {
			break
		}
		if err == nil && found {
			return
		}
	}
	text, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.title + '\\n' + document.body.innerText"))
	p.t.Fatalf("still not true: %s\n%s", expression, text)
}

// text returns what the user reads.
func (p *tab) text() string {
	p.t.Helper()
	return eval[string](p, "document.body.innerText")
}

func (p *tab) contains(texts ...string) {
	p.t.Helper()
	got := p.text()
	for _, want := range texts {
		if !strings.Contains(got, want) {
			p.t.Errorf("the page does not contain %q:\n%s", want, got)
		}
	}
}

func (p *tab) media(features ...string) {
	p.t.Helper()
	var list []*emulation.MediaFeature
	for i := 0; i < len(features); i += 2 {
		list = append(list, &emulation.MediaFeature{Name: features[i], Value: features[i+1]})
	}
	if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: list}); err != nil {
		p.t.Fatal(err)
	}
}

// A site serves a dashboard. Tests can change its answers.
type site struct {
	*httptest.Server
	observer *observe.Observer
	handler  *dashboard.Dashboard

	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request) bool // instead of the dashboard
	change func(state map[string]any)                        // of the dashboard's answer
}

func serve(t *testing.T, o *observe.Observer, c dashboard.Config) *site {
	t.Helper()
	if c.Interval == 0 {
		c.Interval = 100 * time.Millisecond
	}
	s := &site{observer: o, handler: dashboard.New(o, c)}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close()
		s.handler.Close()
	})
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	answer, change := s.answer, s.change
	s.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	if change == nil || !strings.HasSuffix(r.URL.Path, "/state.json") {
		s.handler.ServeHTTP(w, r)
		return
	}
	r.Header.Del("Accept-Encoding")
	recorder := httptest.NewRecorder()
	s.handler.ServeHTTP(recorder, r)
	var state map[string]any
	if err := json.Unmarshal(recorder.Body.Bytes(), &state); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	change(state)
	json.NewEncoder(w).Encode(state)
}

// answers sets the function that answers instead of the dashboard.
func (s *site) answers(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// changes sets the function that changes each state before it is sent.
func (s *site) changes(f func(state map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change = f
}

// fromState returns a state's answer, as the page receives it.
func (s *site) state(t *testing.T) map[string]any {
	t.Helper()
	response, err := http.Get(s.URL + "/state.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var state map[string]any
	if err := json.NewDecoder(response.Body).Decode(&state); err != nil {
		t.Fatal(err)
	}
	return state
}

// id returns the ID of a pipeline, or of a policy of a kind.
func (s *site) id(t *testing.T, list, kind, name string) string {
	t.Helper()
	for _, one := range s.state(t)[list].([]any) {
		one := one.(map[string]any)
		if one["name"] == name && (kind == "" || one["kind"] == kind) {
			return one["id"].(string)
		}
	}
	t.Fatalf("found no %s in %s", name, list)
	return ""
}

// The version of axe-core, the file that browsers load, and the hash of its package.
const (
	axeVersion   = "4.14.1"
	axeFile      = "package/axe.min.js"
	axeIntegrity = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)

// axe returns the source of axe-core.
var axe = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	folder := filepath.Join(cache, "resilience-browsertest")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(folder, "axe-core-"+axeVersion+".tgz")
	packed, err := os.ReadFile(path)
	if err != nil {
		if packed, err = download("https://registry.npmjs.org/axe-core/-/axe-core-" + axeVersion + ".tgz"); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, packed, 0o644); err != nil {
			return "", err
		}
	}
	if sum := sha512.Sum512(packed); base64.StdEncoding.EncodeToString(sum[:]) != axeIntegrity {
		return "", errors.Join(fmt.Errorf("%s does not have the pinned hash", path), os.Remove(path))
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return "", err
	}
	files := tar.NewReader(unzipped)
	for {
		header, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("%s: %w", axeFile, err)
		}
		if header.Name == axeFile {
			source, err := io.ReadAll(files)
			return string(source), err
		}
	}
})

// download returns what a server answers, at most 10 MB.
func download(url string) ([]byte, error) {
	client := &http.Client{Timeout: time.Minute}
	response, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 10<<20))
}

// accessible fails the test if axe-core has a serious finding.
func (p *tab) accessible(name string) {
	p.t.Helper()
	source, err := axe()
	if err != nil {
		if os.Getenv("BROWSERTEST") == "required" {
			p.t.Fatal(err)
		}
		p.t.Skipf("found no axe-core: %v", err)
	}
	if !eval[bool](p, "typeof axe === 'object'") {
		p.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
			_, err := chromedp.Run(ctx, chromedp.Evaluate[bool](source+";true"))
			return err
		}))
	}
	findings := eval[[]string](p, `axe.run(document, { resultTypes: ["violations"] }).then((result) => result.violations.
		filter((v) => v.impact === "serious" || v.impact === "critical").
		flatMap((v) => v.nodes.map((n) => v.id + ": " + n.target.join(" ") + ": " + n.html + "\n" + n.failureSummary)))`)
	for _, finding := range findings {
		p.t.Errorf("%s: %s", name, finding)
	}
}
