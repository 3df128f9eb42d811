package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resilienceconfig"
	"github.com/effector-go/resilience/sim"
)

// tuning is the flags of tune alone.
type tuning struct {
	vary   variables
	within time.Duration
}

func (t *tuning) add(set *flag.FlagSet) {
	set.Var(&t.vary, "vary", "number that may change, and its `values`: retry.maxAttempts=1..5, timeout[2].limit=50ms..1s, budgets.extra.ratio=0.05..1, breaker.consecutive=5,10,20; can be repeated")
	set.DurationVar(&t.within, "for", time.Minute, "`time` to search")
}

// A candidate is a set of values for the variables, "" for that in the file, with what it does.
type candidate struct {
	values  []string
	data    []byte // the file with the values
	file    *resilienceconfig.File
	results []*sim.Result // by scenario
	lost    float64       // mean share of calls over the scenarios that aren't good
	spread  float64       // of lost over the runs
	load    float64       // highest amplification, at least 1
}

// A search looks for candidates.
type search struct {
	*program
	data      []byte
	pipeline  string
	vary      variables
	goals     goals
	scenarios []sim.Scenario
	random    *rand.Rand
	known     map[string]*candidate // with one run each
	asItIs    *candidate            // with all runs
}

// tune is the command tune.
func (p *program) tune(args []string) error {
	set := p.flags("tune", "FILE -pipeline NAME -vary PLACE=VALUES [flags]")
	var s setting
	var t tuning
	s.add(set)
	t.add(set)
	files, err := parse(set, args)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return misuse("tune: %d files, must be one", len(files))
	}
	if len(t.vary) == 0 {
		return misuse("-vary: not set, must be such as retry.maxAttempts=1..5")
	}
	if t.within < time.Second {
		return misuse("-for: %v, must be at least 1s", t.within)
	}
	data, file, err := p.load(files[0])
	if err != nil {
		return err
	}
	if len(s.pipelines) == 0 && len(resilienceconfig.New(file).Names()) == 1 {
		s.pipelines = resilienceconfig.New(file).Names()
	}
	if len(s.pipelines) != 1 {
		return misuse("-pipeline: %d names, must be one", len(s.pipelines))
	}
	if _, err := s.names(file); err != nil {
		return err
	}
	scenarios, err := s.scenarios(p)
	if err != nil {
		return err
	}
	search := &search{
		program: p, data: data, pipeline: s.pipelines[0], vary: t.vary, goals: s.goals, scenarios: scenarios,
		random: rand.New(rand.NewPCG(1, 1)), known: map[string]*candidate{},
	}
	if err := search.readOld(); err != nil {
		return misuse("-vary: %w", err)
	}
	return search.run(t.within)
}

// readOld reads the values in the file, and checks that the places can be changed.
func (s *search) readOld() error {
	d, err := newDocument(s.data, s.pipeline)
	if err != nil {
		return err
	}
	for _, v := range s.vary {
		if v.old, err = d.get(v.place); err != nil {
			return err
		}
		value := v.at(0)
		if v.choices != nil {
			value = v.choices[0]
		}
		if _, err = d.set(v.place, value); err != nil {
			return err
		}
	}
	for i, v := range s.vary { // each value alone: a range that never fits is a mistake
		fits := false
		var reason error
		values := v.choices
		if values == nil {
			values = []string{v.at(0), v.at(0.25), v.at(0.5), v.at(0.75), v.at(1)}
		}
		for _, value := range values {
			c := &candidate{values: make([]string, len(s.vary))}
			c.values[i] = value
			if err := s.build(c); err == nil {
				fits = true
				break
			} else {
				reason = err
			}
		}
		if !fits {
			return fmt.Errorf("%s: no value fits the file: %w", v.text, reason)
		}
	}
	return nil
}

// build writes the candidate's values into the file.
func (s *search) build(c *candidate) error {
	c.data = s.data
	for i, v := range s.vary {
		if c.values[i] == "" {
			continue
		}
		d, err := newDocument(c.data, s.pipeline)
		if err != nil {
			return err
		}
		if c.data, err = d.set(v.place, c.values[i]); err != nil {
			return err
		}
	}
	var err error
	c.file, err = resilienceconfig.Parse(c.data, options(c.data))
	return err
}

// evaluate simulates the candidates, with the number of runs, or that of the scenarios if it is 0.
func (s *search) evaluate(ctx context.Context, candidates []*candidate, runs int) error {
	if len(candidates) == 0 {
		return nil
	}
	pipelines := map[string]func() resilience.Policy{}
	for i, c := range candidates {
		c.lost, c.spread, c.load, c.results = 0, 0, 1, nil
		pipelines[strconv.Itoa(i)] = create(c.file, s.pipeline)
	}
	for _, scenario := range s.scenarios {
		if runs > 0 {
			scenario.Runs = runs
		}
		report, err := sim.Run(ctx, scenario, pipelines)
		if err != nil {
			return err
		}
		n := float64(len(s.scenarios))
		for i, c := range candidates {
			r := report.Pipelines[strconv.Itoa(i)]
			c.results = append(c.results, r)
			c.lost += (1 - r.Good.Mean) / n
			c.spread += (r.Good.Max - r.Good.Min) / n
			c.load = max(c.load, r.Amplification.Max)
		}
	}
	return nil
}

func (s *search) meets(c *candidate) bool {
	for _, r := range c.results {
		if !s.goals.met(r) {
			return false
		}
	}
	return true
}

// front returns the candidates that no other one beats in both lost calls and load, by lost calls.
func front(candidates []*candidate) []*candidate {
	sorted := slices.Clone(candidates)
	slices.SortStableFunc(sorted, func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(a.lost, b.lost), cmp.Compare(a.load, b.load))
	})
	var result []*candidate
	for _, c := range sorted {
		if len(result) == 0 || c.load < result[len(result)-1].load {
			result = append(result, c)
		}
	}
	return result
}

func (s *search) run(within time.Duration) error {
	begun := time.Now()
	say := func(format string, args ...any) {
		if s.terminal {
			fmt.Fprintf(s.errOut, "\r\x1b[K"+format, args...)
		}
	}
	say("the file as it is")
	s.asItIs = &candidate{values: make([]string, len(s.vary))}
	if err := s.build(s.asItIs); err != nil {
		return err
	}
	if err := s.evaluate(s.ctx, []*candidate{s.asItIs}, 0); err != nil {
		return s.ended(err)
	}
	full := time.Since(begun) // time for a candidate with all runs

	err := s.scatter(begun, within, full, say)
	if err != nil {
		return err
	}

	// The best with all runs.
	left := int(time.Until(begun.Add(within)) / max(full, 1))
	finalists := s.finalists(min(max(left-len(s.vary), 1), 9)) // each changed number is tried once more
	var final []*candidate
	for i, c := range finalists {
		say("%d of %d candidates with all runs", i+1, len(finalists))
		again := &candidate{values: c.values, data: c.data, file: c.file}
		err := s.evaluate(s.ctx, []*candidate{again}, 0)
		if s.ctx.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		final = append(final, again)
	}
	shown := front(append(final, s.asItIs))
	chosen := s.choose(append(final, s.asItIs))
	var changes []string
	if chosen != nil && s.ctx.Err() == nil {
		say("which changes make a difference")
		var err error
		if chosen, changes, err = s.simplify(chosen); err != nil && s.ctx.Err() == nil {
			return err
		}
	}
	say("")
	s.print(shown, chosen, changes)
	switch {
	case s.ctx.Err() != nil:
		return &exit{interrupted, errInterrupted}
	case chosen == nil:
		return broken("no candidate meets the goal")
	}
	return nil
}

// scatter tries random candidates, then such that are near the best, with one run each.
func (s *search) scatter(begun time.Time, within, full time.Duration, say func(string, ...any)) error {
	const tries = 20 // to find a candidate that is new and fits
	ctx, cancel := context.WithDeadline(s.ctx, begun.Add(within*6/10))
	defer cancel()
	scattered := begun.Add(within * 35 / 100)
	first := &candidate{values: s.asItIs.values, data: s.asItIs.data, file: s.asItIs.file}
	batch := []*candidate{first}
	s.known[strings.Join(first.values, "\x00")] = first
	var all []*candidate
	for ctx.Err() == nil {
		for try := 0; len(batch) < 2*runtime.GOMAXPROCS(0) && try < tries*runtime.GOMAXPROCS(0); try++ {
			c := &candidate{values: make([]string, len(s.vary))}
			if best := front(all); len(best) > 0 && time.Now().After(scattered) {
				s.vicinity(c, best[s.random.IntN(len(best))])
			} else {
				for i, v := range s.vary {
					c.values[i] = s.unlessOld(v, v.random(s.random))
				}
			}
			key := strings.Join(c.values, "\x00")
			if s.known[key] == nil && s.build(c) == nil {
				s.known[key] = c
				batch = append(batch, c)
			}
		}
		if len(batch) == 0 { // everything was tried
			if time.Now().After(scattered) || len(front(all)) == 0 {
				break
			}
			scattered = time.Time{}
			continue
		}
		say("%d candidates, %.0f s left", len(all), time.Until(begun.Add(within)).Seconds())
		err := s.evaluate(ctx, batch, 1)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		all = append(all, batch...)
		batch = nil
	}
	for key, c := range s.known {
		if len(c.results) != len(s.scenarios) {
			delete(s.known, key)
		}
	}
	return nil
}

// unlessOld returns "" for the value that is in the file.
func (s *search) unlessOld(v *variable, value string) string {
	if value == v.old {
		return ""
	}
	return value
}

// vicinity sets the candidate's values near those of another one.
func (s *search) vicinity(c, best *candidate) {
	copy(c.values, best.values)
	for range 1 + s.random.IntN(2) {
		i := s.random.IntN(len(s.vary))
		v := s.vary[i]
		c.values[i] = s.unlessOld(v, v.near(cmp.Or(c.values[i], v.old), s.random))
	}
}

// finalists returns at most n candidates of the front: the best ones that meet the goal, then others
// at even distances.
func (s *search) finalists(n int) []*candidate {
	var all []*candidate
	for _, key := range slices.Sorted(maps.Keys(s.known)) {
		if c := s.known[key]; slices.ContainsFunc(c.values, func(v string) bool { return v != "" }) {
			all = append(all, c)
		}
	}
	var meeting []*candidate
	for _, c := range all {
		if s.meets(c) {
			meeting = append(meeting, c)
		}
	}
	slices.SortStableFunc(meeting, func(a, b *candidate) int { return cmp.Compare(a.lost, b.lost) })
	best := front(all)
	result := meeting[:min(len(meeting), (n+1)/2)]
	for i := range n {
		if len(best) > 0 {
			if c := best[i*len(best)/n]; len(result) < n && !slices.Contains(result, c) {
				result = append(slices.Clip(result), c)
			}
		}
	}
	return result
}

// choose returns the candidate with the fewest lost calls that meets the goal, or nil.
func (s *search) choose(candidates []*candidate) (chosen *candidate) {
	for _, c := range candidates {
		if s.meets(c) && (chosen == nil || c.lost < chosen.lost || c.lost == chosen.lost && c.load < chosen.load) {
			chosen = c
		}
	}
	return chosen
}

const (
	sameLost = 0.002
	sameLoad = 0.02
)

// simplify restores the numbers that make no difference, and describes the others.
func (s *search) simplify(chosen *candidate) (*candidate, []string, error) {
	best := chosen // restored numbers must not add up
	var changes []string
	for i, v := range s.vary {
		if chosen.values[i] == "" {
			continue
		}
		without := &candidate{values: slices.Clone(chosen.values)}
		without.values[i] = ""
		if err := s.build(without); err != nil {
			changes = append(changes, fmt.Sprintf("%s: %s → %s; the old value does not fit the others", v.text, shown(v.old), chosen.values[i]))
			continue
		}
		if err := s.evaluate(s.ctx, []*candidate{without}, 0); err != nil {
			return chosen, changes, err
		}
		lost, load := without.lost-best.lost, without.load-best.load
		if lost <= max(sameLost, best.spread) && load <= sameLoad && s.meets(without) {
			chosen = without
			continue
		}
		cost := fmt.Sprintf("%+.1f points of lost calls, %+.2f load", 100*lost, load)
		if !s.meets(without) {
			cost += ", misses the goal"
		}
		changes = append(changes, fmt.Sprintf("%s: %s → %s; with the old value: %s", v.text, shown(v.old), chosen.values[i], cost))
	}
	return chosen, changes, nil
}

// lostText formats a share. What is not all isn't 100, and what is not nothing isn't 0.
func lostText(lost float64) string {
	switch {
	case lost > 0 && lost < 0.0005:
		return "<0.1 %"
	case lost < 1 && lost >= 0.9995:
		return ">99.9 %"
	}
	return fmt.Sprintf("%.1f %%", 100*lost)
}

func shown(old string) string { return cmp.Or(old, "default") }

// print prints the rows, the changes, and the file.
func (s *search) print(rows []*candidate, chosen *candidate, changes []string) {
	rows = rows[:min(len(rows), 8)] // with two more, at most ten
	for _, c := range []*candidate{s.asItIs, chosen} {
		if c != nil && !slices.ContainsFunc(rows, func(r *candidate) bool { return slices.Equal(r.values, c.values) }) {
			rows = append(rows, c)
		}
	}
	slices.SortStableFunc(rows, func(a, b *candidate) int { return cmp.Compare(a.lost, b.lost) })
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	head := []string{"lost", "load"}
	for _, v := range s.vary {
		head = append(head, v.text)
	}
	fmt.Fprintln(w, strings.Join(head, "\t")+"\t")
	for _, c := range rows {
		cells := []string{lostText(c.lost), fmt.Sprintf("%.2f×", c.load)}
		for i, v := range s.vary {
			cells = append(cells, cmp.Or(c.values[i], shown(v.old)))
		}
		var notes []string
		if slices.Equal(c.values, s.asItIs.values) {
			notes = append(notes, "as it is")
		}
		if chosen != nil && slices.Equal(c.values, chosen.values) {
			notes = append(notes, "chosen")
		}
		fmt.Fprintln(w, strings.Join(cells, "\t")+"\t"+strings.Join(notes, ", "))
	}
	w.Flush()
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(s.out, strings.TrimRight(line, " \n"))
	}
	if chosen == nil {
		return
	}
	fmt.Fprintln(s.out)
	for _, change := range changes {
		fmt.Fprintln(s.out, change)
	}
	if len(changes) == 0 {
		fmt.Fprintln(s.out, "no change makes a difference")
	}
	fmt.Fprintf(s.out, "\n%s", chosen.data)
}
