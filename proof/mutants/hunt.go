package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// A result is what became of a mutant.
type result struct {
	*mutant
	killedBy string // the suite and its test, [notCompiled], or "" if the mutant survived
}

// A hunt tries the mutants of one package after the other.
type hunt struct {
	*lab    // whose scratch is the package's
	workers int
	mutated []*goPackage // that may have mutants
	provers []*goPackage // of other modules, whose tests are about the mutated ones
	settled func(result) // is called when a result is known, concurrently
}

// slow lists the packages whose tests take as long as those of all others, or run in real time.
var slow = []string{"proof/faults", "proof/soak", "proof/composition"}

// everywhere has the packages that almost all tests import. Apart from their own tests, only those of these folders are about them.
var everywhere = map[string][]string{
	".":                {"proof/pipeline", "proof/contexts", "proof/others"},
	"internal/clock":   {"breaker", "budget", "timeout"},
	"internal/ctxkey":  {"timeout", "proof/contexts"},
	"internal/errtext": {"breaker"},
}

// suites returns the tests that may notice a fault in the package, its own first. For an internal package they include those of
// the packages that import it.
func (h *hunt) suites(p *goPackage) (all []suite) {
	few, limited := everywhere[p.folder()]
	add := func(q *goPackage) {
		name := strings.TrimPrefix(q.ImportPath, p.Module.Path+"/")
		if q.tested() && (q == p || !slices.Contains(slow, name) && (!limited || slices.Contains(few, name))) {
			all = append(all, suite{pkg: q})
		}
	}
	add(p)
	about := []string{p.ImportPath}
	for _, q := range h.mutated {
		if strings.HasPrefix(p.folder(), "internal/") && slices.Contains(q.Imports, p.ImportPath) {
			about = append(about, q.ImportPath)
			add(q)
		}
	}
	for _, q := range h.provers {
		if slices.ContainsFunc(about, q.tests) {
			add(q)
		}
	}
	return all
}

// pkg tries the mutants, all of one package.
func (h *hunt) pkg(ctx context.Context, p *goPackage, mutants []*mutant) (err error) {
	if len(mutants) == 0 {
		return nil
	}
	scratch, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	h.scratch = scratch
	all := []*mutant{nil} // that are in one program; the first stands for no fault
	var alone []*mutant
	for _, m := range mutants {
		if m.alone() {
			alone = append(alone, m)
		} else {
			all = append(all, m)
		}
	}
	compiled := slices.Clone(all)
	overlay, err := h.combine(ctx, p, compiled)
	if err != nil {
		return err
	}
	alive, err := h.each(ctx, all[1:], func(m *mutant) (string, error) {
		if !slices.Contains(compiled, m) {
			return notCompiled, nil
		}
		return "", nil
	})
	if err != nil {
		return err
	}

	suites := h.suites(p)
	for _, s := range suites {
		program, survivors, err := h.try(ctx, s, overlay, compiled, alive)
		if err != nil {
			return err
		}
		alive = survivors
		if s.pkg == p && program != nil && program.skipped != "" {
			if alive, err = h.tryExactly(ctx, alive, []suite{s}, program.skipped); err != nil {
				return err
			}
		}
	}
	if alone, err = h.tryExactly(ctx, alone, suites, ""); err != nil {
		return err
	}
	if p.tested() {
		racing := slices.DeleteFunc(slices.Clone(alive), func(m *mutant) bool { return !m.racy() })
		_, survivors, err := h.try(ctx, suite{p, true}, overlay, compiled, racing)
		if err != nil {
			return err
		}
		alive = append(slices.DeleteFunc(alive, (*mutant).racy), survivors...)
	}
	for _, m := range append(alive, alone...) {
		h.settled(result{m, ""})
	}
	return nil
}

// try runs the suite on each mutant that is alive and returns the survivors. A mutant's number is its place in all.
func (h *hunt) try(ctx context.Context, s suite, overlay string, all, alive []*mutant) (p *program, survivors []*mutant, err error) {
	if len(alive) == 0 {
		return nil, nil, nil
	}
	if p, err = h.build(ctx, s, overlay); err != nil {
		return nil, nil, err
	}
	if err := h.calibrate(ctx, p); err != nil {
		return nil, nil, err
	}
	survivors, err = h.each(ctx, alive, func(m *mutant) (string, error) { return p.try(ctx, slices.Index(all, m)), nil })
	return p, survivors, err
}

// tryExactly builds and runs the tests once for each mutant, without any other mutant in the program. The tests whose names match
// the pattern must pass without a fault.
func (h *hunt) tryExactly(ctx context.Context, mutants []*mutant, suites []suite, only string) (survivors []*mutant, err error) {
	run := func(files map[string]string, p *goPackage) (string, error) {
		overlay, err := h.overlay(files)
		if err != nil {
			return "", err
		}
		if complaints, err := h.compile(ctx, p, overlay); complaints != "" || err != nil {
			return notCompiled, err
		}
		for _, s := range suites {
			p, err := h.build(ctx, s, overlay)
			if err != nil {
				return "", err
			}
			p.only, p.limit = only, 4*h.slack
			by := p.try(ctx, 0)
			p.remove()
			if by != "" {
				return by, nil
			}
		}
		return "", nil
	}
	if len(mutants) == 0 {
		return nil, nil
	}
	if by, err := run(nil, mutants[0].file.pkg); by != "" || err != nil {
		return nil, errors.Join(err, fmt.Errorf("without a fault: %s", by))
	}
	return h.each(ctx, mutants, func(m *mutant) (string, error) {
		return run(map[string]string{m.file.path: m.apply(0, len(m.file.source))}, m.file.pkg)
	})
}

// try returns the suite and the test that notices the mutant with the number, or "" if none does.
func (p *program) try(ctx context.Context, number int) (killedBy string) {
	out, _, err := p.run(ctx, number, true)
	killedBy = verdict(out, err)
	if killedBy != "" && killedBy != notCompiled {
		return p.String() + " " + killedBy
	}
	return killedBy
}

// each tries the mutants concurrently, settles those that are killed and returns the others, in their order.
func (h *hunt) each(ctx context.Context, mutants []*mutant, try func(*mutant) (killedBy string, err error)) (survivors []*mutant, err error) {
	killed := make([]string, len(mutants))
	var g errgroup.Group
	g.SetLimit(h.workers)
	for i, m := range mutants {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			by, err := try(m)
			if err != nil || by == "" || ctx.Err() != nil { // an interruption kills programs, not mutants
				return err
			}
			killed[i] = by
			h.settled(result{m, by})
			return nil
		})
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return nil, err
	}
	for i, m := range mutants {
		if killed[i] == "" {
			survivors = append(survivors, m)
		}
	}
	return survivors, nil
}
