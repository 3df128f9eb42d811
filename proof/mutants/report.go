package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// The states of a result. Those in capitals need attention.
const (
	killed     = "killed"
	equivalent = "equivalent"
	gap        = "known gap"
	survived   = "SURVIVED"
	wrong      = "KILLED BUT EXPLAINED"
	broken     = "FAULT DOESN'T COMPILE"
)

// state compares the result with the explanation of why the mutant survives, if there is one.
func (r result) state(explained map[string]explanation) string {
	e, known := explained[r.id]
	switch {
	case r.killedBy == notCompiled && r.kind == "fault":
		return broken
	case r.killedBy == notCompiled:
		return notCompiled
	case r.killedBy != "" && known && (e.equivalent || !e.random && !slices.Contains(racy, r.kind)):
		return wrong
	case r.killedBy != "":
		return killed
	case e.equivalent:
		return equivalent
	case known:
		return gap
	}
	return survived
}

// line is the result's line in the report.
func (r result) line(state string) string {
	return strings.TrimSpace(fmt.Sprintf("%-15s  %s  %s  (%s)  %s", state, r.id, r.change(), r.position(), r.killedBy))
}

// report prints what needs attention and the scores. It reports whether nothing needs attention.
func report(w io.Writer, results []result, explained map[string]explanation) (ok bool) {
	ok = true
	for _, r := range slices.SortedFunc(slices.Values(results), func(a, b result) int { return cmp.Compare(a.id, b.id) }) {
		if state := r.state(explained); state == strings.ToUpper(state) {
			ok = false
			fmt.Fprintln(w, r.line(state))
		}
	}
	fmt.Fprintln(w)
	var mutants []*mutant
	for _, r := range results {
		mutants = append(mutants, r.mutant)
	}
	printScores(w, mutants, results, explained)
	return ok
}

// enough is how many mutants of a package have to be tried for a score, if there are more.
const enough = 100

// printScores prints a Markdown table of the packages that have such mutants. A package has a score
// if all of them have a result, or enough. The score is the share of killed mutants among those that
// compile and aren't equivalent. The last line is about all packages that have a score.
func printScores(w io.Writer, mutants []*mutant, results []result, explained map[string]explanation) {
	fmt.Fprintf(w, "| %-22s | mutants | tried | killed | equivalent | known gaps | unknown | score        |\n", "package")
	fmt.Fprintf(w, "| %s | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n", strings.Repeat("-", 22))
	counts := map[string]map[string]int{}
	mutantsOf := map[string]int{}
	for _, m := range mutants {
		mutantsOf[m.file.pkg.label()]++
	}
	for _, r := range results {
		label := r.file.pkg.label()
		if counts[label] == nil {
			counts[label] = map[string]int{}
		}
		counts[label][r.state(explained)]++
	}
	all, allMutants := map[string]int{}, 0
	for _, label := range sortedKeys(mutantsOf) {
		n := counts[label]
		compiled := mutantsOf[label] - n[notCompiled] - n[broken]
		if tried(n) < min(compiled, enough) {
			fmt.Fprintf(w, "| %-22s | %7d | %5s | %6s | %10s | %10s | %7s | not measured |\n", label, compiled, "", "", "", "", "")
			continue
		}
		printScore(w, label, compiled, n)
		allMutants += compiled
		for state := range n {
			all[state] += n[state]
		}
	}
	printScore(w, "all measured", allMutants, all)
}

// tried returns how many mutants had a result that counts.
func tried(n map[string]int) int { return n[killed] + n[wrong] + n[equivalent] + n[gap] + n[survived] }

// printScore prints a line of the table, for this many mutants and for how many of them had each state.
func printScore(w io.Writer, label string, mutants int, n map[string]int) {
	dead, score := n[killed]+n[wrong], "-"
	if could := tried(n) - n[equivalent]; could > 0 {
		score = fmt.Sprintf("%.1f%%", 100*float64(dead)/float64(could))
	}
	fmt.Fprintf(w, "| %-22s | %7d | %5d | %6d | %10d | %10d | %7d | %12s |\n", label, mutants, tried(n), dead, n[equivalent], n[gap], n[survived], score)
}

// page is where readers find the scores, between two marks.
const (
	page  = "docs/internals/reliability.md"
	begin = "<!-- written by go run ./proof/mutants -update -->\n"
	end   = "<!-- end of mutants -->\n"
)

// withScores returns the page's text with the scores between the marks.
func withScores(text []byte, mutants []*mutant, results []result, explained map[string]explanation) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(begin))
	_, after, found := bytes.Cut(rest, []byte(end))
	if !ok || !found {
		return nil, fmt.Errorf("%s lacks the marks %q and %q", page, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%s\n", before, begin)
	printScores(&b, mutants, results, explained)
	fmt.Fprintf(&b, "%s%s", end, after)
	return b.Bytes(), nil
}
