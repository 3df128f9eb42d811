// Package reports_test tests what policies report of themselves: reports, error types, and texts of
// enumerations. No policy, error, or enumeration of the module can be forgotten.
package reports_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/chaos"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/shed"
	"github.com/effector-go/resilience/throttle"
	"github.com/effector-go/resilience/timeout"
)

// reporters makes one of each type that must be a [resilience.Reporter], after it has counted
// something, and states its report as textOf writes it.
var reporters = []struct {
	typ  string                 // as TestReportersIncludeEveryPolicy finds it
	make func(t *testing.T) any // in a synctest bubble
	want string
}{
	{"resilience.AtMostOnce", func(*testing.T) any { return resilience.AtMostOnce }, "at_most_once"},
	{"resilience.Discard", func(*testing.T) any { return resilience.Discard(func(int) {}) }, "discard"},
	{"adaptive.Limiter", func(t *testing.T) any {
		l := adaptive.New(adaptive.Config{Name: "x", Min: 5, Algorithm: adaptive.AIMD})
		acquired(l.Acquire(t.Context()))
		return l
	}, "adaptive x: limit 20 {call}, running 1 {call}, round_trip 0 s; Algorithm=AIMD Initial=20 Max=1000 Min=5"},
	{"adaptive.Limiter", func(t *testing.T) any {
		l := adaptive.New(adaptive.Config{})
		for l.Snapshot().RoundTrip == 0 {
			resilience.Run(t.Context(), l, func(context.Context) error { time.Sleep(250 * time.Millisecond); return nil })
		}
		return l
	}, "adaptive: limit 20 {call}, running 0 {call}, round_trip 0.25 s; Algorithm=queue Initial=20 Max=1000 Min=1"},
	{"breaker.Breaker", func(t *testing.T) any {
		b := breaker.New(breaker.Config{Name: "x", Failures: 1, LastCalls: 10})
		resilience.Run(t.Context(), b, fails)
		time.Sleep(time.Second)
		return b
	}, "breaker x: open, calls 0 {call}, failures 0 {call}, slow 0 {call}, running 0 {call}, retry_after 4 s; " +
		"Consecutive=0 DryRun=false FailureRate=0 Failures=1 Jitter=0 LastCalls=10 Leaky=0 MaxOpenFor=1m0s MinCalls=20 OpenFor=5s " +
		"ProbeFailures=1 ProbeSuccesses=1 ProbeTimeout=1m0s Probes=1 SlowCall=0s SlowRate=0 SlowStart=0s Window=10s"},
	{"budget.Budget", func(*testing.T) any {
		b := budget.New(budget.Config{Name: "x", Ratio: 0.5, MinPerSecond: 2})
		for range 5 {
			b.Deposit()
		}
		b.Withdraw()
		return b
	}, "budget x: tokens 1.5 {token}; MinPerSecond=2 Ratio=0.5 TTL=10s"},
	{"bulkhead.Bulkhead", func(t *testing.T) any {
		b := bulkhead.New(bulkhead.Config{Name: "x", Limit: 2, Queue: 3})
		acquired(b.Acquire(t.Context()))
		acquired(b.Acquire(t.Context()))
		go b.Acquire(t.Context())
		return b
	}, "bulkhead x: limit 2 {call}, running 2 {call}, waiting 1 {call}; Limit=2 MaxWait=0s Queue=3"},
	{"chaos.Chaos", func(*testing.T) any {
		return chaos.New(chaos.Config{Name: "x", Faults: []chaos.Fault{{Share: 0.5, Delay: time.Second}, {Share: 0.25, Err: errors.New("lost")}}})
	}, "chaos x: ; Faults=[{Share: 0.5, Delay: 1s} {Share: 0.25, Err: chaos x: injected: lost}] MaxActive=100 Seed=0"},
	{"hedge.Hedge", func(*testing.T) any {
		return hedge.New(hedge.Config{Name: "x", Delay: 50 * time.Millisecond, Quantile: 0.9})
	}, "hedge x: delay 0.05 s; Delay=50ms Max=1 MinSamples=100 Quantile=0.9"},
	{"observe.Observer.Pipeline", func(t *testing.T) any {
		p := observe.New(observe.Config{}).Pipeline("x", timeout.After(time.Hour))
		go resilience.Run(t.Context(), p, func(context.Context) error { time.Sleep(time.Minute); return nil })
		return p
	}, "pipeline x: running 1 {call}"},
	{"ratelimit.Limiter", func(t *testing.T) any {
		l := ratelimit.New(ratelimit.Config{Name: "x", Rate: 0.5, Burst: 3})
		l.Allow()
		return l
	}, "ratelimit x: rate 0.5 {call}/s, available 2 {call}, waiting 0 {call}; Burst=3 Rate=0.5 Wait=0s"},
	{"ratelimit.Limiter", func(t *testing.T) any {
		l := ratelimit.New(ratelimit.Config{Name: "x", Rate: 1, Wait: time.Minute})
		l.Allow()
		go l.Wait(t.Context())
		return l
	}, "ratelimit x: rate 1 {call}/s, available 0 {call}, waiting 1 {call}; Burst=1 Rate=1 Wait=1m0s"},
	{"ratelimit.Keyed", func(*testing.T) any { return keyed() },
		"ratelimit x: rate 1 {call}/s, available 4 {call}, waiting 0 {call}; Burst=5 MaxKeys=10000 Rate=1 Wait=1m0s"},
	{"ratelimit.Keyed", func(t *testing.T) any {
		k := keyed()
		k.AllowN("b", 5)
		go k.Wait(t.Context(), "b")
		k.AllowN("c", 5)
		go k.Wait(t.Context(), "c")
		return k
	}, "ratelimit x: rate 1 {call}/s, available 0 {call}, waiting 2 {call}; Burst=5 MaxKeys=10000 Rate=1 Wait=1m0s"},
	{"ratelimit.Keyed", func(*testing.T) any {
		return ratelimit.NewKeyed(ratelimit.KeyedConfig[int]{MaxKeys: 3, For: func(int) ratelimit.Config { return ratelimit.Config{Rate: 7} }})
	}, "ratelimit: rate 0 {call}/s, available 1 {call}, waiting 0 {call}; Burst=1 MaxKeys=3 Rate=0 Wait=0s"},
	{"ratelimit.Keyed.By", func(*testing.T) any { return keyed().By(func(context.Context) string { return "a" }) },
		"ratelimit x: rate 1 {call}/s, available 4 {call}, waiting 0 {call}; Burst=5 MaxKeys=10000 Rate=1 Wait=1m0s"},
	{"resiliencetest.Recorder", func(*testing.T) any { return &resiliencetest.Recorder{Name: "x"} }, "resiliencetest x"},
	{"retry.Retry", func(*testing.T) any {
		return retry.New(retry.Config{Name: "x", MaxElapsed: time.Minute, RetryRefused: true, Budget: budget.New(budget.Config{Ratio: 1})})
	}, "retry x: ; MaxAttempts=3 MaxElapsed=1m0s MaxRetryAfter=1m0s ResetAfter=0s RetryRefused=true"},
	{"retry.Retry", func(*testing.T) any { return retry.New(retry.Config{MaxAttempts: retry.Unlimited}) },
		"retry: ; MaxAttempts=-1 MaxElapsed=0s MaxRetryAfter=1m0s ResetAfter=0s RetryRefused=false"},
	{"shed.Shedder", func(t *testing.T) any {
		s := shed.New(shed.Config{Name: "x", Classify: shed.DefaultClassify})
		for _, call := range []func(context.Context) error{succeeds, fails, fails} { // none of which may be refused
			resilience.Run(t.Context(), s, call)
		}
		return s
	}, "shed x: requests 3 {call}, accepts 1 {call}, share 0.25 1; K=2 MaxShare=0.9 Window=2m0s"},
	{"throttle.Throttle", func(t *testing.T) any {
		r := throttle.New(throttle.Config{Name: "x", Max: 3, Refill: 1, Every: time.Hour})
		resilience.Run(t.Context(), r, succeeds)
		return r
	}, "throttle x: available 2 {token}; Every=1h0m0s Max=3 Refill=1"},
	{"timeout.Timeout", func(t *testing.T) any {
		p := timeout.New(timeout.Config{Name: "x", Limit: time.Second, Abandon: 7})
		resilience.Run(t.Context(), p, func(context.Context) error { time.Sleep(time.Minute); return nil })
		return p
	}, "timeout x: abandoned 1 {call}; Abandon=7 Limit=1s"},
}

func succeeds(context.Context) error { return nil }
func fails(context.Context) error    { return errors.New("down") }

// acquired is for a permit that the test keeps.
func acquired[P any](_ P, err error) {
	if err != nil {
		panic(err)
	}
}

func keyed() *ratelimit.Keyed[string] {
	k := ratelimit.NewKeyed(ratelimit.KeyedConfig[string]{Config: ratelimit.Config{Name: "x", Rate: 1, Burst: 5, Wait: time.Minute}})
	k.Allow("a")
	return k
}

// textOf writes a report in one line: "kind name: state, values; config".
func textOf(r resilience.Report) string {
	text := r.Kind
	if r.Name != "" {
		text += " " + r.Name
	}
	var parts []string
	if r.State != "" {
		parts = append(parts, r.State)
	}
	for _, v := range r.Values {
		parts = append(parts, fmt.Sprintf("%s %v %s", v.Name, v.Value, v.Unit))
	}
	if len(parts) > 0 || len(r.Config) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	var config []string
	for _, field := range slices.Sorted(maps.Keys(r.Config)) {
		config = append(config, field+"="+r.Config[field])
	}
	if len(config) > 0 {
		text += "; " + strings.Join(config, " ")
	}
	return text
}

func TestReportStatesKindNameStateValuesAndConfig(t *testing.T) {
	for _, row := range reporters {
		t.Run(row.typ, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := row.make(t)
				synctest.Wait()
				r := x.(resilience.Reporter).Report()
				if got := textOf(r); got != row.want {
					t.Errorf("got  %s\nwant %s", got, row.want)
				}
				if named, ok := x.(interface{ Name() string }); r.Config != nil && r.Kind != "resiliencetest" && (!ok || named.Name() != r.Name) {
					t.Errorf("got no method Name that returns %q", r.Name)
				}
				// The caller owns the report.
				if clear(r.Config); len(r.Values) > 0 {
					r.Values[0] = resilience.Value{}
				}
				if again := textOf(x.(resilience.Reporter).Report()); again != row.want {
					t.Errorf("got %s after the first report was changed, want %s", again, row.want)
				}
				time.Sleep(time.Hour) // until waiting calls have ended
			})
		})
	}
}

func TestReportIsSafeForConcurrentUse(t *testing.T) {
	for _, row := range reporters {
		t.Run(row.typ, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel() // of waiting calls
				x := row.make(t)
				var group errgroup.Group
				for range 2 {
					group.Go(func() error {
						for range 100 {
							x.(resilience.Reporter).Report()
						}
						return nil
					})
					if policy, ok := x.(resilience.Policy); ok {
						group.Go(func() error {
							ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
							defer cancel()
							for range 100 {
								resilience.Run(ctx, policy, succeeds)
							}
							return nil
						})
					}
				}
				group.Wait()
				time.Sleep(time.Hour)
			})
		})
	}
}

// Names, units, and their order don't depend on what a policy has counted or how it is configured.
func TestReportHasSameValuesForAllOfAKind(t *testing.T) {
	known := map[string]string{}
	for _, row := range reporters {
		synctest.Test(t, func(t *testing.T) {
			r := row.make(t).(resilience.Reporter).Report()
			var names []string
			for _, v := range r.Values {
				names = append(names, v.Name+" "+v.Unit)
				if math.IsNaN(v.Value) || math.IsInf(v.Value, 0) {
					t.Errorf("%s: %s is %v, want a number", row.typ, v.Name, v.Value)
				}
			}
			got := strings.Join(names, ", ")
			if want, ok := known[r.Kind]; ok && got != want {
				t.Errorf("%s: got values %s, want %s", row.typ, got, want)
			}
			known[r.Kind] = got
			time.Sleep(time.Hour)
		})
	}
}

// packages returns the documentation of the root module's packages, except internal ones.
func packages(t *testing.T) []*doc.Package {
	t.Helper()
	all, err := parsePackages()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var parsePackages = sync.OnceValues(func() (all []*doc.Package, err error) {
	root := filepath.Join("..", "..")
	err = filepath.WalkDir(root, func(dir string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); dir != root && (err == nil || entry.Name() == "internal" || strings.HasPrefix(entry.Name(), ".")) {
			return filepath.SkipDir
		}
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		var files []*ast.File
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			files = append(files, file)
		}
		if len(files) == 0 {
			return nil
		}
		pkg, err := doc.NewFromFiles(fset, files, dir)
		all = append(all, pkg)
		return err
	})
	return all, err
})

// isPolicy reports whether an expression is the type Policy of the root package.
func isPolicy(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "Policy"
	case *ast.SelectorExpr:
		x, ok := e.X.(*ast.Ident)
		return ok && x.Name == "resilience" && e.Sel.Name == "Policy"
	}
	return false
}

// A policy is an exported type with a method Run that takes a Next, or what an exported function or
// variable provides as a Policy. The list above has one of each.
func TestReportersIncludeEveryPolicy(t *testing.T) {
	without := map[string]string{
		"resilience.PolicyFunc":           "a function has nothing to report",
		"resilience.Pipeline":             "its policies report",
		"resiliencehttp.Transport.Policy": "returns the user's policy",
	}
	listed, found := map[string]bool{"budget.Budget": true, "ratelimit.Keyed": true}, map[string]bool{"budget.Budget": true, "ratelimit.Keyed": true}
	for _, row := range reporters {
		listed[row.typ] = true
	}
	check := func(name string) {
		found[name] = true
		if !listed[name] && without[name] == "" {
			t.Errorf("%s is a policy and isn't in reporters", name)
		}
	}
	functions := func(prefix string, list []*doc.Func) {
		for _, f := range list {
			if f.Decl.Type.Results == nil {
				continue
			}
			for _, result := range f.Decl.Type.Results.List {
				if isPolicy(result.Type) {
					check(prefix + f.Name)
				}
			}
		}
	}
	variables := func(prefix string, list []*doc.Value) {
		for _, v := range list {
			for _, spec := range v.Decl.Specs {
				if spec := spec.(*ast.ValueSpec); isPolicy(spec.Type) {
					check(prefix + spec.Names[0].Name)
				}
			}
		}
	}
	for _, pkg := range packages(t) {
		functions(pkg.Name+".", pkg.Funcs)
		variables(pkg.Name+".", pkg.Vars)
		for _, typ := range pkg.Types {
			name := pkg.Name + "." + typ.Name
			functions(pkg.Name+".", typ.Funcs)
			variables(pkg.Name+".", typ.Vars)
			functions(name+".", typ.Methods)
			for _, method := range typ.Methods {
				params := method.Decl.Type.Params.List
				if method.Name != "Run" || len(params) == 0 {
					continue
				}
				switch last := params[len(params)-1].Type.(type) {
				case *ast.Ident:
					if last.Name == "Next" {
						check(name)
					}
				case *ast.SelectorExpr:
					if last.Sel.Name == "Next" {
						check(name)
					}
				}
			}
		}
	}
	for name := range listed {
		if !found[name] {
			t.Errorf("%s is in reporters and isn't a policy", name)
		}
	}
}

// methods returns the names of the methods of a type.
func methods(typ *doc.Type) map[string]bool {
	names := map[string]bool{}
	for _, method := range typ.Methods {
		names[method.Name] = true
	}
	return names
}

func TestErrorTypeIsDefinedForEveryError(t *testing.T) {
	want := map[string]string{
		"adaptive.LimitError": "adaptive_limit", "breaker.OpenError": "breaker_open", "bulkhead.FullError": "bulkhead_full",
		"ratelimit.LimitedError": "rate_limited", "ratelimit.CostError": "rate_limited", "resiliencehttp.StatusError": "503",
		"retry.ExhaustedError": "retry_exhausted", "shed.Error": "shed", "throttle.Error": "throttled", "timeout.Error": "timeout",
		"timeout.AbandonedError": "timeout_abandoned",
	}
	got := map[string]string{}
	for _, err := range []error{
		&adaptive.LimitError{}, &breaker.OpenError{}, &bulkhead.FullError{}, &ratelimit.LimitedError{}, &ratelimit.CostError{},
		&resiliencehttp.StatusError{StatusCode: 503}, &retry.ExhaustedError{}, &shed.Error{}, &throttle.Error{}, &timeout.Error{},
		&timeout.AbandonedError{},
	} {
		got[strings.TrimPrefix(fmt.Sprintf("%T", err), "*")] = err.(interface{ ErrorType() string }).ErrorType()
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, pkg := range packages(t) {
		for _, typ := range pkg.Types {
			name := pkg.Name + "." + typ.Name
			if name == "resilience.PanicError" { // the user's
				continue
			}
			if methods(typ)["Error"] && got[name] == "" {
				t.Errorf("%s has no ErrorType", name)
			}
		}
	}
}

func TestMarshalTextIsDefinedForEveryEnumeration(t *testing.T) {
	found := 0
	for _, pkg := range packages(t) {
		for _, typ := range pkg.Types {
			basic, ok := typ.Decl.Specs[0].(*ast.TypeSpec).Type.(*ast.Ident)
			if !ok || basic.Name != "int" || len(typ.Consts) == 0 {
				continue
			}
			found++
			if m := methods(typ); !m["String"] || !m["MarshalText"] {
				t.Errorf("%s.%s has methods %v, want String and MarshalText", pkg.Name, typ.Name, m)
			}
		}
	}
	if found == 0 {
		t.Error("found no enumeration")
	}
	// Unknown values too.
	equal[adaptive.Algorithm](t)
	equal[adaptive.Outcome](t)
	equal[breaker.Outcome](t)
	equal[breaker.State](t)
	equal[retry.Reason](t)
	equal[shed.Outcome](t)
}

func equal[E interface {
	~int
	String() string
	MarshalText() ([]byte, error)
}](t *testing.T) {
	for v := E(-2); v < 20; v++ {
		if text, err := v.MarshalText(); err != nil || string(text) != v.String() {
			t.Errorf("%T: got %q, %v, want %q", v, text, err, v)
		}
	}
}
