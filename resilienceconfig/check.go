package resilienceconfig

import (
	"fmt"
	"slices"
	"strings"
)

// maxPolicies is how many policies a pipeline may have, with those of the pipelines that it uses. A
// few pipelines that use each other twice would otherwise have billions.
const maxPolicies = 100

// checkUses reports cycles, and pipelines that are too long.
func (r *reader) checkUses() {
	c := &uses{reader: r, byName: r.file.byName(), state: map[*pipeline]int{}, size: map[*pipeline]int{}}
	for _, p := range r.file.pipelines {
		c.visit(p)
	}
}

type uses struct {
	reader *reader
	byName map[string]*pipeline
	state  map[*pipeline]int // visiting or visited
	size   map[*pipeline]int
	trail  []string
}

const (
	visiting = 1
	visited  = 2
)

// visit counts the policies of p and of what it uses. It reports each cycle once, where it closes.
func (c *uses) visit(p *pipeline) {
	c.state[p] = visiting
	c.trail = append(c.trail, p.name)
	own := 0
	for _, i := range p.items {
		used := c.byName[i.use]
		if i.use == "" || used == nil {
			c.size[p]++
			own++
			continue
		}
		switch c.state[used] {
		case visiting:
			var names []string
			for _, name := range append(c.trail[slices.Index(c.trail, i.use):], i.use) {
				names = append(names, shownName(name))
			}
			if len(names) > 10 {
				names = append(names[:5], append([]string{"…"}, names[len(names)-4:]...)...)
			}
			c.reader.report(&Error{Path: i.path, Line: i.line, Column: i.column, Message: "is a cycle: " + strings.Join(names, " uses ")})
		case visited:
			c.size[p] += c.size[used]
		default:
			c.visit(used)
			c.size[p] += c.size[used]
		}
	}
	if c.size[p] > maxPolicies {
		at := p.items[min(len(p.items)-1, maxPolicies)]
		c.reader.report(&Error{
			Path: join("pipelines", p.name), Line: at.line, Column: at.column,
			Message: fmt.Sprintf("has %d policies, with those of the pipelines that it uses, must have at most %d", c.size[p], maxPolicies),
		})
		c.size[p] = 1 // what uses it is not reported too
	}
	c.trail = c.trail[:len(c.trail)-1]
	c.state[p] = visited
}

// byName returns the pipelines by name.
func (f *File) byName() map[string]*pipeline {
	m := make(map[string]*pipeline, len(f.pipelines))
	for _, p := range f.pipelines {
		m[p.name] = p
	}
	return m
}

// A part is a policy in a pipeline's flattened list.
type part struct {
	item item
	spec *spec // nil for atMostOnce
	top  int   // index of the item in the pipeline itself that contains it
}

// flatten returns the policies of p, with those of the pipelines that it uses in their place.
func (f *File) flatten(p *pipeline, policies map[string]*spec, pipelines map[string]*pipeline) []part {
	var parts []part
	var add func(p *pipeline, top int)
	add = func(p *pipeline, top int) {
		for i, it := range p.items {
			at := top
			if top < 0 {
				at = i
			}
			switch {
			case it.use == "":
				parts = append(parts, part{it, it.spec, at})
			case pipelines[it.use] != nil:
				add(pipelines[it.use], at)
			default:
				parts = append(parts, part{it, policies[it.use], at})
			}
		}
	}
	add(p, -1)
	return parts
}

func specs(list []named) map[string]*spec {
	m := make(map[string]*spec, len(list))
	for _, n := range list {
		m[n.name] = n.spec
	}
	return m
}

// complete fills in the defaults of a file without errors, and derives what depends on all of it.
func (r *reader) complete() {
	f := r.file
	for _, list := range [][]named{f.budgets, f.policies} {
		for _, n := range list {
			n.spec.complete()
		}
	}
	for _, p := range f.pipelines {
		for _, i := range p.items {
			if i.spec != nil {
				i.spec.complete()
			}
		}
	}
	f.effective = f.render()
	problem := tooComplex(f.effective)
	if len(f.effective) > maxSize {
		problem = fmt.Sprintf("the file has more than %d bytes", maxSize)
	}
	if problem != "" {
		r.report(&Error{Message: "the file has too many policies: with every default written, " + problem})
		return
	}
	f.notes = f.orderNotes()
}
