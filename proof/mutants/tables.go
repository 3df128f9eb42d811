package main

import (
	_ "embed"
	"fmt"
	"path"
	"regexp"
	"strings"
)

var (
	// faults.tsv has the faults that no generator makes: a function as in IDs, what is wrong with
	// the mutant, the code to replace, and the code to replace it with.
	//
	//go:embed faults.tsv
	faultsTable string

	// survivors.tsv has the mutants that no test kills: the ID, the change, and the reason.
	//
	//go:embed survivors.tsv
	survivorsTable string
)

// rows returns the fields of a table's lines but the first, its heading.
func rows(name, table string, fields int) (all [][]string, err error) {
	for i, line := range strings.Split(strings.TrimSuffix(table, "\n"), "\n")[1:] {
		row := strings.Split(line, "\t")
		if len(row) != fields {
			return nil, fmt.Errorf("%s:%d: got %d fields, want %d, separated by tabs", name, i+2, len(row), fields)
		}
		all = append(all, row)
	}
	return all, nil
}

// findFault returns the fault of a row of faults.tsv. Apart from white space, the code to replace
// must occur in the function once.
func findFault(row []string, functions []*function) (*mutant, error) {
	name, what, before, after := row[0], row[1], row[2], row[3]
	pattern := regexp.MustCompile(strings.ReplaceAll(regexp.QuoteMeta(before), " ", `\s+`))
	for _, fn := range functions {
		if path.Join(fn.file.pkg.label(), fn.name) != name {
			continue
		}
		found := pattern.FindAllStringIndex(fn.file.source[fn.begin():fn.end()], -1)
		if len(found) != 1 {
			return nil, fmt.Errorf("faults.tsv: %s: %s: the function contains %q %d times, must be once", name, what, before, len(found))
		}
		e := edit{fn.begin() + found[0][0], fn.begin() + found[0][1], after}
		return newMutant(fn, "fault", what, []edit{e}, before, after), nil
	}
	return nil, fmt.Errorf("faults.tsv: %s: %s: the function doesn't exist", name, what)
}

// An explanation says why a mutant survives.
type explanation struct {
	change     string
	equivalent bool // no test can notice the mutant; otherwise a test is missing
	random     bool // a test of random cases may notice it
}

// explanations reads survivors.tsv. A reason begins with "equivalent: " or, if a test is missing,
// with "gap: ", which "random: " may follow.
func explanations(table string) (map[string]explanation, error) {
	all := map[string]explanation{}
	lines, err := rows("survivors.tsv", table, 3)
	for _, row := range lines {
		id := row[0]
		equivalent := strings.HasPrefix(row[2], "equivalent: ")
		_, twice := all[id]
		switch {
		case !equivalent && !strings.HasPrefix(row[2], "gap: "):
			return nil, fmt.Errorf(`survivors.tsv: the reason of %s must begin with "equivalent: " or "gap: "`, id)
		case twice:
			return nil, fmt.Errorf("survivors.tsv: %s is explained twice", id)
		}
		all[id] = explanation{row[1], equivalent, strings.HasPrefix(row[2], "gap: random: ")}
	}
	return all, err
}

// stale returns a line for each explanation that doesn't fit the code: its mutant doesn't exist any
// more, or changes other code.
func stale(explained map[string]explanation, mutants []*mutant) (misfits []string) {
	byID := map[string]*mutant{}
	for _, m := range mutants {
		byID[m.id] = m
	}
	for _, id := range sortedKeys(explained) {
		switch m, change := byID[id], explained[id].change; {
		case m == nil:
			misfits = append(misfits, fmt.Sprintf("survivors.tsv: %s: the mutant doesn't exist: %s", id, change))
		case m.change() != change:
			misfits = append(misfits, fmt.Sprintf("survivors.tsv: %s: got the code %s, want %s", id, m.change(), change))
		}
	}
	return misfits
}
