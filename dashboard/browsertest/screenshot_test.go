//go:build screenshots

package browsertest

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/dashboard"
)

// TestScreenshots takes the pictures of docs/dashboard.md: 30 s of calls, the last 12 of them with an
// outage.
func TestScreenshots(t *testing.T) {
	shop := newShop(t)
	c := shop.payments.Config()
	c.OpenFor, c.Window = 5*time.Second, 5*time.Second
	if err := shop.payments.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	s := serve(t, shop.observer, dashboard.Config{Title: "shop-api", Interval: 500 * time.Millisecond, History: time.Minute, Control: everybody})
	s.changes(func(state map[string]any) { state["host"], state["pid"] = "shop-1", 4711 })
	p := open(t, 1280, 860, s.URL+"/") // a viewer, so that there are samples from the beginning

	ctx, stop := context.WithCancel(t.Context())
	var group errgroup.Group
	defer group.Wait()
	defer stop()
	for name, every := range map[string]time.Duration{"payments": 25, "inventory": 25, "users": 13, "search": 9, "recommendations": 9} {
		group.Go(func() error {
			var calls errgroup.Group
			defer calls.Wait()
			for ctx.Err() == nil {
				time.Sleep(time.Duration((0.5 + rand.Float64()) * float64(every*time.Millisecond)))
				shop.delay.Store(int64(rand.ExpFloat64() * float64(8*time.Millisecond)))
				calls.Go(func() error {
					shop.call(name)
					return nil
				})
			}
			return nil
		})
	}
	time.Sleep(18 * time.Second)
	shop.failing.Store(true)
	time.Sleep(12 * time.Second)

	pipeline, policy := s.id(t, "pipelines", "", "payments"), s.id(t, "policies", "breaker", "payments")
	for _, scheme := range []string{"light", "dark"} {
		p.media("prefers-color-scheme", scheme)
		shot := func(name string, width, height int64, query string, ready string, full bool) {
			p.do(chromedp.EmulateViewport(width, height), chromedp.Navigate(s.URL+"/"+query))
			p.wait(ready)
			action := chromedp.CaptureScreenshot()
			if full {
				action = chromedp.FullScreenshot(100)
			}
			picture, err := chromedp.Run(p.ctx, action)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join("..", "..", "docs", "dashboard", name+"-"+scheme+".png"), picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		shot("overview", 1280, 860, "", `document.querySelectorAll(".card").length === 2`, false)
		shot("pipeline", 1280, 860, "?pipeline="+pipeline, `document.querySelectorAll(".chart svg path").length > 5`, true)
		shot("phone", 360, 780, "", `document.querySelectorAll(".card").length === 2`, false)
		shot("policy", 1280, 860, "?policy="+policy, `document.querySelectorAll("main .buttons button").length === 4 && (document.querySelector("main button").click(), true)`, false)
	}
}

// TestSimulationScreenshots takes the picture of README.md and docs/guide.md: the report that the
// program resilience writes.
func TestSimulationScreenshots(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.html")
	command := exec.CommandContext(t.Context(), "go", "run", "./cmd/resilience", "simulate", "-out", report)
	command.Dir = filepath.Join("..", "..")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	p := open(t, 1280, 700, "file://"+report)
	for _, scheme := range []string{"light", "dark"} {
		p.media("prefers-color-scheme", scheme)
		picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("..", "..", "docs", "simulation", scheme+".png"), picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
