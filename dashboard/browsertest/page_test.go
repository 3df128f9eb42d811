package browsertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/dashboard"
	"github.com/effector-go/resilience/observe"
)

func everybody(*http.Request) bool { return true }

func TestOverviewShowsTroublesFirst(t *testing.T) { // rule 14
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{Title: "shop-api"})
	shop.outage(t)
	p := open(t, 1440, 900, s.URL+"/")
	p.wait(`document.querySelectorAll(".card").length === 2`)
	p.contains("shop-api", "2 things are in trouble", "6 pipelines", "breaker payments is open", "Pipeline inventory is down", "Since ", "Cause: ",
		`Post "https://…@payments.internal/v1/charge?…": dial tcp: connect: connection refused`, "*url.Error", "It lets a probe through in", "affects payments",
		"Retries multiply the load of inventory", "It has no breaker", "Latest changes", "closed → open", "✕ down", "✓ ok", "– idle")
	if text := p.text(); strings.Contains(text, "secret") {
		t.Errorf("the page shows a secret:\n%s", text)
	}
	rows := eval[[]string](p, `[...document.querySelectorAll(".rows tbody tr")].map((row) => row.querySelector("a").textContent)`)
	if want := []string{"inventory", "payments", "recommendations", "search", "users", "mail"}; !slices.Equal(rows, want) {
		t.Errorf("got rows %q, want %q", rows, want)
	}
	head := eval[string](p, `document.querySelector(".rows thead").innerText.replace(/\s+/g, " ")`)
	for _, column := range []string{"Pipeline", "Calls/s", "Good", "p50", "p99", "Running", "Breakers"} {
		if !strings.Contains(head, column) {
			t.Errorf("the table has no column %s: %s", column, head)
		}
	}
	p.wait(`document.querySelector(".rows .spark path.bad") !== null`)
	if title := eval[string](p, "document.title"); title != "(2) shop-api" {
		t.Errorf("got title %q, want (2) shop-api", title)
	}
	if icon := eval[string](p, `document.querySelector("link[rel=icon]").href`); !strings.Contains(icon, "icon-trouble") {
		t.Errorf("got icon %s, want that of trouble", icon)
	}
	p.quiet()
}

func TestOverviewIsCalmWithoutTrouble(t *testing.T) { // rule 14
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{Title: "shop-api"})
	shop.calls(20)
	p := open(t, 1440, 900, s.URL+"/")
	p.wait(`document.body.innerText.includes("100%")`)
	p.contains("No trouble", "No policy has changed its state.")
	if title := eval[string](p, "document.title"); title != "shop-api" {
		t.Errorf("got title %q, want shop-api", title)
	}
	if icon := eval[string](p, `document.querySelector("link[rel=icon]").href`); strings.Contains(icon, "trouble") {
		t.Errorf("got icon %s, want the usual one", icon)
	}
	p.quiet()
}

func TestOverviewFilters(t *testing.T) { // rule 14, and the query of the page
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	shop.outage(t)
	rows := `[...document.querySelectorAll(".rows tbody tr")].map((row) => row.querySelector("a").textContent).join(" ")`
	p := open(t, 1440, 900, s.URL+"/?q=ME")
	p.wait(rows + ` === "payments recommendations"`)
	p.do(chromedp.SendKeys("#search", "nda"))
	p.wait(rows + ` === "recommendations"`)
	p.contains("1 of 6")
	if got := eval[string](p, "location.search"); got != "?q=MEnda" {
		t.Errorf("got query %q, want ?q=MEnda", got)
	}
	p.do(chromedp.Navigate(s.URL + "/?trouble=1"))
	p.wait(rows + ` === "inventory payments"`)
	p.do(chromedp.Click("#only"))
	p.wait(`document.querySelectorAll(".rows tbody tr").length === 6`)
	p.quiet()
}

func TestPipelineShowsFlow(t *testing.T) { // rule 15
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	shop.outage(t)
	p := open(t, 1440, 900, s.URL+"/?pipeline="+s.id(t, "pipelines", "", "payments"))
	p.wait(`document.querySelectorAll(".chart svg path").length > 3`)
	p.contains("breaker payments is open", "calls a second", "attempts a call", "caller", "1. timeout", "2. retry", "3. bulkhead", "4. breaker", "5. timeout", "effector",
		"↩ refuses", "limit 40", "retry after", "Calls by result, per second", "Load at the effector against calls", "Latency", "Calls running",
		"States of breaker payments", "Latest error of each result", "failure", "*url.Error")
	if got := eval[int](p, `document.querySelectorAll(".node.open").length`); got != 1 {
		t.Errorf("%d policies of the flow are marked as open, want 1", got)
	}
	shop.calls(40) // all are refused, so nothing passes the breaker
	p.wait(`[...document.querySelectorAll(".flow li")].length === 7`)
	thick := eval[[]float64](p, `[...document.querySelectorAll(".band")].map((band) => parseFloat(getComputedStyle(band, "::before").height))`)
	if len(thick) != 6 || thick[0] < 20 || thick[3] < 20 {
		t.Errorf("got bands of %v px, want thick ones up to the breaker", thick)
	}
	p.quiet()
}

func TestPipelineShowsRetriesOfFlow(t *testing.T) { // rule 15
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	shop.outage(t)
	p := open(t, 1440, 900, s.URL+"/?pipeline="+s.id(t, "pipelines", "", "inventory"))
	p.wait(`document.querySelectorAll(".chart svg path").length > 3`)
	p.contains("↻ retries", "✕ gives up", "Pipeline inventory is down")
	p.quiet()
}

func TestPolicyIsControlled(t *testing.T) { // rules 10, 11, 16
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{Control: everybody})
	shop.fail()
	p := open(t, 1280, 820, s.URL+"/?policy="+s.id(t, "policies", "breaker", "payments"))
	p.wait(`document.querySelectorAll(".buttons button").length > 4`)
	p.contains("One in use", "Values", "Configuration", "OpenFor", "1m0s", "Changes", "Force open", "Half-open", "Disable", "Reset")
	press := func(label string) {
		t.Helper()
		p.do(chromedp.Click(`//main//button[text()="` + label + `"]`))
		p.wait(`document.getElementById("confirm").open`)
		if got := eval[string](p, `document.activeElement.textContent`); got != "Cancel" {
			t.Errorf("the focus is on %q, want Cancel", got)
		}
	}
	press("Force open")
	p.contains("Force open: breaker payments?", "It will refuse all calls until it is reset.", "Affected pipeline: payments.", "It concerns this process only.")
	p.do(chromedp.KeyEvent(kb.Enter)) // cancels
	p.wait(`!document.getElementById("confirm").open`)
	if got := shop.payments.State(); got != breaker.Open {
		t.Errorf("after Cancel: got %v, want open", got)
	}
	if got := eval[string](p, `document.activeElement.textContent`); got != "Force open" {
		t.Errorf("after Cancel, the focus is on %q, want Force open", got)
	}
	for _, test := range []struct {
		label string
		want  breaker.State
	}{{"Force open", breaker.ForcedOpen}, {"Half-open", breaker.HalfOpen}, {"Disable", breaker.Disabled}, {"Reset", breaker.Closed}} {
		press(test.label)
		p.do(chromedp.Click("#confirm-do"))
		p.wait(`document.body.innerText.includes("` + test.label + `: done.")`)
		p.wait(`document.querySelector("h1").textContent.includes("` + test.want.String() + `")`)
		if got := shop.payments.State(); got != test.want {
			t.Errorf("%s: got %v, want %v", test.label, got, test.want)
		}
		manual := test.want == breaker.ForcedOpen || test.want == breaker.Disabled
		if got := strings.Contains(p.text(), "Under manual control since"); got != manual {
			t.Errorf("%s: manual control is shown: %v, want %v", test.label, got, manual)
		}
	}
	p.quiet()
}

func TestPolicyExplainsWhatCannotBeControlled(t *testing.T) { // rules 11, 16
	obs := observe.New(observe.Config{})
	unnamed := breaker.New(breaker.Config{})
	shop := newShop(t)
	line := obs.Pipeline("p", unnamed)
	for _, test := range []struct {
		observer           *observe.Observer
		kind, name, reason string
	}{
		{shop.observer, "retry", "payments", "Only breakers can be controlled."},
		{obs, "breaker", "(unnamed)", "The breaker has no name"},
	} {
		s := serve(t, test.observer, dashboard.Config{Control: everybody, Interval: 2 * time.Second})
		p := open(t, 1280, 820, s.URL+"/?policy="+s.id(t, "policies", test.kind, test.name))
		p.wait(`document.querySelectorAll("main .buttons button:disabled").length === 4`)
		p.contains(test.reason)
		p.accessible(test.reason)
		p.quiet()
	}
	runtime.KeepAlive(line)
}

func TestPolicyHasNoControlsWithoutControl(t *testing.T) { // rule 16
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	p := open(t, 1280, 820, s.URL+"/?policy="+s.id(t, "policies", "breaker", "payments"))
	p.wait(`document.body.innerText.includes("Configuration")`)
	if eval[int](p, `document.querySelectorAll("main button").length`) != 0 || eval[bool](p, `"token" in document.body.dataset`) {
		t.Error("the page has controls")
	}
	p.quiet()
}

func TestPolicyDialogCountsBreakers(t *testing.T) { // rule 11
	obs := observe.New(observe.Config{})
	one, two := breaker.New(breaker.Config{Name: "b"}), breaker.New(breaker.Config{Name: "b"})
	lines := []resilience.Policy{obs.Pipeline("first", one), obs.Pipeline("second", two)}
	s := serve(t, obs, dashboard.Config{Control: everybody})
	p := open(t, 1280, 820, s.URL+"/?policy="+s.id(t, "policies", "breaker", "b"))
	p.wait(`document.querySelectorAll("main .buttons button").length === 4`)
	p.do(chromedp.Click(`//main//button[text()="Disable"]`))
	p.contains("This concerns all 2 breakers of this name.", "Affected pipelines: first, second.")
	p.do(chromedp.Click("#confirm-do"))
	p.wait(`document.body.innerText.includes("Disable: done.")`)
	if one.State() != breaker.Disabled || two.State() != breaker.Disabled {
		t.Errorf("got %v and %v, want both disabled", one.State(), two.State())
	}
	runtime.KeepAlive(lines)
	p.quiet()
}

func TestPolicyShowsFailureOfControl(t *testing.T) { // rules 10, 16
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{Control: everybody})
	s.answers(func(w http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Sec-Fetch-Site")
		if r.Method == http.MethodPost {
			r.Header.Set("X-Resilience-Token", "of another process")
		}
		return false
	})
	p := open(t, 1280, 820, s.URL+"/?policy="+s.id(t, "policies", "breaker", "payments"))
	p.wait(`document.querySelectorAll("main .buttons button").length === 4`)
	p.do(chromedp.Click(`//main//button[text()="Disable"]`), chromedp.Click("#confirm-do"))
	p.wait(`document.body.innerText.includes("Disable failed: the request does not come from the dashboard")`)
	if got := shop.payments.State(); got != breaker.Closed {
		t.Errorf("got %v, want closed", got)
	}
}

func TestTimesAreInViewersZone(t *testing.T) { // rule 17
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	shop.outage(t)
	// The server's clock is an hour ahead of the viewer's, and a trouble is 90 s old.
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	s.changes(func(state map[string]any) {
		state["at"] = at.Format(time.RFC3339)
		for _, trouble := range state["troubles"].([]any) {
			trouble.(map[string]any)["since"] = at.Add(-90 * time.Second).Format(time.RFC3339)
		}
	})
	p := open(t, 1280, 820, "")
	if _, err := chromedp.Call(p.ctx, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Kathmandu"}); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.Navigate(s.URL + "/"))
	p.wait(`document.querySelectorAll(".card").length === 2`)
	zone := time.FixedZone("NPT", 5*3600+45*60)
	p.contains("Live, "+at.In(zone).Format("15:04:05"), at.Add(-90*time.Second).In(zone).Format("15:04:05")+", 1 min 30 s.")
	host := s.state(t)
	p.contains(fmt.Sprintf("on %s, process %.0f", host["host"], host["pid"]))
	p.quiet()
}

func TestPageRequestsOnlyWhileVisible(t *testing.T) { // rule 2
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	var requests atomic.Int64
	s.answers(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "state.json") {
			requests.Add(1)
		}
		return false
	})
	p := open(t, 1280, 820, s.URL+"/")
	p.wait(`document.body.innerText.includes("Live")`)
	before := requests.Load()
	p.wait(`(await new Promise((done) => setTimeout(done, 1500)), true)`)
	if got := requests.Load() - before; got < 3 || got > 16 {
		t.Errorf("got %d requests in 1.5 s with an Interval of 100 ms, want at most 15", got)
	}
	eval[bool](p, `(Object.defineProperty(document, "hidden", { get: () => true, configurable: true }), true)`)
	p.wait(`(await new Promise((done) => setTimeout(done, 300)), true)`)
	before = requests.Load()
	p.wait(`(await new Promise((done) => setTimeout(done, 1000)), true)`)
	if got := requests.Load() - before; got != 0 {
		t.Errorf("got %d requests while the page is hidden, want none", got)
	}
	eval[bool](p, `(delete document.hidden, document.dispatchEvent(new Event("visibilitychange")), true)`)
	p.wait(`document.body.innerText.includes("Live")`)
	p.wait(`(await new Promise((done) => setTimeout(done, 300)), true)`)
	if requests.Load() == before {
		t.Error("got no request after the page became visible")
	}
	p.quiet()
}

func TestPageSaysThatItIsDisconnected(t *testing.T) { // rule 18
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	shop.outage(t)
	p := open(t, 1280, 820, s.URL+"/")
	old := `document.body.classList.contains("old") && document.body.innerText.includes("Disconnected since")`
	live := `!document.body.classList.contains("old") && document.querySelectorAll(".card").length === 2`
	p.wait(live)
	s.answers(func(w http.ResponseWriter, r *http.Request) bool {
		http.Error(w, "no", http.StatusBadGateway)
		return true
	})
	p.wait(old)
	p.contains("breaker payments is open") // grayed out, but still there
	if opacity := eval[string](p, `getComputedStyle(document.querySelector("main")).opacity`); opacity != "0.5" {
		t.Errorf("got opacity %s, want the page to be gray", opacity)
	}
	if title := eval[string](p, "document.title"); !strings.HasPrefix(title, "Disconnected") {
		t.Errorf("got title %q, want it not to show old troubles", title)
	}
	s.answers(nil)
	p.wait(live)

	// A login page instead of the state.
	s.answers(func(w http.ResponseWriter, r *http.Request) bool {
		w.Write([]byte("<!doctype html><title>Log in</title>"))
		return true
	})
	p.wait(old)
	s.answers(nil)
	p.wait(live)

	// No answer: 3 Intervals and 3 s.
	release := make(chan struct{})
	defer close(release)
	s.answers(func(w http.ResponseWriter, r *http.Request) bool {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	})
	p.wait(old)
	s.answers(nil)
	p.wait(live)
}

func TestPageIsDisconnectedAfterSleep(t *testing.T) { // rule 18
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	p := open(t, 1280, 820, s.URL+"/")
	p.wait(`document.body.innerText.includes("Live")`)
	var blocked atomic.Bool
	release := make(chan struct{})
	s.answers(func(w http.ResponseWriter, r *http.Request) bool {
		if blocked.Load() {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		return false
	})
	blocked.Store(true)
	// The laptop wakes up 100 s later: the clock has moved, and no timer has fired.
	eval[bool](p, `(() => { const now = Date.now; Date.now = () => now() + 100e3; document.dispatchEvent(new Event("visibilitychange")); return true; })()`)
	if !eval[bool](p, `document.body.classList.contains("old")`) {
		t.Error("the page shows an old state as current")
	}
	blocked.Store(false)
	close(release)
	p.wait(`!document.body.classList.contains("old")`)
	p.quiet()
}

func TestPageReloadsOnceForNewInstance(t *testing.T) { // rule 18
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{Control: everybody})
	other := dashboard.New(shop.observer, dashboard.Config{Control: everybody, Interval: 100 * time.Millisecond})
	defer other.Close()
	var pages atomic.Int64
	var restarted, alternate atomic.Bool
	var states atomic.Int64
	s.answers(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/" {
			pages.Add(1)
		}
		second := restarted.Load()
		if alternate.Load() && strings.HasSuffix(r.URL.Path, "state.json") {
			second = states.Add(1)%2 == 0
		}
		if second {
			other.ServeHTTP(w, r)
		}
		return second
	})
	p := open(t, 1280, 820, s.URL+"/")
	p.wait(`document.body.innerText.includes("Live")`)
	before := eval[string](p, "document.body.dataset.token")
	restarted.Store(true)
	p.wait(`document.body.dataset.token !== "` + before + `" && document.body.innerText.includes("Live")`)
	if got := pages.Load(); got != 2 {
		t.Errorf("got %d pages, want 2: one reload", got)
	}
	if text := p.text(); strings.Contains(text, "Several processes") {
		t.Errorf("the page says that several processes answer:\n%s", text)
	}
	alternate.Store(true)
	p.wait(`document.body.innerText.includes("Several processes answer")`)
	p.wait(`(await new Promise((done) => setTimeout(done, 1000)), true)`)
	if got := pages.Load(); got != 2 {
		t.Errorf("got %d pages, want no more reloads", got)
	}
	p.quiet()
}

func TestPageFitsWidths(t *testing.T) { // rule 19
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{Title: "a-program-with-a-long-name-" + strings.Repeat("x", 60), Control: everybody})
	long := shop.observer.Pipeline("a-pipeline-with-a-long-name-"+strings.Repeat("x", 150), breaker.New(breaker.Config{Name: strings.Repeat("y", 150)}))
	resilience.Run(context.Background(), long, func(context.Context) error { return errors.New(strings.Repeat("z", 300)) })
	shop.outage(t)
	p := open(t, 360, 700, s.URL+"/")
	for _, query := range []string{
		"", "?pipeline=" + s.id(t, "pipelines", "", "payments"), "?policy=" + s.id(t, "policies", "breaker", "payments"), "?policy=" + s.id(t, "policies", "breaker", strings.Repeat("y", 150)),
		"?pipeline=unknown123",
	} {
		for _, width := range []int64{360, 768, 1024, 1440, 2560} {
			p.do(chromedp.EmulateViewport(width, 900), chromedp.Navigate(s.URL+"/"+query))
			p.wait(`document.querySelector("h1") !== null && document.body.innerText.includes("Live")`)
			if got := eval[int](p, "document.documentElement.scrollWidth"); got > int(width) {
				wide := eval[[]string](p, `[...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 5).map((e) => e.outerHTML.slice(0, 150))`)
				t.Errorf("%s at %d px: the page is %d px wide: %q", query, width, got, wide)
			}
			if got := eval[int](p, `document.querySelectorAll("h1").length`); got != 1 {
				t.Errorf("%s: got %d headings h1, want 1", query, got)
			}
		}
	}
	runtime.KeepAlive(long)
}

func TestFlowIsVerticalOnSmallScreens(t *testing.T) { // rule 19
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	shop.outage(t)
	for width, vertical := range map[int64]bool{360: true, 1440: false} {
		p := open(t, width, 900, s.URL+"/?pipeline="+s.id(t, "pipelines", "", "payments"))
		p.wait(`document.querySelectorAll(".node").length === 7`)
		box := eval[[]float64](p, `[...document.querySelectorAll(".node")].slice(0, 2).flatMap((n) => { const r = n.getBoundingClientRect(); return [r.left, r.top]; })`)
		if got := box[2] == box[0] && box[3] > box[1]; got != vertical {
			t.Errorf("at %d px: the flow is vertical: %v, want %v (%v)", width, got, vertical, box)
		}
	}
}

func TestPageIsAccessible(t *testing.T) { // rule 19
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{Control: everybody, Interval: 2 * time.Second})
	shop.outage(t)
	pipeline, policy := s.id(t, "pipelines", "", "payments"), s.id(t, "policies", "breaker", "payments")
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{360, 1440} {
			p := open(t, width, 900, "")
			p.media("prefers-color-scheme", scheme)
			for name, view := range map[string]struct{ query, ready string }{
				"overview": {"", `document.querySelectorAll(".card").length === 2`},
				"pipeline": {"?pipeline=" + pipeline, `document.querySelectorAll(".chart svg path").length > 3`},
				"policy":   {"?policy=" + policy, `document.querySelectorAll("main .buttons button").length === 4`},
				"unknown":  {"?policy=unknown123", `document.body.innerText.includes("Unknown policy")`},
			} {
				p.do(chromedp.Navigate(s.URL + "/" + view.query))
				p.wait(view.ready)
				p.accessible(fmt.Sprintf("%s, %s, %d px", name, scheme, width))
				landmarks := eval[[]int](p, `["header", "main", "h1"].map((tag) => document.querySelectorAll(tag).length)`)
				if !slices.Equal(landmarks, []int{1, 1, 1}) {
					t.Errorf("%s: got %v landmarks and headings, want one of each", name, landmarks)
				}
				if name == "policy" {
					p.do(chromedp.Click(`//main//button[text()="Disable"]`))
					p.accessible(fmt.Sprintf("dialog, %s, %d px", scheme, width))
				}
			}
		}
	}
}

func TestPageIsAccessibleWithoutTrouble(t *testing.T) { // rule 19
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{Interval: 2 * time.Second})
	shop.calls(10)
	for _, scheme := range []string{"light", "dark"} {
		p := open(t, 1440, 900, "")
		p.media("prefers-color-scheme", scheme)
		p.do(chromedp.Navigate(s.URL + "/"))
		p.wait(`document.body.innerText.includes("No trouble")`)
		p.accessible(scheme)
		p.quiet()
	}
}

func TestPageReducesMotion(t *testing.T) { // rule 19
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	p := open(t, 1280, 820, s.URL+"/")
	p.wait(`document.querySelector(".dot") !== null`)
	if eval[int](p, `document.getAnimations().length`) == 0 {
		t.Error("the dot does not breathe")
	}
	p.media("prefers-reduced-motion", "reduce")
	if got := eval[int](p, `document.getAnimations().length`); got != 0 {
		t.Errorf("got %d animations with reduced motion, want none", got)
	}
	p.quiet()
}

func TestFocusAndInputSurviveUpdates(t *testing.T) { // rule 19
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	shop.calls(10)
	p := open(t, 1280, 700, s.URL+"/")
	p.wait(`document.querySelectorAll(".rows tbody tr").length === 6`)

	// The last of the rows moves to the top, and cards appear above it.
	eval[bool](p, `(window.lost = 0, [...document.querySelectorAll(".rows a")].find((a) => a.textContent === "payments").focus(),
		window.link = document.activeElement, document.addEventListener("focusout", () => window.lost++), true)`)
	top := eval[float64](p, `window.link.getBoundingClientRect().top`)
	shop.failing.Store(true)
	shop.calls(40)
	p.wait(`document.querySelectorAll(".card").length === 2`)
	if !eval[bool](p, `document.activeElement === window.link && window.link.isConnected && window.lost === 0`) {
		t.Errorf("the focus is on %s, and was lost %d times", eval[string](p, "document.activeElement.outerHTML.slice(0, 100)"), eval[int](p, "window.lost"))
	}
	t.Logf("the link moved from %v to %v", top, eval[float64](p, `window.link.getBoundingClientRect().top`))

	// The search, while updates and new cards come.
	p.do(chromedp.Focus("#search"), chromedp.KeyEvent("pay"))
	eval[bool](p, `(document.getElementById("search").setSelectionRange(1, 2), true)`)
	shop.payments.ForceOpen()
	p.wait(`document.body.innerText.includes("breaker payments is forced open")`)
	shop.payments.Reset()
	shop.failing.Store(false)
	p.wait(`document.querySelectorAll(".card").length < 2`)
	if got := eval[string](p, `(() => { const s = document.activeElement; return [s.id, s.value, s.selectionStart, s.selectionEnd].join(); })()`); got != "search,pay,1,2" {
		t.Errorf("got %s, want the input with its selection", got)
	}
	p.quiet()
}

func TestLiveRegionSpeaksOnlyOfTroubles(t *testing.T) { // rule 19
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	shop.calls(10)
	p := open(t, 1280, 820, s.URL+"/")
	p.wait(`document.querySelectorAll(".rows tbody tr").length === 6`)
	if regions := eval[[]string](p, `[...document.querySelectorAll("[aria-live], [role=status], [role=alert], [role=log]")].map((e) => e.id)`); !slices.Equal(regions, []string{"announcement"}) {
		t.Errorf("got live regions %q, want one", regions)
	}
	eval[bool](p, `(window.said = [], new MutationObserver(() => window.said.push(document.getElementById("announcement").textContent)).
		observe(document.getElementById("announcement"), { childList: true, characterData: true, subtree: true }), true)`)
	shop.payments.ForceOpen()
	p.wait(`window.said.length > 0`)
	for range 3 {
		shop.calls(2)
		p.wait(`(await new Promise((done) => setTimeout(done, 250)), true)`)
	}
	shop.payments.Reset()
	p.wait(`window.said.length > 1`)
	said := eval[[]string](p, "window.said")
	if len(said) > 3 || !strings.Contains(said[0], "breaker payments is forced open") {
		t.Errorf("got %q, want one text per change of troubles", said)
	}
	p.quiet()
}

func TestPageUpdates200PipelinesInUnderSecond(t *testing.T) { // rule 19
	obs := observe.New(observe.Config{})
	var lines []resilience.Policy
	for i := range 200 {
		name := "service-" + strconv.Itoa(i)
		lines = append(lines, obs.Pipeline(name, breaker.New(breaker.Config{Name: name})))
	}
	s := serve(t, obs, dashboard.Config{})
	p := open(t, 1440, 900, s.URL+"/")
	p.wait(`document.querySelectorAll(".rows tbody tr").length === 200`)
	// From the answer to the end of the update, which follows in the same task.
	eval[bool](p, `(() => {
		window.took = [];
		const json = Response.prototype.json;
		Response.prototype.json = async function () {
			const value = await json.call(this), begin = performance.now();
			setTimeout(() => window.took.push(performance.now() - begin), 0);
			return value;
		};
		return true;
	})()`)
	for i := range 10 {
		for j, line := range lines {
			for range (i + j) % 7 {
				resilience.Run(context.Background(), line, func(context.Context) error {
					if j%3 == 0 {
						return errors.New("connection refused")
					}
					return nil
				})
			}
		}
		p.wait(fmt.Sprintf("window.took.length > %d", i))
	}
	took := eval[[]float64](p, "window.took")
	slices.Sort(took)
	if got := took[len(took)/2]; got > 1000 {
		t.Errorf("an update takes %v ms, want less than 1000", got)
	} else {
		t.Logf("an update takes %.0f ms", got)
	}
	runtime.KeepAlive(lines)
	p.quiet()
}

func TestPageShowsHostileNamesAsText(t *testing.T) { // rules 8, 12
	const name = `<img src=x onerror="document.title='hacked'">` + "\u202e"
	obs := observe.New(observe.Config{})
	b := breaker.New(breaker.Config{Name: name, Consecutive: 1})
	line := obs.Pipeline(name, b)
	s := serve(t, obs, dashboard.Config{Title: name, Control: everybody})
	resilience.Run(context.Background(), line, func(context.Context) error { return errors.New(name) })
	shown := strings.Replace(name, "\u202e", `\u202e`, 1)
	p := open(t, 1280, 820, s.URL+"/")
	for _, query := range []string{"", "?pipeline=" + s.id(t, "pipelines", "", shown), "?policy=" + s.id(t, "policies", "breaker", shown)} {
		p.do(chromedp.Navigate(s.URL + "/" + query))
		p.wait(`document.querySelectorAll(".card").length === 1`)
		p.contains(shown)
		if eval[int](p, `document.querySelectorAll("img").length`) != 0 || eval[string](p, "document.title") == "hacked" {
			t.Errorf("%s: the name became markup", query)
		}
	}
	p.do(chromedp.Click(`//main//button[text()="Disable"]`))
	p.contains("Disable: breaker " + shown + "?")
	runtime.KeepAlive(line)
	p.quiet()
}

func TestLinksKeepThePage(t *testing.T) {
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{})
	shop.outage(t)
	p := open(t, 1280, 820, s.URL+"/")
	p.wait(`document.querySelectorAll(".rows tbody tr").length === 6`)
	eval[bool](p, `(window.same = true)`)
	p.do(chromedp.Click(`//table//a[.="payments"]`))
	p.wait(`document.querySelector("h1").textContent.includes("payments") && document.activeElement === document.querySelector("h1")`)
	p.do(chromedp.Click(`//main//a[.="Open the policy"]`))
	p.wait(`document.querySelector("h1").textContent.includes("breaker payments")`)
	p.do(chromedp.Click(`//nav//a[.="All pipelines"]`))
	p.wait(`document.querySelectorAll(".rows tbody tr").length === 6`)
	eval[bool](p, `(history.back(), true)`)
	p.wait(`document.querySelector("h1").textContent.includes("breaker payments")`)
	if !eval[bool](p, "window.same === true") {
		t.Error("the page was loaded again")
	}
	p.quiet()
}

func TestPageWorksWithoutJavaScript(t *testing.T) { // rule 20
	shop := newShop(t)
	s := serve(t, shop.observer, dashboard.Config{Control: everybody})
	shop.outage(t)
	http.Get(s.URL + "/state.json")
	var pages atomic.Int64
	s.answers(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/" {
			pages.Add(1)
		}
		return false
	})
	p := open(t, 1280, 820, "")
	if _, err := chromedp.Call(p.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	pipeline, policy := s.id(t, "pipelines", "", "payments"), s.id(t, "policies", "breaker", "payments")
	for query, texts := range map[string][]string{
		"?pipeline=" + pipeline: {"payments", "connection refused", "bulkhead"},
		"?policy=" + policy:     {"breaker payments", "OpenFor"},
		"":                      {"2 things are in trouble", "breaker payments is open", "mail"},
	} {
		p.do(chromedp.EmulateViewport(360, 800), chromedp.Navigate(s.URL+"/"+query))
		p.contains(texts...)
		if eval[int](p, `document.querySelectorAll("table").length`) == 0 || eval[int](p, `document.querySelectorAll("main button").length`) != 0 {
			t.Errorf("%s: got no table, or controls", query)
		}
		if got := eval[int](p, "document.documentElement.scrollWidth"); got > 360 {
			t.Errorf("%s: the page is %d px wide", query, got)
		}
	}
	// It loads itself again within 5 s.
	before := pages.Load()
	for end := time.Now().Add(20 * time.Second); pages.Load() == before && time.Now().Before(end); {
		eval[bool](p, "document.hidden") // also waits
	}
	if pages.Load() == before {
		t.Error("the page did not reload")
	}
	p.quiet()
}
