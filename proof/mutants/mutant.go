package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// A table holds the faults of one file.
type table struct {
	file   string // from the module's root
	faults []fault
}

// A fault is one patch of a file.
type fault struct {
	what       string // is wrong now, in words
	old, new   string // old is in the file once
	equivalent string // why nobody could see it; "" where a test must
}

// tables are all that this program tries.
var tables = []table{
	composeTable, callTable, resilienceTable,
	breakerTable, phaseTable, windowTable, eventTable, breakerConfigTable, breakerErrorsTable,
	retryTable, scheduleTable, retryErrorsTable,
	timeoutTable, contextTable, abandonTable,
	budgetTable, budgetConfigTable,
	hedgeTable, hedgeConfigTable, hedgeCallTable, hedgeContextTable, histogramTable, apartTable,
	bulkheadTable, bulkheadConfigTable, fifoTable,
	ratelimitTable, bucketTable, ratelimitKeyedTable, ratelimitConfigTable, ratelimitErrorsTable, keyedTable,
	adaptiveTable, adaptiveConfigTable, concurrencyTable, aimdTable, estimateTable, queueTable,
	clockTable, ctxkeyTable,
	testEffectorTable, testRecorderTable,
	shedTable, shedWindowTable, shedConfigTable, shedErrorsTable, outcomeTable,
	throttleTable, throttleConfigTable, throttleErrorsTable,
	sharedTable, shareTable, groupTable, debounceTable,
}

// A mutant is a fault in its place.
type mutant struct {
	fault
	file   string
	line   int    // of the file, where the fault begins
	source string // of the file, with the fault
}

// String is how the report names the mutant.
func (m mutant) String() string { return fmt.Sprintf("%s:%d %s", m.file, m.line, m.what) }

// dir is the package's folder, from the module's root.
func (m mutant) dir() string { return path.Dir(m.file) }

// load puts each fault into its file's text. It reports every fault that does not fit the file any more.
func load(root string, tables []table) (mutants []mutant, err error) {
	var stale []string
	for _, t := range tables {
		source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(t.file)))
		if err != nil {
			return nil, err
		}
		for _, f := range t.faults {
			m, err := patch(t.file, string(source), f)
			if err != nil {
				stale = append(stale, err.Error())
			}
			mutants = append(mutants, m)
		}
	}
	if stale != nil {
		return nil, fmt.Errorf("the table does not fit the code:\n%s", strings.Join(stale, "\n"))
	}
	return mutants, nil
}

// patch puts the fault into the source of the file.
func patch(file, source string, f fault) (mutant, error) {
	switch n := strings.Count(source, f.old); {
	case f.what == "" || f.old == "" || f.old == f.new:
		return mutant{}, fmt.Errorf("%s: %q is no fault: it must say what it is, and change something", file, f.what)
	case n != 1:
		return mutant{}, fmt.Errorf("%s: %s: the text to replace is there %d times, must be there once:\n%s", file, f.what, n, f.old)
	}
	before, after, _ := strings.Cut(source, f.old)
	return mutant{f, file, 1 + strings.Count(before, "\n"), before + f.new + after}, nil
}
