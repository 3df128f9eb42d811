package resilienceconfig

import (
	"fmt"
	"slices"
	"strings"
)

// maxItems is how many items a pipeline may have, with those of the pipelines that it uses. A few
// pipelines that use each other twice would otherwise have billions.
const maxItems = 100

// checkUses reports cycles, and pipelines that are too long.
func (r *reader) checkUses() {
	r.file.index()
	c := &uses{reader: r, byName: r.file.byName, state: map[*pipeline]int{}, size: map[*pipeline]int{}}
	for _, name := range r.ambiguous {
		delete(c.byName, name)
	}
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

// tooLong is the size of a pipeline whose length was reported, so that those that use it are not
// reported too.
const tooLong = -1 << 30

// visit counts the items of p and of what it uses. It reports each cycle once, where it closes.
func (c *uses) visit(p *pipeline) {
	c.state[p] = visiting
	c.trail = append(c.trail, p.name)
	size := len(p.items)
	for _, i := range p.items {
		used := c.byName[i.use]
		if i.use == "" || used == nil {
			continue
		}
		switch c.state[used] {
		case visiting:
			c.reportCycle(i)
			continue
		case 0:
			c.visit(used)
		}
		size += c.size[used]
	}
	if size > maxItems {
		at := p.items[min(len(p.items)-1, maxItems)]
		c.reader.report(&Error{
			Path: join("pipelines", p.name), Line: at.line, Column: at.column,
			Message: fmt.Sprintf("has %d items, with those of the pipelines that it uses, must have at most %d", size, maxItems),
		})
		size = tooLong
	}
	c.size[p] = max(size, tooLong)
	c.trail = c.trail[:len(c.trail)-1]
	c.state[p] = visited
}

// reportCycle reports that i uses a pipeline that is being visited.
func (c *uses) reportCycle(i item) {
	var names []string
	for _, name := range slices.Concat(c.trail[slices.Index(c.trail, i.use):], []string{i.use}) {
		names = append(names, shownName(name))
	}
	if len(names) > 10 {
		names = slices.Concat(names[:5], []string{"…"}, names[len(names)-4:])
	}
	c.reader.report(&Error{Path: i.path, Line: i.line, Column: i.column, Message: "is a cycle: " + strings.Join(names, " uses ")})
}

// A part is a policy in a pipeline's flattened list.
type part struct {
	place place
	spec  *spec // nil for atMostOnce
	top   int   // index of the item of the pipeline itself that contains it
}

// flatten returns the policies of p, with those of the pipelines that it uses in their place.
func (f *File) flatten(p *pipeline) []part {
	var parts []part
	var add func(q *pipeline, top int)
	add = func(q *pipeline, top int) {
		for i, it := range q.items {
			if q == p {
				top = i
			}
			if used := f.byName[it.use]; used != nil {
				add(used, top)
			} else if it.use != "" {
				s := f.specs[it.use]
				parts = append(parts, part{place{name: it.use, kind: s.kind.name}, s, top})
			} else {
				parts = append(parts, part{it.place, it.spec, top})
			}
		}
	}
	add(p, 0)
	return parts
}

// index makes what is found by name.
func (f *File) index() {
	f.byName = make(map[string]*pipeline, len(f.pipelines))
	for _, p := range f.pipelines {
		f.byName[p.name] = p
	}
	f.specs = specs(f.policies)
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
	r.checkMemory()
	f.effective = f.render()
	problem := tooComplex(f.effective)
	if len(f.effective) > maxSize {
		problem = fmt.Sprintf("the file has more than %d bytes", maxSize)
	}
	if problem != "" {
		r.report(&Error{Line: 1, Column: 1, Message: "the file has too many policies: with every default written, " + problem})
		return
	}
	f.notes = f.orderNotes()
}

// maxLastCalls is how many calls the breakers of a file may remember together, at 8 bytes each.
// Otherwise, a file could use all memory.
const maxLastCalls = 10_000_000

// checkMemory reports breakers that remember too many calls together.
func (r *reader) checkMemory() {
	sum := 0
	add := func(s *spec, line, column int) {
		if s == nil || s.kind.name != "breaker" {
			return
		}
		before := sum
		sum += int(s.config.FieldByName("LastCalls").Int())
		if before <= maxLastCalls && sum > maxLastCalls {
			r.report(&Error{
				Path: join(s.path, "lastCalls"), Line: line, Column: column,
				Message: fmt.Sprintf("is too large: all breakers of a file must together have at most %d", maxLastCalls),
			})
		}
	}
	for _, n := range r.file.policies {
		add(n.spec, n.line, n.column)
	}
	for _, p := range r.file.pipelines {
		for _, i := range p.items {
			add(i.spec, i.line, i.column)
		}
	}
}
