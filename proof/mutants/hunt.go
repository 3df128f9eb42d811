package main

import (
	"context"
	"errors"
	"fmt"
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
	*lab
	workers int
	mutated []*goPackage // that may have mutants
	provers []*goPackage // of other modules, whose tests are about the mutated ones
	settled func(result) // is called when a result is known, concurrently
}

// slow lists the packages whose tests take as long as those of all others, or run in real time.
var slow = []string{"proof/faults", "proof/soak", "proof/composition"}

// everywhere lists the packages that almost all tests import; of those in proof, only these are about them.
var everywhere = map[string][]string{
	".":                {"proof/pipeline", "proof/contexts", "proof/others"},
	"internal/clock":   {"proof/budget", "proof/timeout"},
	"internal/ctxkey":  {"proof/contexts"},
	"internal/errtext": {},
}

// suites returns the tests that may notice a fault in the package, its own first. For an internal package they include those of
// the packages that import it.
func (h *hunt) suites(p *goPackage) (all []suite) {
	add := func(q *goPackage) {
		if q.tested() && !slices.Contains(all, suite{pkg: q}) {
			all = append(all, suite{pkg: q})
		}
	}
	add(p)
	about := []*goPackage{p}
	if strings.HasPrefix(p.folder(), "internal/") {
		for _, q := range h.mutated {
			if slices.Contains(q.Imports, p.ImportPath) && q.tested() {
				about = append(about, q)
				add(q)
			}
		}
	}
	for _, q := range h.provers {
		name := strings.TrimPrefix(q.ImportPath, p.Module.Path+"/")
		if slices.Contains(slow, name) || everywhere[p.folder()] != nil && !slices.Contains(everywhere[p.folder()], name) {
			continue
		}
		if slices.ContainsFunc(about, q.imports) {
			add(q)
		}
	}
	return all
}

// pkg tries the mutants, all of one package.
func (h *hunt) pkg(ctx context.Context, p *goPackage, mutants []*mutant) error {
	var together, alone []*mutant
	for _, m := range mutants {
		if m.alone() {
			alone = append(alone, m)
		} else {
			together = append(together, m)
		}
	}
	overlay, compiled, err := h.combine(ctx, p, together)
	if err != nil {
		return err
	}
	for _, m := range together {
		if !slices.Contains(compiled, m) {
			h.settled(result{m, notCompiled})
		}
	}

	alive := compiled
	var skipped *program // with its own tests that it skips
	for _, s := range h.suites(p) {
		if len(alive) == 0 {
			break
		}
		program, err := h.prepare(ctx, s, overlay)
		if err != nil {
			return err
		}
		if s.pkg == p && program.skipped != nil {
			skipped = program
		}
		if alive, err = h.try(ctx, program, compiled, alive); err != nil {
			return err
		}
	}
	if skipped != nil && len(alive) > 0 {
		only := anyOf(skipped.skipped)
		if err := h.healthy(ctx, skipped.suite, only); err != nil {
			return err
		}
		if alive, err = h.tryExactly(ctx, alive, []suite{skipped.suite}, only); err != nil {
			return err
		}
	}
	rest, err := h.tryExactly(ctx, alone, h.suites(p), "")
	if err != nil {
		return err
	}

	if race := slices.ContainsFunc(alive, (*mutant).racy); race && p.tested() {
		program, err := h.prepare(ctx, suite{p, true}, overlay)
		if err != nil {
			return err
		}
		hunted := slices.DeleteFunc(slices.Clone(alive), func(m *mutant) bool { return !m.racy() })
		left, err := h.try(ctx, program, compiled, hunted)
		if err != nil {
			return err
		}
		alive = slices.DeleteFunc(alive, func(m *mutant) bool { return m.racy() && !slices.Contains(left, m) })
	}
	for _, m := range append(alive, rest...) {
		h.settled(result{m, ""})
	}
	return nil
}

// racy reports whether the mutant's kind is one that a test may only notice when goroutines collide.
func (m *mutant) racy() bool { return slices.Contains(racy, m.kind) }

func (h *hunt) prepare(ctx context.Context, s suite, overlay string) (*program, error) {
	p, err := h.build(ctx, s, overlay)
	if err != nil {
		return nil, err
	}
	return p, h.calibrate(ctx, p)
}

// try runs the program on each mutant that is alive and returns the survivors. A mutant's number is its place in all.
func (h *hunt) try(ctx context.Context, p *program, all, alive []*mutant) (survivors []*mutant, err error) {
	return h.each(ctx, alive, func(m *mutant) (string, error) {
		by := p.try(ctx, slices.Index(all, m))
		if by != "" && by != notCompiled {
			by = p.suite.String() + " " + by
		}
		return by, nil
	})
}

// tryExactly builds and runs the tests once for each mutant, without any other mutant in the program.
func (h *hunt) tryExactly(ctx context.Context, mutants []*mutant, suites []suite, only string) (survivors []*mutant, err error) {
	return h.each(ctx, mutants, func(m *mutant) (string, error) {
		overlay, err := h.overlay(map[string]string{m.function.file.path: m.alternative()})
		if err != nil {
			return "", err
		}
		complaints, err := h.compile(ctx, m.function.file.pkg, overlay)
		if complaints != "" || err != nil {
			return notCompiled, err
		}
		for _, s := range suites {
			p, err := h.build(ctx, s, overlay)
			if err != nil {
				return "", err
			}
			p.only, p.limit = only, 4*h.slack
			by := p.try(ctx, -1)
			p.remove()
			if by != "" {
				return s.String() + " " + by, nil
			}
		}
		return "", nil
	})
}

// healthy returns an error if the tests don't pass without a fault.
func (h *hunt) healthy(ctx context.Context, s suite, only string) error {
	overlay, err := h.overlay(nil)
	if err != nil {
		return err
	}
	p, err := h.build(ctx, s, overlay)
	if err != nil {
		return err
	}
	defer p.remove()
	p.only, p.limit = only, 4*h.slack
	if by := p.try(ctx, -1); by != "" {
		return fmt.Errorf("the tests of %v fail without a fault: %s", s, by)
	}
	return nil
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
			if err != nil || ctx.Err() != nil {
				return err // what an interruption kills is not known to be killed
			}
			if killed[i] = by; by != "" {
				h.settled(result{m, by})
			}
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
