package main

import (
	_ "embed"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// faults.tsv has the faults that no generator makes: a function as in IDs, what is wrong with the mutant, the code to replace, and
// the code to replace it with. Apart from white space, the code to replace must occur in the function once.
//
//go:embed faults.tsv
var faultsFile string

// A fault is a line of faults.tsv.
type fault struct{ function, what, before, after string }

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

// find returns the fault as a mutant.
func (f fault) find(functions []*function) (*mutant, error) {
	words := strings.Fields(f.before)
	for i, word := range words {
		words[i] = regexp.QuoteMeta(word)
	}
	pattern := regexp.MustCompile(strings.Join(words, `\s+`))
	for _, fn := range functions {
		if path.Join(fn.file.pkg.label(), fn.name) != f.function {
			continue
		}
		found := pattern.FindAllStringIndex(fn.file.source[fn.begin():fn.end()], -1)
		if len(found) != 1 {
			return nil, fmt.Errorf("%s: %s: the function contains %q %d times, must be once", f.function, f.what, f.before, len(found))
		}
		e := edit{fn.begin() + found[0][0], fn.begin() + found[0][1], f.after}
		return newMutant(fn, "fault", f.what, []edit{e}, f.before, f.after), nil
	}
	return nil, fmt.Errorf("%s: %s: the function doesn't exist", f.function, f.what)
}
