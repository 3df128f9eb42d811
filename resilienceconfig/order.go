package resilienceconfig

import (
	"fmt"
	"slices"
)

// rank is the position of each kind in the whole order of docs/composition.md, where timeout is the
// timeout of an attempt. TestNotesMatchCompositionPage compares the two.
var rank = func() map[string]int {
	m := map[string]int{}
	for i, k := range kinds {
		m[k.name] = i
	}
	return m
}()

const compositionPage = "docs/composition.md"

// A note is text about a place in a file.
type note struct {
	line, column int
	text         string
}

// orderNotes returns a note for each policy that should be outside one that it is inside of.
func (f *File) orderNotes() []string {
	var notes []note
	for _, p := range f.pipelines {
		parts := f.flatten(p)
		for i, inner := range parts {
			for _, outer := range parts[:i] {
				if outer.top == inner.top && p.items[inner.top].use != "" {
					continue // within what this item uses, where it is noted
				}
				advice := misplaced(parts[:i], outer, inner)
				if advice == "" {
					continue
				}
				at := p.items[inner.top]
				text := fmt.Sprintf("%d:%d: %s: %s: %s", at.line, at.column, at.path, advice, compositionPage)
				notes = append(notes, note{at.line, at.column, text})
				break
			}
		}
	}
	slices.SortStableFunc(notes, func(a, b note) int { return compare(a.line, a.column, b.line, b.column) })
	var texts []string
	for i, n := range notes {
		if i == maxErrors {
			texts = append(texts, fmt.Sprintf("%d:%d: %d more notes from here on", n.line, n.column, len(notes)-i))
			break
		}
		texts = append(texts, n.text)
	}
	return texts
}

// misplaced returns what is wrong with the order of two policies, if anything is. Before are all
// policies outside inner.
func misplaced(before []part, outer, inner part) string {
	switch {
	case inner.spec == nil && outer.spec != nil:
		return fmt.Sprintf("atMostOnce is inside %s, should be outside all policies", outer.spec.kind.name)
	case inner.spec == nil || outer.spec == nil:
		return ""
	}
	o, i := outer.spec.kind.name, inner.spec.kind.name
	abandons := func(s *spec) bool { return s.kind.name == "timeout" && s.config.FieldByName("Abandon").Int() > 0 }
	switch {
	case o == "bulkhead" && abandons(inner.spec):
		return "timeout with abandon is inside bulkhead, whose limit does not count the calls that it leaves running"
	case o == "timeout" && (i == "retry" || i == "bulkhead" && abandons(outer.spec) || !attempts(before, outer)):
		return ""
	case rank[i] < rank[o]:
		return fmt.Sprintf("%s is inside %s, should be outside", i, o)
	}
	return ""
}

// attempts reports whether the timeout is that of an attempt: whether a policy of another kind is
// outside it. Otherwise it is the timeout of the whole call, which is outside all policies.
func attempts(before []part, timeout part) bool {
	for _, p := range before {
		if p == timeout {
			return false
		}
		if p.spec != nil && p.spec.kind.name != "timeout" {
			return true
		}
	}
	return false
}
