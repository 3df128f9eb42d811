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

// state compares the result with the explanation of why the mutant survives, if there is one.
func (r result) state(explained map[string]explanation) string {
	e, known := explained[r.id]
	switch {
	case r.killedBy == notCompiled:
		return notCompiled
	case r.killedBy != "" && e.equivalent:
		return "KILLED BUT EXPLAINED"
	case r.killedBy != "":
		return "killed"
	case e.equivalent:
		return "equivalent"
	case known:
		return "known gap"
	}
	return "SURVIVED"
}

// line is the result's line in the report.
func (r result) line(state string) string {
	return strings.TrimSpace(fmt.Sprintf("%-15s  %s  %s  (%s)  %s", state, r.id, r.change(), r.position(), r.killedBy))
}

// A score counts the mutants of a package.
type score struct{ all, killed, equivalent, gaps, survived int }

// rate is the share of the mutants that are killed of those that could be.
func (s *score) rate() string {
	if s.all == s.equivalent {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(s.killed)/float64(s.all-s.equivalent))
}

// scores counts by package, and in total under "all", which comes last.
func scores(results []result, explained map[string]explanation) (labels []string, byLabel map[string]*score) {
	byLabel = map[string]*score{"all": {}}
	for _, r := range results {
		state := r.state(explained)
		for _, label := range []string{r.file.pkg.label(), "all"} {
			s := cmp.Or(byLabel[label], new(score))
			byLabel[label] = s
			switch state {
			case notCompiled:
				continue
			case "equivalent":
				s.equivalent++
			case "known gap":
				s.gaps++
			case "SURVIVED":
				s.survived++
			default:
				s.killed++
			}
			s.all++
		}
	}
	for _, label := range sortedKeys(byLabel) {
		if label != "all" {
			labels = append(labels, label)
		}
	}
	return append(labels, "all"), byLabel
}

// report prints what needs attention and the scores. It reports whether nothing must be done.
func report(w io.Writer, results []result, explained map[string]explanation) (ok bool) {
	ok = true
	for _, r := range slices.SortedFunc(slices.Values(results), func(a, b result) int { return cmp.Compare(a.id, b.id) }) {
		_, known := explained[r.id]
		switch state := r.state(explained); {
		case state == "SURVIVED" || state == "KILLED BUT EXPLAINED":
			ok = false
			fmt.Fprintln(w, r.line(state))
		case state == "killed" && known:
			fmt.Fprintln(w, r.line("killed, remove the gap from survivors.tsv:"))
		}
	}
	fmt.Fprintln(w)
	printScores(w, results, explained)
	return ok
}

// printScores prints a Markdown table.
func printScores(w io.Writer, results []result, explained map[string]explanation) {
	fmt.Fprintf(w, "| %-22s | mutants | killed | equivalent | known gaps | unknown | score |\n", "package")
	fmt.Fprintf(w, "| %s | ---: | ---: | ---: | ---: | ---: | ---: |\n", strings.Repeat("-", 22))
	labels, byLabel := scores(results, explained)
	for _, label := range labels {
		s := byLabel[label]
		fmt.Fprintf(w, "| %-22s | %7d | %6d | %10d | %10d | %7d | %5s |\n", label, s.all, s.killed, s.equivalent, s.gaps, s.survived, s.rate())
	}
}

// page is where readers find the scores, between two marks.
const (
	page  = "docs/internals/reliability.md"
	begin = "<!-- written by go run ./proof/mutants -update -->\n"
	end   = "<!-- end of mutants -->\n"
)

// withScores returns the page's text with the scores between the marks.
func withScores(text []byte, results []result, explained map[string]explanation) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(begin))
	_, after, found := bytes.Cut(rest, []byte(end))
	if !ok || !found {
		return nil, fmt.Errorf("%s lacks the marks %q and %q", page, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%s\n", before, begin)
	printScores(&b, results, explained)
	fmt.Fprintf(&b, "%s%s", end, after)
	return b.Bytes(), nil
}
