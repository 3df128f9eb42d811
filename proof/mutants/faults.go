package main

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// A fault is a mutant that no generator makes, written manually.
type fault struct {
	function string // package/function, as in IDs
	what     string // what is wrong with the mutant
	old, new string // old occurs in the function just once, but for its white space
}

var faults = []fault{}

// find returns the fault as a mutant. The function's text must contain what the fault replaces just once.
func (f fault) find(functions []*function) (*mutant, error) {
	words := strings.Fields(f.old)
	for i, word := range words {
		words[i] = regexp.QuoteMeta(word)
	}
	pattern := regexp.MustCompile(strings.Join(words, `\s+`))
	for _, fn := range functions {
		if path.Join(fn.file.pkg.label(), fn.name) != f.function {
			continue
		}
		begin, end := fn.file.offset(fn.decl.Body.Lbrace)+1, fn.file.offset(fn.decl.Body.Rbrace)
		found := pattern.FindAllStringIndex(fn.file.source[begin:end], -1)
		if len(found) != 1 {
			return nil, fmt.Errorf("%s: %s: the function contains %q %d times, must be once", f.function, f.what, f.old, len(found))
		}
		e := edit{begin + found[0][0], begin + found[0][1], f.new}
		return newMutant(fn, kindFault, f.what, []edit{e}, f.old, f.new), nil
	}
	return nil, fmt.Errorf("%s: %s: the function doesn't exist", f.function, f.what)
}
