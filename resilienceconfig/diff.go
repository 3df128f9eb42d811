package resilienceconfig

import (
	"fmt"
	"slices"
)

// A Diff is what an update has changed, by path: budgets.extra, policies.users-breaker,
// pipelines.users, pipelines.users[1].retry. The paths are those of the new file, in file order;
// those of Removed are of the old one. The policies of a pipeline that was added or removed aren't
// listed.
type Diff struct {
	Added   []string
	Removed []string

	// Changed are policies and budgets with other values, and pipelines whose list of policies is
	// another one, also if a pipeline that they use is the reason.
	Changed []string

	Kept []string

	// Notes are the policies under policies that have lost their state, because they are of another
	// kind, and then those of [File.Notes].
	Notes []string
}

// Empty reports whether nothing was added, removed, or changed.
func (d Diff) Empty() bool { return len(d.Added)+len(d.Removed)+len(d.Changed) == 0 }

// diff compares two files.
func diff(old, next *File) Diff {
	var d Diff
	d.named(old.budgets, next.budgets, "budgets")
	d.named(old.policies, next.policies, "policies")
	for _, p := range next.pipelines {
		path := join("pipelines", p.name)
		was := old.byName[p.name]
		if was == nil {
			d.Added = append(d.Added, path)
			continue
		}
		samePlace := func(a, b part) bool { return a.place == b.place }
		d.keptOrChanged(path, slices.EqualFunc(old.flatten(was), next.flatten(p), samePlace))
		d.items(was, p)
	}
	for _, p := range old.pipelines {
		if next.byName[p.name] == nil {
			d.Removed = append(d.Removed, join("pipelines", p.name))
		}
	}
	d.Notes = append(d.Notes, next.notes...)
	return d
}

func (d *Diff) keptOrChanged(path string, kept bool) {
	if kept {
		d.Kept = append(d.Kept, path)
	} else {
		d.Changed = append(d.Changed, path)
	}
}

// named compares the entries of a section.
func (d *Diff) named(old, next []named, section string) {
	before, after := specs(old), specs(next)
	for _, n := range next {
		path := join(section, n.name)
		was := before[n.name]
		switch {
		case was == nil:
			d.Added = append(d.Added, path)
		case was.kind != n.spec.kind:
			d.Changed = append(d.Changed, path)
			d.Notes = append(d.Notes, fmt.Sprintf("%s was a %s and is now a %s: its state is lost", path, was.kind.name, n.spec.kind.name))
		default:
			d.keptOrChanged(path, was.equal(n.spec))
		}
	}
	for _, n := range old {
		if after[n.name] == nil {
			d.Removed = append(d.Removed, join(section, n.name))
		}
	}
}

// items compares the policies that are written in a pipeline: the n-th of each kind.
func (d *Diff) items(old, next *pipeline) {
	before, after := old.byPlace(), next.byPlace()
	for _, i := range next.items {
		if i.spec == nil {
			continue
		}
		if was := before[i.place]; was == nil {
			d.Added = append(d.Added, i.path)
		} else {
			d.keptOrChanged(i.path, was.equal(i.spec))
		}
	}
	for _, i := range old.items {
		if i.spec != nil && after[i.place] == nil {
			d.Removed = append(d.Removed, i.path)
		}
	}
}

// byPlace returns the policies that are written in p.
func (p *pipeline) byPlace() map[place]*spec {
	m := map[place]*spec{}
	for _, i := range p.items {
		if i.spec != nil {
			m[i.place] = i.spec
		}
	}
	return m
}
