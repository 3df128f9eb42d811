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
	"github.com/goccy/go-yaml/ast"

	"github.com/effector-go/resilience/sim"
)

// A setting is the flags that describe what is simulated.
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
	set.StringVar(&s.trace, "trace", "",
		"CSV `FILE` with recorded calls (start, duration, outcome), for -rate and -service")
	set.StringVar(&s.rate, "rate", "",
		"calls per second of all clients: `RATE` is 200, steps(0s: 100, 30s: 400), or ramp(100, 400, 1m)")
	set.StringVar(&s.service, "service", "",
		"service time: `DISTRIBUTION` is fixed(20ms), exponential(20ms), logNormal(20ms, 100ms), "+
			"or percentiles(50: 5ms, 99: 50ms)")
	set.IntVar(&s.workers, "workers", 0,
		"`number` of calls that a replica serves concurrently (default: 60% are busy)")
	set.IntVar(&s.replicas, "replicas", 0, "`number` of servers (default 1; 3 for one-of-many)")
	set.IntVar(&s.clients, "clients", 0, "`number` of processes, each with its own pipeline (default 1)")
	set.IntVar(&s.runs, "runs", 0, "`number` of runs with different seeds (default 5)")
	set.DurationVar(&s.length, "length", 0, "`time` in which calls are made (default 2m, or the trace)")
	set.DurationVar(&s.goodWithin, "good-within", 0, "`time` within which an answer is good (default 1s)")
	set.Var(&s.incidents, "incident",
		"`names` from the library, one scenario each: "+strings.Join(incidentNames(), ", "))
	set.Var(&s.pipelines, "pipeline", "`names` of the pipelines in the file (default all)")
	set.Var(&s.goals, "goal",
		"`bound` in the worst run of each scenario, such as after>=0.99 or amplification<=1.3; can be repeated")
}

func incidentNames() []string { return slices.Sorted(maps.Keys(sim.Library())) }

// scenarios returns the scenarios that the flags ask for: one for each incident, or one without -incident.
func (s *setting) scenarios(p *program) ([]sim.Scenario, error) {
	base, err := s.fromFiles(p)
	if err != nil {
		return nil, err
	}
	if err := s.override(&base); err != nil {
		return nil, err
	}
	all := []sim.Scenario{base}
	if len(s.incidents) > 0 {
		if all, err = s.withIncidents(base); err != nil {
			return nil, err
		}
	}
	for _, scenario := range all {
		if err := scenario.Validate(); err != nil {
			return nil, misuse("%w", err)
		}
	}
	return all, nil
}

// fromFiles returns the scenario of -scenario and -trace.
func (s *setting) fromFiles(p *program) (base sim.Scenario, err error) {
	if s.file == "" && s.trace == "" && s.rate == "" {
		return base, misuse("no calls: -rate, -trace, or -scenario must be set")
	}
	if s.file != "" {
		if base, err = readScenario(s.file); err != nil {
			return base, broken("%w", err)
		}
		if err := s.validate(base, s.trace != "" || s.rate != ""); err != nil {
			return base, broken("%s: %w", s.file, err)
		}
	}
	if s.trace != "" {
		trace, err := readTrace(s.trace)
		if err != nil {
			return base, broken("%w", err)
		}
		fmt.Fprintf(p.out, "%s: %v\n\n", s.trace, trace)
		base.Rate, base.Server.Service = trace.Rate, trace.Service
		if err := s.validate(base, s.rate != ""); err != nil {
			return base, broken("%s: %w", s.trace, err)
		}
	}
	return base, nil
}

// validate checks the scenario of a file. Its Rate need not be valid if there is another one, nor its
// Length if there is a flag.
func (s *setting) validate(read sim.Scenario, otherRate bool) error {
	if otherRate {
		read.Rate = sim.Constant(1)
	}
	if s.length != 0 {
		read.Length = 24 * time.Hour // the longest
	}
	return read.Validate()
}

// override sets what flags set.
func (s *setting) override(base *sim.Scenario) error {
	if s.rate != "" {
		if err := base.Rate.UnmarshalText([]byte(s.rate)); err != nil {
			return misuse("-rate: %w", err)
		}
	}
	if s.service != "" {
		if err := base.Server.Service.UnmarshalText([]byte(s.service)); err != nil {
			return misuse("-service: %w", err)
		}
	}
	setUnlessZero(&base.Server.Workers, s.workers)
	setUnlessZero(&base.Server.Replicas, s.replicas)
	setUnlessZero(&base.Clients, s.clients)
	setUnlessZero(&base.Runs, s.runs)
	setUnlessZero(&base.Length, s.length)
	setUnlessZero(&base.GoodWithin, s.goodWithin)
	return nil
}

func setUnlessZero[N int | time.Duration](field *N, flag N) {
	if flag != 0 {
		*field = flag
	}
}

// withIncidents returns the scenario with each of the incidents.
func (s *setting) withIncidents(base sim.Scenario) ([]sim.Scenario, error) {
	var all []sim.Scenario
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
	return all, nil
}

// readTrace reads a trace. The error names the path.
func readTrace(path string) (*sim.Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	trace, err := sim.ReadTrace(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return trace, nil
}

const maxScenario = 256 << 20 // bytes; reports have replays in full

// readScenario reads a scenario in YAML or JSON. The error names the path, and the place if there is
// one.
func readScenario(path string) (s sim.Scenario, err error) {
	data, err := read(path, maxScenario)
	if err != nil {
		return s, err
	}
	if text := bytes.TrimSpace(data); !bytes.HasPrefix(text, []byte("{")) || !json.Valid(text) {
		var located yaml.Error
		switch data, err = yamlToJSON(data); {
		case errors.As(err, &located) && located.GetToken() != nil:
			at := located.GetToken().Position
			return s, fmt.Errorf("%s:%d:%d: %s", path, at.Line, at.Column, located.GetMessage())
		case err != nil:
			return s, fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := s.UnmarshalJSON(data); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// yamlToJSON converts a scenario. An alias is an error: a few of them could repeat a list more often
// than any memory holds.
func yamlToJSON(data []byte) (text []byte, err error) {
	if !isSimple(data) {
		return nil, errors.New("too large or complex for YAML, must be JSON")
	}
	f, err := parseYAML(data)
	if err != nil {
		return nil, err
	}
	if len(f.Docs) > 1 {
		return nil, fmt.Errorf("has %d YAML documents, must be one", len(f.Docs))
	}
	if aliases := ast.FilterFile(ast.AliasType, f); len(aliases) > 0 {
		return nil, &yaml.SyntaxError{Message: "an alias is not accepted", Token: aliases[0].GetToken()}
	}
	defer func() {
		if recover() != nil {
			err = errNotYAML
		}
	}()
	var value any
	if len(f.Docs) > 0 && f.Docs[0].Body != nil {
		if err := yaml.NodeToValue(f.Docs[0].Body, &value); err != nil {
			return nil, err
		}
	}
	return json.Marshal(value)
}

// isSimple reports whether the parser reads the text as YAML in a short time. It takes time quadratic
// in each of the numbers here.
func isSimple(data []byte) bool {
	const (
		maxSize       = 1 << 20
		maxLines      = 5_000
		maxBrackets   = 2_000
		maxIndicators = 20_000
	)
	if len(data) > maxSize {
		return false
	}
	var lines, brackets, indicators int
	for _, c := range data {
		switch c {
		case '\n':
			lines++
		case '[', '{':
			brackets++
		case ':', '-', '?', ',', '&', '*', '!', ']', '}', '|', '>', '\'', '"', '@', '`', '%', '#':
			indicators++
		}
	}
	return lines <= maxLines && brackets <= maxBrackets && indicators <= maxIndicators
}
