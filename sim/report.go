package sim

import (
	"fmt"
	"math"
	"time"
)

// A Report is the result of [Run].
type Report struct {
	Scenario  Scenario           `json:"scenario"`  // with its defaults filled in
	Pipelines map[string]*Result `json:"pipelines"` // by name
}

// A Result is what one pipeline did. No number is NaN or infinite.
type Result struct {
	// Calls is the number of calls in a run.
	Calls Spread `json:"calls"`

	// The shares of all calls that ended in these ways; their sum is 1.
	Good    Spread `json:"good"`    // no error, within GoodWithin
	Late    Spread `json:"late"`    // no error but later, or no answer by the end of the run
	Failed  Spread `json:"failed"`  // any other error, however late
	Refused Spread `json:"refused"` // an error that is [resilience.ErrRefused], and no attempt was made

	// The share of good calls among those made before the first incident, from then until the end of
	// the last one, and after it.
	Before Spread `json:"before"`
	During Spread `json:"during"`
	After  Spread `json:"after"`

	// Attempts is how often the effector was started per call.
	Attempts Spread `json:"attempts"`
	// Amplification is the same in those ten seconds of the run in which it is highest.
	Amplification Spread `json:"amplification"`
	// Wasted is the share of the workers' time that served no caller.
	Wasted Spread `json:"wasted"`

	// Recovery is how many seconds after the end of the last incident the run has recovered. It
	// includes the runs that did.
	//
	// A run has recovered at the first second from which on the share of good calls is normal, both in
	// a window (at least 5 s and 200 calls, or all calls after the incident if they are fewer) and from
	// there to the end. It is normal if it is at least 0.95 of that before the incident, minus three
	// standard errors. The share before counts as 1 if there were fewer than 100 calls. If the run ends
	// less than 10 s after the last incident, nothing is judged.
	Recovery Spread `json:"recovery"`
	// Metastable is the number of runs that did not recover.
	Metastable int `json:"metastable"`
	// FalseOpenings is how often breakers opened although nothing was wrong: before the first incident,
	// or after the run has recovered.
	FalseOpenings Spread `json:"falseOpenings"`
	// Waiting is the highest number of calls in progress concurrently.
	Waiting Spread `json:"waiting"`

	// P50 and P99 are quantiles of the time of good calls, in seconds.
	P50 Spread `json:"p50"`
	P99 Spread `json:"p99"`

	// Series has one element for each second of the run.
	Series []Second `json:"series"`
}

// A Spread is a number over the runs that have it. If no run does, all fields are 0.
type Spread struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	Max  float64 `json:"max"`
	Runs int     `json:"runs"` // how many runs have the number
}

func (s *Spread) add(v float64) {
	if s.Runs == 0 {
		s.Min, s.Max = v, v
	}
	s.Runs++
	s.Min, s.Max = min(s.Min, v), max(s.Max, v)
	// Rounding must not move the mean out of the range.
	s.Mean = min(max(s.Mean+(v-s.Mean)/float64(s.Runs), s.Min), s.Max)
}

// A Second is the mean of one second over the runs. P50 and P99 are the mean over the runs that have
// good calls in it.
type Second struct {
	At int `json:"at"` // the second, from 0

	// Calls made in this second, by how they ended.
	Offered float64 `json:"offered"`
	Good    float64 `json:"good"`
	Late    float64 `json:"late"`
	Failed  float64 `json:"failed"`
	Refused float64 `json:"refused"`

	Attempts float64 `json:"attempts"` // starts of the effector in this second
	Queue    float64 `json:"queue"`    // mean number of attempts that wait for a worker
	Waiting  float64 `json:"waiting"`  // mean number of calls in progress
	Open     float64 `json:"open"`     // share of the breakers that aren't closed; 0 without breakers
	P50      float64 `json:"p50"`      // of the time of good calls made in this second, in seconds
	P99      float64 `json:"p99"`
}

// A tally adds the runs of a pipeline up to a result.
type tally struct {
	*Result
	scenario *Scenario
	runs     int
	goodRuns []int // by second: runs with a good call
}

func newTally(s *Scenario) *tally {
	t := &tally{new(Result), s, 0, make([]int, seconds(s.Length))}
	t.Series = make([]Second, seconds(s.Length))
	for i := range t.Series {
		t.Series[i].At = i
	}
	return t
}

func (t *tally) add(run *record) {
	t.runs++
	all := counts{}
	for _, c := range run.phases {
		all.add(c)
	}
	t.Calls.add(float64(all.offered))
	if all.offered > 0 {
		for o, spread := range []*Spread{good: &t.Good, late: &t.Late, failed: &t.Failed, refused: &t.Refused} {
			spread.add(all.share(outcome(o)))
		}
		t.Attempts.add(float64(run.allAttempts) / float64(all.offered))
		t.Amplification.add(run.amplification())
	}
	for phase, spread := range []*Spread{before: &t.Before, during: &t.During, after: &t.After} {
		if run.phases[phase].offered > 0 {
			spread.add(run.phases[phase].share(good))
		}
	}
	if run.busy > 0 {
		t.Wasted.add(float64(run.wasted) / float64(run.busy))
	}
	calm := len(run.seconds) // the second from which on nothing is wrong any more
	if second, recovered, judged := run.recovery(); recovered {
		calm = second
		t.Recovery.add(float64(second) - run.last.Seconds())
	} else if judged {
		t.Metastable++
	}
	openings := run.early
	for _, n := range run.openings[calm:] {
		openings += n
	}
	t.FalseOpenings.add(float64(openings))
	t.Waiting.add(run.inProgress.most)
	if run.latencies.n > 0 {
		t.P50.add(run.latencies.quantile(0.5).Seconds())
		t.P99.add(run.latencies.quantile(0.99).Seconds())
	}
	for i := range t.Series {
		t.addSecond(run, i)
	}
}

// addSecond adds to sums, except for the quantiles, whose means it updates.
func (t *tally) addSecond(run *record, i int) {
	s, c := &t.Series[i], run.seconds[i]
	s.Offered += float64(c.offered)
	s.Good += float64(c.outcomes[good])
	s.Late += float64(c.outcomes[late])
	s.Failed += float64(c.outcomes[failed])
	s.Refused += float64(c.outcomes[refused])
	s.Attempts += float64(run.attempts[i])
	s.Queue += run.queue.mean(i)
	s.Waiting += run.inProgress.mean(i)
	if run.breakers > 0 {
		s.Open += run.open.mean(i) / float64(run.breakers)
	}
	if c.outcomes[good] > 0 {
		t.goodRuns[i]++
		n := float64(t.goodRuns[i])
		s.P50 += (run.quantiles[i][0] - s.P50) / n
		s.P99 += (run.quantiles[i][1] - s.P99) / n
	}
}

// end divides the sums by the number of runs.
func (t *tally) end() *Result {
	n := float64(max(t.runs, 1))
	for i := range t.Series {
		s := &t.Series[i]
		for _, sum := range []*float64{
			&s.Offered, &s.Good, &s.Late, &s.Failed, &s.Refused, &s.Attempts, &s.Queue, &s.Waiting, &s.Open,
		} {
			*sum /= n
		}
	}
	return t.Result
}

// amplification returns the highest number of attempts per call in ten seconds. There must be a
// call.
func (r *record) amplification() float64 {
	const width = 10
	calls, attempts, highest := 0, 0, 0.0
	for i := range r.seconds {
		calls += r.seconds[i].offered
		attempts += r.attempts[i]
		if i >= width {
			calls -= r.seconds[i-width].offered
			attempts -= r.attempts[i-width]
		}
		if calls > 0 && (i >= width-1 || i == len(r.seconds)-1) {
			highest = max(highest, float64(attempts)/float64(calls))
		}
	}
	return highest
}

// recovery returns the second at which the run has recovered, whether it has, and whether that can be
// judged: see [Result].
func (r *record) recovery() (second int, recovered, judged bool) {
	const (
		minLength      = 10 * time.Second // after the last incident
		minCalls       = 100              // before the first one
		normalShare    = 0.95             // of the share of good calls before
		standardErrors = 3
		windowLength   = 5 // seconds
		windowCalls    = 200
	)
	length := r.scenario.Length
	first := seconds(r.last)
	var rest counts
	for _, c := range r.seconds[first:] {
		rest.add(c)
	}
	if r.first == length || length-r.last < minLength || rest.offered == 0 {
		return 0, false, false
	}
	normal := 1.0
	if r.phases[before].offered >= minCalls {
		normal = r.phases[before].share(good)
	}
	normal *= normalShare
	isNormal := func(c counts) bool {
		return c.share(good) >= normal-standardErrors*math.Sqrt(normal*(1-normal)/float64(c.offered))
	}
	calls := min(windowCalls, rest.offered)
	var window counts // of the seconds from begin to end
	isShort := func(begin, end int) bool { return end-begin < windowLength || window.offered < calls }
	end := first
	for begin := first; begin < len(r.seconds); begin++ {
		for end < len(r.seconds) && isShort(begin, end) {
			window.add(r.seconds[end])
			end++
		}
		if isShort(begin, end) {
			break
		}
		if isNormal(window) && isNormal(rest) {
			return begin, true, true
		}
		window.subtract(r.seconds[begin])
		rest.subtract(r.seconds[begin])
	}
	return 0, false, true
}

// verdict returns in words what the pipeline does after the incidents.
func (r *Result) verdict() string {
	judged := r.Recovery.Runs + r.Metastable
	switch {
	case judged == 0 && r.During.Runs == 0:
		return "no incident"
	case judged == 0:
		return "ends too soon to judge"
	case r.Metastable == judged:
		return "does not recover"
	case r.Metastable > 0:
		return fmt.Sprintf("does not recover in %d of %d runs", r.Metastable, judged)
	}
	least, most := math.Ceil(r.Recovery.Min), math.Ceil(r.Recovery.Max)
	switch {
	case most == 0:
		return "recovers immediately"
	case least == most:
		return fmt.Sprintf("recovers in %.0f s", most)
	}
	return fmt.Sprintf("recovers in %.0f–%.0f s", least, most)
}
