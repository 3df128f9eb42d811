package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/effector-go/resilience/sim"
)

// A setting is the flags that say what is simulated.
type setting struct {
	file, trace   string
	rate, service string
	workers       int
	replicas      int
	clients       int
	runs          int
	length        time.Duration
	goodWithin    time.Duration
	incidents     list
	pipelines     list
	goals         goals
}

func (s *setting) add(set *flag.FlagSet) {
	set.StringVar(&s.file, "scenario", "", "`FILE` with a scenario, in YAML or JSON; other flags take precedence")
	set.StringVar(&s.trace, "trace", "", "CSV `FILE` with recorded calls (start, duration, outcome), for -rate and -service")
	set.StringVar(&s.rate, "rate", "", "calls per second of all clients: `RATE` is 200, steps(0s: 100, 30s: 400), or ramp(100, 400, 1m)")
	set.StringVar(&s.service, "service", "", "service time: `DISTRIBUTION` is fixed(20ms), exponential(20ms), logNormal(20ms, 100ms), or percentiles(50: 5ms, 99: 50ms)")
	set.IntVar(&s.workers, "workers", 0, "`number` of calls that a replica serves concurrently (default: 60% are busy)")
	set.IntVar(&s.replicas, "replicas", 0, "`number` of servers (default 1; 3 for one-of-many)")
	set.IntVar(&s.clients, "clients", 0, "`number` of processes, each with its own pipeline (default 1)")
	set.IntVar(&s.runs, "runs", 0, "`number` of runs with different seeds (default 5)")
	set.DurationVar(&s.length, "length", 0, "`time` in which calls are made (default 2m, or the trace)")
	set.DurationVar(&s.goodWithin, "good-within", 0, "`time` within which an answer is good (default 1s)")
	set.Var(&s.incidents, "incident", "`names` from the library, one scenario each: "+strings.Join(incidentNames(), ", "))
	set.Var(&s.pipelines, "pipeline", "`names` of the pipelines in the file (default all)")
	set.Var(&s.goals, "goal", "`bound` in the worst run of each scenario, such as after>=0.99 or amplification<=1.3; can be repeated")
}

func incidentNames() []string { return slices.Sorted(maps.Keys(sim.Library())) }

// scenarios returns the scenarios that the flags ask for, with a name for each.
func (s *setting) scenarios(p *program) ([]sim.Scenario, error) {
	var base sim.Scenario
	if s.file != "" {
		data, err := read(s.file, maxScenario)
		if err != nil {
			return nil, broken("%w", err)
		}
		if err := readScenario(data, &base); err != nil {
			return nil, broken("%s:%w", s.file, err)
		}
	}
	if s.trace != "" {
		f, err := os.Open(s.trace)
		if err != nil {
			return nil, broken("%w", err)
		}
		defer f.Close()
		trace, err := sim.ReadTrace(f)
		if err != nil {
			return nil, broken("%s: %w", s.trace, err)
		}
		fmt.Fprintf(p.out, "%s: %v\n\n", s.trace, trace)
		base.Rate, base.Server.Service = trace.Rate, trace.Service
	}
	if s.file != "" || s.trace != "" {
		checked := base
		if s.rate != "" { // a scenario file need not have one then
			checked.Rate = sim.Constant(1)
		}
		if err := checked.Validate(); err != nil && (s.trace == "" || s.length == 0) {
			return nil, broken("%s: %w", s.file+s.trace, err)
		}
	} else if s.rate == "" {
		return nil, misuse("no calls: -rate, -trace, or -scenario must be set")
	}
	if s.rate != "" {
		if err := base.Rate.UnmarshalText([]byte(s.rate)); err != nil {
			return nil, misuse("-rate: %w", err)
		}
	}
	if s.service != "" {
		if err := base.Server.Service.UnmarshalText([]byte(s.service)); err != nil {
			return nil, misuse("-service: %w", err)
		}
	}
	override(&base.Server.Workers, s.workers)
	override(&base.Server.Replicas, s.replicas)
	override(&base.Clients, s.clients)
	override(&base.Runs, s.runs)
	override(&base.Length, s.length)
	override(&base.GoodWithin, s.goodWithin)

	all := []sim.Scenario{base}
	if len(s.incidents) > 0 {
		all = nil
	}
	library := sim.Library()
	for _, name := range s.incidents {
		incidents, ok := library[name]
		if !ok {
			return nil, misuse("-incident: %q, must be one of %s", name, strings.Join(incidentNames(), ", "))
		}
		scenario := base
		scenario.Name, scenario.Incidents = name, incidents
		if name == "one-of-many" && scenario.Server.Replicas == 0 {
			scenario.Server.Replicas = 3
		}
		all = append(all, scenario)
	}
	for _, scenario := range all {
		if err := scenario.Validate(); err != nil {
			return nil, misuse("%w", err)
		}
	}
	return all, nil
}

func override[N int | time.Duration](field *N, flag N) {
	if flag != 0 {
		*field = flag
	}
}

const (
	maxScenario = 256 << 20 // bytes; reports have replays in full
	maxYAML     = 1 << 20   // bytes
	maxTokens   = 20_000    // characters with a meaning in YAML; the parser takes time quadratic in them
)

// readScenario reads a scenario in YAML or JSON. Its errors continue the name of the file: they begin
// with the place or a space.
func readScenario(data []byte, s *sim.Scenario) (err error) {
	if text := bytes.TrimSpace(data); len(text) > 0 && text[0] == '{' && json.Valid(text) {
		if err := s.UnmarshalJSON(text); err != nil {
			return fmt.Errorf(" %w", err)
		}
		return nil
	}
	if !simple(data) {
		return errors.New(" too large for YAML, must be JSON")
	}
	defer func() {
		if v := recover(); v != nil {
			err = errNotYAML
		}
	}()
	var value any
	if err := yaml.Unmarshal(data, &value); err != nil {
		// [2:7] text, and then the lines around it
		first, _, _ := strings.Cut(err.Error(), "\n")
		place, text, ok := strings.Cut(strings.TrimPrefix(first, "["), "] ")
		if !ok {
			return fmt.Errorf(" %s", first)
		}
		return fmt.Errorf("%s: %s", place, text)
	}
	text, err := json.Marshal(value)
	if err == nil {
		err = s.UnmarshalJSON(text)
	}
	if err != nil {
		return fmt.Errorf(" %w", err)
	}
	return nil
}

var errNotYAML = errors.New(" not YAML")

// simple reports whether the parser reads the text as YAML in a short time.
func simple(data []byte) bool {
	tokens := 0
	for _, c := range data {
		if strings.IndexByte(":-?[{,&*!", c) >= 0 {
			tokens++
		}
	}
	return len(data) <= maxYAML && tokens <= maxTokens
}
