package main

import (
	_ "embed"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resilienceconfig"
	"github.com/effector-go/resilience/sim"
)

//go:embed example.yaml
var example []byte

// simulate is the command simulate.
func (p *program) simulate(args []string) error {
	set := p.flags("simulate", "[FILE] [flags]")
	var s setting
	s.add(set)
	out := set.String("out", "", "`FILE` for the report; its extension is .html, .json, .csv, or .txt. With several incidents, r.html becomes r-slow.html and so on")
	files, err := parse(set, args)
	if err != nil {
		return err
	}
	var file *resilienceconfig.File
	switch len(files) {
	case 0:
		if file, err = resilienceconfig.Parse(example, resilienceconfig.Options{}); err != nil {
			return err
		}
		s.rateOfExample()
	case 1:
		if _, file, err = p.load(files[0]); err != nil {
			return err
		}
	default:
		return misuse("simulate: %d files, must be at most one", len(files))
	}
	if *out != "" && writers[filepath.Ext(*out)] == nil {
		return misuse("-out: %q, must end in .html, .json, .csv, or .txt", *out)
	}
	names, err := s.names(file)
	if err != nil {
		return err
	}
	scenarios, err := s.scenarios(p)
	if err != nil {
		return err
	}
	pipelines := map[string]func() resilience.Policy{}
	for _, name := range names {
		pipelines[name] = create(file, name)
	}
	missed := false
	for i, scenario := range scenarios {
		if i > 0 {
			fmt.Fprintln(p.out)
		}
		report, err := p.runOne(scenario, fmt.Sprintf("%s (%d of %d)", titleOf(scenario), i+1, len(scenarios)), pipelines)
		if report == nil {
			return err
		}
		if err := report.WriteText(p.out); err != nil {
			return err
		}
		if *out != "" {
			path := *out
			if len(scenarios) > 1 {
				ext := filepath.Ext(path)
				path = strings.TrimSuffix(path, ext) + "-" + scenario.Name + ext
			}
			if err := writeReport(path, report); err != nil {
				return broken("%w", err)
			}
		}
		if err != nil {
			return p.ended(err)
		}
		missed = p.judge(s.goals, scenario, report) || missed
	}
	if missed {
		return errQuiet
	}
	return nil
}

// rateOfExample sets the load of the example, unless flags do.
func (s *setting) rateOfExample() {
	if s.file == "" && s.trace == "" && s.rate == "" {
		s.rate = "240"
		if s.service == "" {
			s.service = "logNormal(18ms, 60ms)"
		}
		override(&s.clients, max(s.clients, 10))
		if s.runs == 0 {
			s.runs = 3
		}
	}
	if len(s.incidents) == 0 && s.file == "" {
		s.incidents = list{"slow"}
	}
}

func titleOf(s sim.Scenario) string {
	if s.Name == "" {
		return "simulation"
	}
	return s.Name
}

// names returns the names of the pipelines to simulate.
func (s *setting) names(file *resilienceconfig.File) ([]string, error) {
	all := resilienceconfig.New(file).Names()
	if len(s.pipelines) == 0 {
		return all, nil
	}
	for _, name := range s.pipelines {
		if !slices.Contains(all, name) {
			return nil, misuse("-pipeline: %q, must be one of %s", name, strings.Join(all, ", "))
		}
	}
	return s.pipelines, nil
}

// create returns a function that creates a pipeline with everything that it uses.
func create(file *resilienceconfig.File, name string) func() resilience.Policy {
	return func() resilience.Policy { return resilienceconfig.New(file).Pipeline(name) }
}

// runOne runs a scenario and shows the progress.
func (p *program) runOne(s sim.Scenario, what string, pipelines map[string]func() resilience.Policy) (*sim.Report, error) {
	if p.terminal {
		s.OnProgress = func(share float64) {
			const width = 30
			done := int(share * width)
			fmt.Fprintf(p.errOut, "\r%s%s %3.0f%% %s ", strings.Repeat("█", done), strings.Repeat("░", width-done), 100*share, what)
		}
		defer fmt.Fprint(p.errOut, "\r\x1b[K")
	}
	return sim.Run(p.ctx, s, pipelines)
}

// ended returns the error of a run that ended early.
func (p *program) ended(err error) error {
	if p.ctx.Err() != nil {
		return &exit{interrupted, errInterrupted}
	}
	return err
}

// judge prints the goals that the pipelines miss, and reports whether there are any.
func (p *program) judge(goals goals, s sim.Scenario, r *sim.Report) (missed bool) {
	for _, name := range slices.Sorted(maps.Keys(r.Pipelines)) {
		for _, g := range goals {
			if result := r.Pipelines[name]; !g.met(result) {
				v, _ := g.worst(result)
				fmt.Fprintf(p.out, "missed: %s: %s: %s is %s, must be %s\n", titleOf(s), name, g.name, numberText(v), strings.TrimSpace(strings.TrimPrefix(g.text, g.name)))
				missed = true
			}
		}
	}
	return missed
}

func numberText(v float64) string {
	if math.IsInf(v, 0) {
		return "infinite"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

var writers = map[string]func(r *sim.Report, w io.Writer) error{
	".html": (*sim.Report).WriteHTML,
	".json": (*sim.Report).WriteJSON,
	".csv":  (*sim.Report).WriteCSV,
	".txt":  (*sim.Report).WriteText,
}

func writeReport(path string, r *sim.Report) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = writers[filepath.Ext(path)](r, f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
