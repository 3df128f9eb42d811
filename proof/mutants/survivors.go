package main

import (
	_ "embed"
	"fmt"
	"strings"
)

// survivors.tsv lists the mutants that no test kills: the ID, the change, and the reason.
//
//go:embed survivors.tsv
var survivorsFile string

// An explanation is a line of survivors.tsv.
type explanation struct {
	change, reason string
	equivalent     bool // nobody could notice the mutant; otherwise a test is missing
}

// explanations reads the table. A reason begins with "equivalent: " or, if a test is missing, with "gap: ".
func explanations(table string) (map[string]explanation, error) {
	all := map[string]explanation{}
	lines, err := rows("survivors.tsv", table, 3)
	for _, row := range lines {
		id := row[0]
		reason, equivalent := strings.CutPrefix(row[2], "equivalent: ")
		_, twice := all[id]
		switch {
		case !equivalent && !strings.HasPrefix(reason, "gap: "):
			return nil, fmt.Errorf(`survivors.tsv: the reason of %s must begin with "equivalent: " or "gap: "`, id)
		case twice:
			return nil, fmt.Errorf("survivors.tsv: %s is explained twice", id)
		}
		all[id] = explanation{row[1], reason, equivalent}
	}
	return all, err
}

// stale returns a line for each explanation that doesn't fit the code: its mutant doesn't exist any more, or changes other code.
func stale(explained map[string]explanation, mutants []*mutant) (missing, changed []string) {
	byID := map[string]*mutant{}
	for _, m := range mutants {
		byID[m.id] = m
	}
	for _, id := range sortedKeys(explained) {
		switch m, change := byID[id], explained[id].change; {
		case m == nil:
			missing = append(missing, id+": "+change)
		case m.change() != change:
			changed = append(changed, fmt.Sprintf("%s:\n    explained: %s\n    now:       %s", id, change, m.change()))
		}
	}
	return missing, changed
}
