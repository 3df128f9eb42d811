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

// A tuning is the flags of tune.
type tuning struct {
	setting
	vary   variables
	within time.Duration
}

func (t *tuning) add(set *flag.FlagSet) {
	t.setting.add(set)
	set.Lookup("pipeline").Usage = "`name` of the pipeline (default: the only one in the file)"
	set.Var(&t.vary, "vary",
		"number that may change, and its `values`: retry.maxAttempts=1..5, timeout[2].limit=50ms..1s, "+
			"budgets.extra.ratio=0.05..1, breaker.consecutive=5,10,20; can be repeated")
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

// key identifies the candidate.
func (c *candidate) key() string { return strings.Join(c.values, "\x00") }

// isUnchanged reports whether the candidate is the file as it is.
func (c *candidate) isUnchanged() bool {
	return !slices.ContainsFunc(c.values, func(value string) bool { return value != "" })
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
	var t tuning
	t.add(set)
	files, err := parse(set, args)
	if err != nil {
		return err
	}
	switch {
	case len(files) != 1:
		return misuse("tune: %d files, must be one", len(files))
	case len(t.vary) == 0:
		return misuse("-vary: not set, must be such as retry.maxAttempts=1..5")
	case t.within < time.Second:
		return misuse("-for: %v, must be at least 1s", t.within)
	}
	data, file, err := p.load(files[0])
	if err != nil {
		return err
	}
	names, err := t.names(file)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return misuse("-pipeline: %d pipelines, must be one of %s", len(names), strings.Join(names, ", "))
	}
	scenarios, err := t.scenarios(p)
	if err != nil {
		return err
	}
	s := &search{
		program: p, data: data, pipeline: names[0], vary: t.vary, goals: t.goals, scenarios: scenarios,
		random: rand.New(rand.NewPCG(1, 1)), known: map[string]*candidate{},
	}
	if err := s.readOld(); err != nil {
		return misuse("-vary: %w", err)
	}
	return s.run(t.within)
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
		if _, err = d.set(v.place, v.samples()[0]); err != nil {
			return err
		}
	}
	for i := range s.vary {
		if err := s.checkFits(i); err != nil {
			return err
		}
	}
	return nil
}

// checkFits returns an error if no value of a variable fits the file: its range is a mistake.
func (s *search) checkFits(variable int) error {
	v := s.vary[variable]
	var reason error
	for _, value := range v.samples() {
		c := &candidate{values: make([]string, len(s.vary))}
		c.values[variable] = value
		if reason = s.build(c); reason == nil {
			return nil
		}
	}
	return fmt.Errorf("%s: no value fits the file: %w", v.text, reason)
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
	c.file, err = parsePipelines(c.data)
	return err
}

// evaluate simulates the candidates, with this many runs, or as many as the scenarios have if it is 0.
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

// run searches for a time, and prints what it found.
func (s *search) run(within time.Duration) error {
	begun := time.Now()
	end := begun.Add(within)
	s.show("the file as it is")
	s.asItIs = &candidate{values: make([]string, len(s.vary))}
	if err := s.build(s.asItIs); err != nil {
		return err
	}
	if err := s.evaluate(s.ctx, []*candidate{s.asItIs}, 0); err != nil {
		return s.ended(err)
	}
	full := time.Since(begun) // time for a candidate with all runs

	if err := s.scatter(begun, within); err != nil {
		return err
	}
	left := int(time.Until(end)/max(full, 1)) - len(s.vary) // simplify tries each changed number
	final, err := s.evaluateFully(s.finalists(min(max(left, 1), 9)))
	if err != nil {
		return err
	}
	final = append(final, s.asItIs)
	best := front(final)
	chosen := s.choose(final)
	var changes []string
	if chosen != nil && s.ctx.Err() == nil {
		s.show("which changes make a difference")
		if chosen, changes, err = s.simplify(chosen); err != nil && s.ctx.Err() == nil {
			return err
		}
	}
	s.show("")
	s.print(best, chosen, changes)
	switch {
	case s.ctx.Err() != nil:
		return &exit{interrupted, errInterrupted}
	case chosen == nil:
		return broken("no candidate meets the goal")
	}
	return nil
}

// show replaces the line that shows the progress, if there is one.
func (s *search) show(format string, args ...any) {
	if s.terminal {
		fmt.Fprintf(s.errOut, "\r\x1b[K"+format, args...)
	}
}

// evaluateFully returns the candidates with the results of all runs, or the first of them if the context
// ends.
func (s *search) evaluateFully(candidates []*candidate) (evaluated []*candidate, err error) {
	for i, c := range candidates {
		s.show("%d of %d candidates with all runs", i+1, len(candidates))
		again := &candidate{values: c.values, data: c.data, file: c.file}
		err := s.evaluate(s.ctx, []*candidate{again}, 0)
		if s.ctx.Err() != nil {
			break
		}
		if err != nil {
			return nil, err
		}
		evaluated = append(evaluated, again)
	}
	return evaluated, nil
}

// scatter evaluates random candidates, then others near the best ones, with one run each.
func (s *search) scatter(begun time.Time, within time.Duration) error {
	ctx, cancel := context.WithDeadline(s.ctx, begun.Add(within*6/10))
	defer cancel()
	scattered := begun.Add(within * 35 / 100)
	first := &candidate{values: s.asItIs.values, data: s.asItIs.data, file: s.asItIs.file}
	batch := []*candidate{first}
	s.known[first.key()] = first
	var all []*candidate
	for ctx.Err() == nil {
		var best []*candidate
		if time.Now().After(scattered) {
			best = front(all)
		}
		batch = s.fill(batch, best)
		if len(batch) == 0 { // everything was tried
			if best != nil || len(all) == 0 {
				break
			}
			scattered = time.Time{}
			continue
		}
		s.show("%d candidates, %.0f s left", len(all), time.Until(begun.Add(within)).Seconds())
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
	maps.DeleteFunc(s.known, func(_ string, c *candidate) bool { return len(c.results) != len(s.scenarios) })
	return nil
}

// fill adds new candidates that fit the file to a batch: near the best ones, or random ones if there are
// none.
func (s *search) fill(batch, best []*candidate) []*candidate {
	const tries = 10 // for each candidate
	size := 2 * runtime.GOMAXPROCS(0)
	for try := 0; len(batch) < size && try < tries*size; try++ {
		c := &candidate{values: make([]string, len(s.vary))}
		if len(best) > 0 {
			s.vicinity(c, best[s.random.IntN(len(best))])
		} else {
			for i, v := range s.vary {
				c.values[i] = s.unlessOld(v, v.random(s.random))
			}
		}
		if s.known[c.key()] == nil && s.build(c) == nil {
			s.known[c.key()] = c
			batch = append(batch, c)
		}
	}
	return batch
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
		if c := s.known[key]; !c.isUnchanged() {
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

// Differences that count as none.
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
		change := fmt.Sprintf("%s: %s → %s; ", v.text, shown(v.old), chosen.values[i])
		if err := s.build(without); err != nil {
			changes = append(changes, change+"the old value does not fit the others")
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
		changes = append(changes, change+"with the old value: "+cost)
	}
	return chosen, changes, nil
}

// lostText formats a share. Only 1 is 100, and only 0 is 0.
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

// print prints the best candidates, the changes, and the file.
func (s *search) print(best []*candidate, chosen *candidate, changes []string) {
	rows := best[:min(len(best), 8)] // with two more, at most ten
	for _, c := range []*candidate{s.asItIs, chosen} {
		isRow := func(r *candidate) bool { return r.key() == c.key() }
		if c != nil && !slices.ContainsFunc(rows, isRow) {
			rows = append(rows, c)
		}
	}
	slices.SortStableFunc(rows, func(a, b *candidate) int { return cmp.Compare(a.lost, b.lost) })
	s.printTable(rows, chosen)
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

// printTable prints a line for each candidate.
func (s *search) printTable(rows []*candidate, chosen *candidate) {
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
		if c.isUnchanged() {
			notes = append(notes, "as it is")
		}
		if chosen != nil && c.key() == chosen.key() {
			notes = append(notes, "chosen")
		}
		fmt.Fprintln(w, strings.Join(cells, "\t")+"\t"+strings.Join(notes, ", "))
	}
	w.Flush()
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(s.out, strings.TrimRight(line, " \n"))
	}
}
