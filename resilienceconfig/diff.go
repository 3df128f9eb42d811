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
	before, after := old.byName(), next.byName()
	oldSpecs, nextSpecs := specs(old.policies), specs(next.policies)
	for _, p := range next.pipelines {
		path := join("pipelines", p.name)
		was := before[p.name]
		if was == nil {
			d.Added = append(d.Added, path)
			continue
		}
		d.keptOrChanged(path, slices.Equal(old.signature(was, oldSpecs, before), next.signature(p, nextSpecs, after)))
		d.items(was, p)
	}
	for _, p := range old.pipelines {
		if after[p.name] == nil {
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
	before, after := numbered(old), numbered(next)
	for _, i := range next.items {
		if i.spec == nil {
			continue
		}
		was := before.at[after.key[i.spec]]
		if was == nil {
			d.Added = append(d.Added, i.path)
		} else {
			d.keptOrChanged(i.path, was.equal(i.spec))
		}
	}
	for _, i := range old.items {
		if i.spec != nil && after.at[before.key[i.spec]] == nil {
			d.Removed = append(d.Removed, i.path)
		}
	}
}

// A numbering says which policy of a pipeline each spec is, and the reverse.
type numbering struct {
	key map[*spec]inlineKey
	at  map[inlineKey]*spec
}

func numbered(p *pipeline) numbering {
	n := numbering{map[*spec]inlineKey{}, map[inlineKey]*spec{}}
	count := map[string]int{}
	for _, i := range p.items {
		if i.spec == nil {
			continue
		}
		key := inlineKey{p.name, i.spec.kind.name, count[i.spec.kind.name]}
		count[key.kind]++
		n.key[i.spec], n.at[key] = key, i.spec
	}
	return n
}

// signature returns what says which policies p consists of. It is empty for atMostOnce. A policy
// under policies has no pipeline.
func (f *File) signature(p *pipeline, policies map[string]*spec, pipelines map[string]*pipeline) []any {
	type shared struct{ name, kind string }
	var keys []any
	var add func(p *pipeline)
	add = func(p *pipeline) {
		own := numbered(p)
		for _, i := range p.items {
			switch {
			case i.spec != nil:
				keys = append(keys, own.key[i.spec])
			case i.use == "":
				keys = append(keys, nil)
			case pipelines[i.use] != nil:
				add(pipelines[i.use])
			default:
				keys = append(keys, shared{i.use, policies[i.use].kind.name})
			}
		}
	}
	add(p)
	return keys
}
