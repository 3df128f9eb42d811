package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// admits reports whether f admits a call that returns err.
func admits(f lockForm, err error) bool {
	ran := false
	f.Do(ctx, func(context.Context) (int, error) {
		ran = true
		return 1, err
	})
	return ran
}

// check makes calls through f as a script says: s succeeds, f fails, x is refused, w waits for the
// open time, h for half of it.
func check(t *testing.T, f lockForm, r rules, script string) {
	t.Helper()
	for i, step := range script {
		var err error
		switch step {
		case 'w', 'h':
			wait := r.openFor
			if step == 'h' {
				wait /= 2
			}
			time.Sleep(wait)
			synctest.Wait()
			continue
		case 'f':
			err = errBoom
		}
		if got, want := admits(f, err), step != 'x'; got != want {
			t.Fatalf("step %d of %q: got admitted %v, want %v", i, script, got, want)
		}
	}
}

// fillUp makes n calls that f must admit, and returns when all of them are running. Each ends with
// err once the channel is closed.
func fillUp(t *testing.T, f lockForm, n int, err error) (calls *errgroup.Group, end chan struct{}) {
	t.Helper()
	calls, end = &errgroup.Group{}, make(chan struct{})
	var running atomic.Int64
	for range n {
		calls.Go(func() error {
			f.Do(ctx, func(context.Context) (int, error) {
				running.Add(1)
				<-end
				return 1, err
			})
			return nil
		})
	}
	synctest.Wait()
	if got := running.Load(); got != int64(n) {
		t.Fatalf("got %d running calls, want %d", got, n)
	}
	return calls, end
}

// With one caller, the wrong forms behave like the others, so such tests don't detect them.
func TestLockFormsAreBreakersForOneCaller(t *testing.T) {
	r := rules{failures: 3, openFor: time.Second, probes: 2}
	for _, form := range append(lockForms[:len(lockForms):len(lockForms)], wrongForms...) {
		for _, promise := range []struct{ name, script string }{
			{"consecutive failures open it", "fffx"},
			{"success between failures forgets them", "ffsffsfffx"},
			{"stays open for the open time", "fffxxws"},
			{"successful probes close it", "fffwssfffx"},
			{"fewer successful probes don't close it", "fffwsfx"},
			{"failed probe opens it for the whole open time", "fffwfxxws"},
			{"counts from zero once closed", "fffwssffsfffx"},
		} {
			t.Run(form.name+"/"+promise.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					check(t, form.make(r), r, promise.script)
				})
			})
		}
	}
}

// forms runs a test for each correct form, with a breaker that counts its openings.
func forms(t *testing.T, r rules, test func(t *testing.T, f lockForm, opened *atomic.Int64)) {
	for _, form := range lockForms {
		t.Run(form.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var opened atomic.Int64
				r.opened = func() { opened.Add(1) }
				test(t, form.make(r), &opened)
			})
		})
	}
}

func TestLockFormsAllowOneProbe(t *testing.T) {
	r := rules{failures: 1, openFor: time.Second, probes: 3}
	forms(t, r, func(t *testing.T, f lockForm, opened *atomic.Int64) {
		check(t, f, r, "fxw")
		for probe := range r.probes {
			var callers errgroup.Group
			var running, refused atomic.Int64
			end := make(chan struct{})
			for range 64 {
				callers.Go(func() error {
					ran := false
					f.Do(ctx, func(context.Context) (int, error) {
						ran = true
						running.Add(1)
						<-end
						return 1, nil
					})
					if !ran {
						refused.Add(1)
					}
					return nil
				})
			}
			synctest.Wait()
			if running.Load() != 1 || refused.Load() != 63 {
				t.Fatalf("probe %d: got %d of 64 callers running and %d refused, want 1 and 63", probe, running.Load(), refused.Load())
			}
			close(end)
			callers.Wait()
		}
		calls, end := fillUp(t, f, 64, nil) // closed
		close(end)
		calls.Wait()
		if opened.Load() != 1 {
			t.Errorf("got %d openings, want 1", opened.Load())
		}
	})
}

// abreast makes n calls that wait for each other and then all end with err concurrently, on all
// processors.
func abreast(f lockForm, n int64, err error) {
	var callers errgroup.Group
	var entered atomic.Int64
	for range n {
		callers.Go(func() error {
			f.Do(ctx, func(context.Context) (int, error) {
				for entered.Add(1); entered.Load() < n; {
					runtime.Gosched()
				}
				return 1, err
			})
			return nil
		})
	}
	callers.Wait()
}

func TestLockFormsLoseNoFailure(t *testing.T) {
	const rounds, callers = 2000, 8
	for _, form := range lockForms {
		t.Run(form.name, func(t *testing.T) {
			opened := 0
			f := form.make(rules{failures: rounds*callers + 1, openFor: time.Hour, probes: 1, opened: func() { opened++ }})
			for range rounds {
				abreast(f, callers, errBoom)
			}
			if opened != 0 {
				t.Fatalf("got open before the limit of %d failures", rounds*callers+1)
			}
			if f.Do(ctx, fail); opened != 1 {
				t.Errorf("got closed after %d failures, want open", rounds*callers+1)
			}
		})
	}
}

func TestLockFormsOpenOnceForConcurrentFailures(t *testing.T) {
	const rounds, callers = 2000, 8
	for _, form := range lockForms {
		for _, limit := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s/%d", form.name, limit), func(t *testing.T) {
				var opened atomic.Int64
				f := form.make(rules{failures: limit, openFor: time.Hour, probes: 1, opened: func() { opened.Add(1) }})
				for round := range int64(rounds) {
					abreast(f, callers, errBoom)
					if opened.Load() != round+1 {
						t.Fatalf("round %d: got %d openings, want %d", round, opened.Load(), round+1)
					}
					f.Reset()
				}
			})
		}
	}
}

func TestLockFormsIgnoreLateResults(t *testing.T) {
	r := rules{failures: 2, openFor: time.Second, probes: 2}
	for _, late := range []struct {
		name          string
		err           error
		before, after string // results of other calls, before and after the late ones
	}{
		{"failures while open don't extend the open time", errBoom, "ffxh", "xhss"},
		{"successes while half-open aren't probes", nil, "ffxws", "fx"},
		{"failures while half-open aren't probes", errBoom, "ffxws", "sffx"},
		{"successes while open don't close it", nil, "ffxh", "xhsfx"},
		{"failures of one closed period don't count in the next", errBoom, "ffxwss", "fsfsffx"},
		{"successes of one closed period don't count in the next", nil, "ffxwssf", "fx"},
	} {
		t.Run(late.name, func(t *testing.T) {
			forms(t, r, func(t *testing.T, f lockForm, opened *atomic.Int64) {
				calls, end := fillUp(t, f, 8, late.err)
				check(t, f, r, late.before)
				times := opened.Load()
				close(end)
				calls.Wait()
				if opened.Load() != times {
					t.Error("late results opened the breaker")
				}
				check(t, f, r, late.after)
			})
		})
	}
}

func TestLockFormsCountFromZeroAfterReset(t *testing.T) {
	r := rules{failures: 2, openFor: time.Second, probes: 1}
	forms(t, r, func(t *testing.T, f lockForm, opened *atomic.Int64) {
		calls, end := fillUp(t, f, 8, errBoom)
		check(t, f, r, "f")
		f.Reset()
		close(end)
		calls.Wait()
		check(t, f, r, "fsffx")
		f.Reset()
		check(t, f, r, "sffx")
	})
}

func TestLockFormsAllowOneProbeUnderLoad(t *testing.T) {
	for _, form := range lockForms {
		t.Run(form.name, func(t *testing.T) {
			f := form.make(rules{failures: 1, openFor: 1, probes: 1 << 62})
			var callers errgroup.Group
			var running, concurrent atomic.Int64
			for range 4 {
				callers.Go(func() error {
					for i := range 20_000 {
						if i%100 == 0 { // the change from open to half-open must be made by one caller too
							f.Do(ctx, fail)
						}
						f.Do(ctx, func(context.Context) (int, error) {
							if running.Add(1) > 1 {
								concurrent.Add(1)
							}
							running.Add(-1)
							return 1, nil
						})
					}
					return nil
				})
			}
			callers.Wait()
			if n := concurrent.Load(); n != 0 {
				t.Errorf("got %d probes concurrent with another", n)
			}
		})
	}
}

// With concurrent callers, all correct forms do the same, and each of the others does something
// different. The table of docs/internals/locks.md is computed here.
func TestLocksPageMatchesLockForms(t *testing.T) {
	const right = " 8 | 1 | 2 | 1 |"
	table := "| form | concurrent calls, of 8 | concurrent probes, of 8 callers | failures counted, of 2 | openings by 8 failures |\n" +
		"| --- | --- | --- | --- | --- |\n"
	for _, form := range lockForms {
		row := raceResults(form.make)
		if row != right {
			t.Errorf("%s: got %q, want %q", form.name, row, right)
		}
		table += "| " + form.name + " |" + row + "\n"
	}
	for _, form := range wrongForms {
		row := raceResults(form.make)
		if row == right {
			t.Errorf("%s: got %q, want it to be wrong", form.name, row)
		}
		table += "| " + form.name + " |" + row + "\n"
	}
	page, err := os.ReadFile("../docs/internals/locks.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "<!-- races:begin -->\n\n" + table + "\n<!-- races:end -->"; !strings.Contains(string(page), want) {
		t.Errorf("docs/internals/locks.md lacks this table:\n%s", want)
	}
}

// raceResults returns a form's row of the table.
func raceResults(form func(rules) lockForm) string {
	calls := concurrentCalls(form(rules{failures: 1, openFor: time.Hour, probes: 1}), 8, nil)

	halfOpen := form(rules{failures: 1, openFor: 1, probes: 100})
	makeHalfOpen(halfOpen)
	probes := concurrentProbes(halfOpen)

	var opened atomic.Int64
	count := func() { opened.Add(1) }
	const limit = 5
	counting := form(rules{failures: limit, openFor: time.Hour, probes: 1, opened: count})
	failTogether(counting)
	missing := 0 // failures needed to reach the limit
	for opened.Load() == 0 {
		admits(counting, errBoom)
		missing++
	}

	opened.Store(0)
	concurrentCalls(form(rules{failures: 1, openFor: time.Hour, probes: 1, opened: count}), 8, errBoom)
	return fmt.Sprintf(" %d | %d | %d | %d |", calls, probes, limit-missing, opened.Load())
}

// makeHalfOpen opens a breaker with a limit of one failure and almost no open time.
func makeHalfOpen(f lockForm) {
	f.Do(ctx, fail)
	if f, ok := f.(*library); ok {
		f.b.HalfOpen() // otherwise its timer would do it
	}
}

// concurrentCalls makes n calls that wait for each other, and returns how many ran concurrently at
// most. They end one after another.
func concurrentCalls(f lockForm, n int64, err error) int64 {
	var callers errgroup.Group
	var entered, refused, ended, most atomic.Int64
	for range n {
		callers.Go(func() error {
			ran := false
			f.Do(ctx, func(context.Context) (int, error) {
				ran = true
				number := entered.Add(1)
				// The limit is reached if callers wait for a lock until this call has ended.
				for range 100_000 {
					if entered.Load()+refused.Load() == n {
						break
					}
					runtime.Gosched()
				}
				if running := entered.Load() - ended.Load(); running > most.Load() {
					most.Store(running)
				}
				for ended.Load() != number-1 {
					runtime.Gosched()
				}
				return 1, err
			})
			if ran {
				ended.Add(1)
			} else {
				refused.Add(1)
			}
			return nil
		})
	}
	callers.Wait()
	return most.Load()
}

// concurrentProbes returns how many of 8 callers are admitted as concurrent probes. For readLocks,
// a second caller arrives after the first has looked and before it has written.
func concurrentProbes(f lockForm) int64 {
	p, ok := f.(*readLocks)
	if !ok {
		return concurrentCalls(f, 8, nil)
	}
	var second errgroup.Group
	probes, decided, end := int64(0), make(chan struct{}), make(chan struct{})
	p.pause = func() {
		second.Go(func() error {
			if !admitsThen(p, func() { probes++; close(decided); <-end }) {
				close(decided)
			}
			return nil
		})
		<-decided
	}
	admitsThen(p, func() { probes++ })
	close(end)
	second.Wait()
	return probes
}

// admitsThen is admits with a call that runs then and succeeds.
func admitsThen(f lockForm, then func()) (ran bool) {
	f.Do(ctx, func(context.Context) (int, error) {
		ran = true
		then()
		return 1, nil
	})
	return ran
}

// failTogether makes two calls fail. For readLocks, one fails after the other has read the count
// and before it has written it.
func failTogether(f lockForm) {
	if f, ok := f.(*readLocks); ok {
		f.pause = func() { admits(f, errBoom) }
		admits(f, errBoom)
		return
	}
	var callers errgroup.Group
	for range 2 {
		callers.Go(func() error {
			admits(f, errBoom)
			return nil
		})
	}
	callers.Wait()
}
