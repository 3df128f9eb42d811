package main

import (
	"cmp"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resilienceconfig"
	"github.com/effector-go/resilience/sim"
)

//go:embed example.yaml
var example []byte

// A simulation is the flags of simulate.
type simulation struct {
	setting
	out string
}

func (s *simulation) add(set *flag.FlagSet) {
	s.setting.add(set)
	set.StringVar(&s.out, "out", "",
		"`FILE` for the report; its extension is .html, .json, .csv, or .txt. With several incidents, "+
			"r.html becomes r-slow.html and so on")
}

// simulate is the command simulate.
func (p *program) simulate(args []string) error {
	set := p.flags("simulate", "[FILE] [flags]")
	var s simulation
	s.add(set)
	files, err := parse(set, args)
	if err != nil {
		return err
	}
	file, err := p.fileOrExample(files, &s.setting)
	if err != nil {
		return err
	}
	if s.out != "" && writers[filepath.Ext(s.out)] == nil {
		return misuse("-out: %q, must end in .html, .json, .csv, or .txt", s.out)
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
		what := fmt.Sprintf("%s (%d of %d)", titleOf(scenario), i+1, len(scenarios))
		report, err := p.runOne(scenario, what, pipelines)
		if report == nil {
			return err
		}
		if err := p.writeReports(report, s.path(scenario, len(scenarios))); err != nil {
			return err
		}
		if err != nil {
			return p.ended(err)
		}
		missed = p.judge(s.goals, scenario, report) || missed
	}
	if missed {
		return errPrinted
	}
	return nil
}

// fileOrExample loads the file, or the example if there is none.
func (p *program) fileOrExample(files []string, s *setting) (file *resilienceconfig.File, err error) {
	switch len(files) {
	case 0:
		s.setForExample()
		return resilienceconfig.Parse(example, resilienceconfig.Options{})
	case 1:
		_, file, err = p.load(files[0])
		return file, err
	}
	return nil, misuse("simulate: %d files, must be at most one", len(files))
}

// setForExample sets the load of the example and an incident, unless flags do.
func (s *setting) setForExample() {
	if s.file == "" && s.trace == "" && s.rate == "" {
		s.rate = "240"
		s.service = cmp.Or(s.service, "logNormal(18ms, 60ms)")
		s.clients = cmp.Or(s.clients, 10)
		s.runs = cmp.Or(s.runs, 3)
	}
	if len(s.incidents) == 0 && s.file == "" {
		s.incidents = list{"slow"}
	}
}

// path returns where the report of one of several scenarios is written; "" if it isn't.
func (s *simulation) path(scenario sim.Scenario, scenarios int) string {
	if s.out == "" || scenarios == 1 {
		return s.out
	}
	ext := filepath.Ext(s.out)
	return strings.TrimSuffix(s.out, ext) + "-" + scenario.Name + ext
}

// writeReports prints a report, and writes it to the path unless that is empty.
func (p *program) writeReports(r *sim.Report, path string) error {
	if err := r.WriteText(p.out); err != nil || path == "" {
		return err
	}
	return writeReport(path, r)
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
func (p *program) runOne(
	s sim.Scenario, what string, pipelines map[string]func() resilience.Policy,
) (*sim.Report, error) {
	if p.terminal {
		s.OnProgress = func(share float64) {
			const width = 30
			done := int(share * width)
			bar := strings.Repeat("█", done) + strings.Repeat("░", width-done)
			fmt.Fprintf(p.errOut, "\r%s %3d%% %s ", bar, int(100*share), what)
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
			if is := g.missed(r.Pipelines[name]); is != "" {
				fmt.Fprintf(p.out, "missed: %s: %s: %s\n", titleOf(s), name, is)
				missed = true
			}
		}
	}
	return missed
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
