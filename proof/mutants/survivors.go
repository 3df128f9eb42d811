package main

import (
	_ "embed"
	"fmt"
	"strings"
)

// survivors.tsv lists the mutants that no test kills, with the reason.
//
//go:embed survivors.tsv
var survivorsFile string

// An explanation is a line of survivors.tsv.
type explanation struct {
	id, change string
	reason     string
	equivalent bool // nobody could notice the mutant; otherwise a test is missing
}

const (
	equivalentPrefix = "equivalent: "
	gapPrefix        = "gap: "
)

// parseSurvivors reads lines of an ID, the change, and the reason, separated by tabs. The first line is the heading.
func parseSurvivors(text string) (all map[string]explanation, err error) {
	all = map[string]explanation{}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if i == 0 {
			continue
		}
		fields := strings.Split(line, "\t")
		if len(fields) != 3 {
			return nil, fmt.Errorf("survivors.tsv:%d: got %d fields, want an ID, the change, and the reason, separated by tabs", i+1, len(fields))
		}
		e := explanation{id: fields[0], change: fields[1]}
		var gap bool
		e.reason, e.equivalent = strings.CutPrefix(fields[2], equivalentPrefix)
		if !e.equivalent {
			e.reason, gap = strings.CutPrefix(fields[2], gapPrefix)
		}
		switch {
		case !e.equivalent && !gap:
			return nil, fmt.Errorf("survivors.tsv:%d: the reason %q must begin with %q or %q", i+1, fields[2], equivalentPrefix, gapPrefix)
		case all[e.id].id != "":
			return nil, fmt.Errorf("survivors.tsv:%d: %s is explained twice", i+1, e.id)
		}
		all[e.id] = e
	}
	return all, nil
}

// stale returns a line for each explanation that doesn't fit the code any more: its mutant doesn't exist, or changes other code.
func stale(explained map[string]explanation, mutants []*mutant) (missing, changed []string) {
	byID := map[string]*mutant{}
	for _, m := range mutants {
		byID[m.id] = m
	}
	for _, id := range sortedKeys(explained) {
		switch m := byID[id]; {
		case m == nil:
			missing = append(missing, fmt.Sprintf("%s: %s", id, explained[id].change))
		case m.change() != explained[id].change:
			changed = append(changed, fmt.Sprintf("%s:\n    explained: %s\n    now:       %s", id, explained[id].change, m.change()))
		}
	}
	return missing, changed
}
