// Package sim answers what a configuration would do in an outage: it runs the real policies against
// a simulated server, in virtual time. Two minutes take about a second.
//
//	report := sim.Test(t, sim.Scenario{
//		Rate:      sim.Constant(200),
//		Incidents: sim.Library()["slow"],
//	}, map[string]func() resilience.Policy{"users": newUsersPipeline})
//	if r := report.Pipelines["users"]; r.Metastable > 0 || r.Amplification.Max > 1.3 {
//		t.Errorf("the outage doesn't end, or retries add too much load: %+v", r)
//	}
//
// A [Scenario] describes callers, a server with workers and queues, and incidents. [Run] creates the
// pipelines, makes the calls, and returns a [Report] of what callers received and what the server
// had to do: before the incidents, during them, and after, when some pipelines don't recover.
// [Report.WriteHTML] draws it.
//
// Use it in tests, in design reviews, and, with [ReadTrace], to try a change of a configuration on
// recorded traffic. It compares pipelines well; it doesn't predict numbers of your server, whose
// service times may depend on load in other ways than by queueing. docs/simulation.md describes what
// the simulation leaves out.
//
// Policies run in a bubble of testing/synctest, so they must be created by the functions that are
// passed to Run, and must not do real I/O. The same scenario gives the same report, bit for bit, on
// any number of processors, if the policies use no random numbers and no two calls of a client wake
// up at the same nanosecond, as calls do that wait until the same instant.
//
// A call through the guide's pipeline takes 10 to 20 µs of processor time (BenchmarkRun).
package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
)

// Run simulates the scenario for each of the pipelines, by name, and returns a report. All pipelines
// receive the same calls.
//
// In every run, a pipeline's function is called once for each client and once more, in virtual time.
// Each of its results must be new: they must not share a policy or a budget, except
// [resilience.AtMostOnce] and functions ([resilience.PolicyFunc]), whose state Run can't see. Calls
// have the values of ctx, but not its deadline.
//
// Run returns an error that names the pipeline
//
//   - if two results of a function share a policy or a budget, or one is nil;
//   - if a policy or a function panics or calls runtime.Goexit;
//   - if calls are in a deadlock, or don't return after their context has ended;
//   - if a goroutine outlives its run;
//   - if a run makes no progress for 5 s of real time, because a policy waits for something outside,
//     or computes for that long. Its goroutines remain.
//
// Run returns the error of [Scenario.Validate] for an invalid scenario, and an error if there are no
// pipelines or if it is called in a bubble of testing/synctest. When ctx ends, Run soon returns
// [context.Cause] and a report of the runs that had ended; with any other error, the report is nil.
//
// A panic on a goroutine that a policy starts ends the program, unless the policy passes it on, as
// hedge does. Run uses all processors. It can be called concurrently, in any program.
func Run(ctx context.Context, s Scenario, pipelines map[string]func() resilience.Policy) (*Report, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if len(pipelines) == 0 {
		return nil, errors.New("sim: Run: there are no pipelines, must be at least one")
	}
	names := slices.Sorted(maps.Keys(pipelines))
	for _, name := range names {
		if pipelines[name] == nil {
			return nil, fmt.Errorf("sim: pipeline %q: the function is nil, must create the pipeline", name)
		}
	}
	if err := tryBubble(); err != nil {
		return nil, err
	}
	s = s.withDefaults()
	p := &pool{scenario: &s, tallies: map[string]*tally{}}
	for _, name := range names {
		p.tallies[name] = newTally(&s)
	}
	for n := range s.Runs { // all pipelines' first runs, then the second: a report that is cut short is fair
		for _, name := range names {
			p.jobs = append(p.jobs, &run{
				scenario: &s, seed: s.Seed + uint64(n), pipeline: name, create: pipelines[name], parent: ctx,
			})
		}
	}
	complete, err := p.work(ctx)
	if err != nil {
		return nil, err
	}
	if !complete {
		err = context.Cause(ctx)
	}
	return p.report(), err
}

// Test is [Run] with the test's context. An error fails the test and ends it.
func Test(t *testing.T, s Scenario, pipelines map[string]func() resilience.Policy) *Report {
	t.Helper()
	report, err := Run(t.Context(), s, pipelines)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// tryBubble returns an error if no bubble can be created.
func tryBubble() (err error) {
	defer func() {
		if v := recover(); v != nil { // in a bubble, or with GODEBUG=asynctimerchan=1
			err = fmt.Errorf("sim: Run: %v", v)
		}
	}()
	synctest.Test(new(testing.T), func(*testing.T) {})
	return nil
}

// A pool makes the runs of a report.
type pool struct {
	scenario *Scenario
	tallies  map[string]*tally // by pipeline
	jobs     []*run
	next     atomic.Int64 // the job that a free worker takes
	records  []*record    // by job: of runs that have ended and were not added yet
	added    int          // jobs before it were added
}

// A jobResult is a run that has ended, with its record or an error.
type jobResult struct {
	job    int
	record *record
	err    error
}

// work makes all runs and adds them to the tallies. It returns the first error of a run, and whether
// the runs are complete: they aren't if ctx ends first.
func (p *pool) work(ctx context.Context) (complete bool, err error) {
	results := make(chan jobResult, len(p.jobs)) // a run that is stuck never sends
	for range min(runtime.GOMAXPROCS(0), len(p.jobs)) {
		go p.worker(results)
	}
	defer p.stop() // also if OnProgress panics

	p.records = make([]*record, len(p.jobs))
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for ended := 0; ended < len(p.jobs); {
		select {
		case r := <-results:
			if r.err != nil {
				return false, r.err
			}
			ended++
			p.records[r.job] = r.record
			p.addInOrder()
		case <-ctx.Done():
			p.addRest(results)
			return false, nil
		case <-ticker.C:
			p.showProgress()
		}
	}
	if p.scenario.OnProgress != nil {
		p.scenario.OnProgress(1)
	}
	return true, nil
}

// worker makes runs until there are no more, or one has failed.
func (p *pool) worker(results chan<- jobResult) {
	for {
		job := int(p.next.Add(1)) - 1
		if job >= len(p.jobs) {
			return
		}
		record, err := p.jobs[job].watch()
		results <- jobResult{job, record, err}
		if err != nil {
			return
		}
	}
}

// stop ends the runs in progress, and begins no more.
func (p *pool) stop() {
	p.next.Store(int64(len(p.jobs)))
	for _, r := range p.jobs {
		r.stopped.Store(true)
	}
}

// addInOrder adds the runs up to the first that hasn't ended: sums of floating-point numbers depend
// on the order.
func (p *pool) addInOrder() {
	for ; p.added < len(p.jobs) && p.records[p.added] != nil; p.added++ {
		p.add(p.added)
	}
}

// addRest adds all runs that have ended.
func (p *pool) addRest(results <-chan jobResult) {
	for len(results) > 0 {
		r := <-results
		p.records[r.job] = r.record
	}
	for job, record := range p.records {
		if record != nil {
			p.add(job)
		}
	}
}

func (p *pool) add(job int) {
	p.tallies[p.jobs[job].pipeline].add(p.records[job])
	p.records[job] = nil
}

func (p *pool) report() *Report {
	report := &Report{Scenario: *p.scenario, Pipelines: map[string]*Result{}}
	for name, t := range p.tallies {
		report.Pipelines[name] = t.end()
	}
	return report
}

func (p *pool) showProgress() {
	if p.scenario.OnProgress == nil {
		return
	}
	sum := 0.0
	for _, r := range p.jobs {
		sum += min(r.reached().Seconds()/p.scenario.Length.Seconds(), 1)
	}
	p.scenario.OnProgress(min(sum/float64(len(p.jobs)), 0.999))
}

// watch makes the run. If it makes no step for 5 s, watch returns an error and leaves it behind.
func (r *run) watch() (*record, error) {
	const interval, most = 250 * time.Millisecond, 20
	ended := make(chan jobResult, 1)
	go func() {
		var result jobResult
		defer func() { ended <- result }() // also if synctest ends the goroutine, for a data race
		result.err = fmt.Errorf("sim: pipeline %q: the race detector found a data race", r.pipeline)
		result.record, result.err = r.do()
	}()
	// Ticks that are missed, because the program was suspended, don't count.
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last, idle := r.progress.Load(), 0
	for {
		select {
		case result := <-ended:
			return result.record, result.err
		case <-ticker.C:
		}
		if now := r.progress.Load(); now != last {
			last, idle = now, 0
			continue
		}
		if idle++; idle == most {
			r.stopped.Store(true)
			what := "no progress for 5 s of real time: a policy waits for something outside of virtual time, " +
				"such as real I/O or a channel, or computes"
			if r.finished.Load() {
				what = "a goroutine outlives the run: it waits for something outside of virtual time"
			}
			return nil, fmt.Errorf("sim: pipeline %q: %s", r.pipeline, what)
		}
	}
}
