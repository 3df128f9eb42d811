package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
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
	byLabel = map[string]*score{}
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
	labels = slices.DeleteFunc(sortedKeys(byLabel), func(label string) bool { return label == "all" })
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
	fmt.Fprintf(w, "\n%-24s %8s %8s %11s %8s %9s %8s\n", "package", "mutants", "killed", "equivalent", "gaps", "survived", "score")
	labels, byLabel := scores(results, explained)
	for _, label := range labels {
		if s := byLabel[label]; s != nil {
			fmt.Fprintf(w, "%-24s %8d %8d %11d %8d %9d %8s\n", label, s.all, s.killed, s.equivalent, s.gaps, s.survived, s.rate())
		}
	}
	return ok
}

// page is where readers find the scores, between two marks.
const (
	page  = "docs/reliability.md"
	begin = "<!-- written by go run ./proof/mutants -update -->\n"
	end   = "<!-- end of mutants -->\n"
)

// updatePage writes the scores to the page.
func updatePage(root string, results []result, explained map[string]explanation) error {
	name := filepath.Join(root, filepath.FromSlash(page))
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	updated, err := withScores(string(text), results, explained)
	if err != nil {
		return err
	}
	return os.WriteFile(name, []byte(updated), 0o644)
}

// withScores returns the page's text with the scores between the marks.
func withScores(text string, results []result, explained map[string]explanation) (string, error) {
	before, rest, ok := strings.Cut(text, begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		return "", fmt.Errorf("%s lacks the marks %q and %q", page, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	var b strings.Builder
	b.WriteString("\n| package | mutants | killed | equivalent | known gaps | score |\n| --- | ---: | ---: | ---: | ---: | ---: |\n")
	labels, byLabel := scores(results, explained)
	for _, label := range labels {
		s := byLabel[label]
		fmt.Fprintf(&b, "| `%s` | %d | %d | %d | %d | %s |\n", label, s.all, s.killed, s.equivalent, s.gaps+s.survived, s.rate())
	}
	return before + begin + b.String() + end + after, nil
}
