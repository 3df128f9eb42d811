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

// A state compares the result of a mutant with the explanation of why it survives, if there is one.
type state string

const (
	uncompiled state = "doesn't compile"
	killed     state = "killed"
	equivalent state = "equivalent"
	gap        state = "known gap"
	survived   state = "SURVIVED"
	wrong      state = "KILLED BUT EXPLAINED"
)

func (r result) state(explained map[string]explanation) state {
	e, known := explained[r.id]
	switch {
	case r.killedBy == notCompiled:
		return uncompiled
	case r.killedBy != "" && known && e.equivalent:
		return wrong
	case r.killedBy != "":
		return killed
	case known && e.equivalent:
		return equivalent
	case known:
		return gap
	}
	return survived
}

// line is the result's line in the report.
func (r result) line(s state) string {
	text := fmt.Sprintf("%-15s  %s  %s  (%s)", s, r.id, r.change(), r.position())
	if r.killedBy != "" && s != uncompiled {
		text += "  [" + r.killedBy + "]"
	}
	return text
}

// A score counts the mutants of a package by state.
type score map[state]int

func (s score) total() int { return s[killed] + s[wrong] + s[equivalent] + s[gap] + s[survived] }

// rate is the share of the mutants that are killed of those that could be.
func (s score) rate() string {
	n, all := s[killed]+s[wrong], s.total()-s[equivalent]
	if all == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(n)/float64(all))
}

// scores counts by package, and in total.
func scores(results []result, explained map[string]explanation) (byPackage map[string]score, total score) {
	byPackage, total = map[string]score{}, score{}
	for _, r := range results {
		label, s := r.function.file.pkg.label(), r.state(explained)
		if byPackage[label] == nil {
			byPackage[label] = score{}
		}
		byPackage[label][s]++
		total[s]++
	}
	return byPackage, total
}

// report prints what needs attention and the scores. It reports whether nothing needs attention.
func report(w io.Writer, results []result, explained map[string]explanation) (ok bool) {
	ok = true
	slices.SortStableFunc(results, func(a, b result) int { return cmp.Compare(a.id, b.id) })
	for _, r := range results {
		switch s := r.state(explained); s {
		case survived, wrong:
			ok = false
			fmt.Fprintln(w, r.line(s))
		case killed:
			if _, known := explained[r.id]; known {
				fmt.Fprintf(w, "%s is killed by %s: remove the gap from survivors.tsv\n", r.id, r.killedBy)
			}
		}
	}
	byPackage, total := scores(results, explained)
	fmt.Fprintf(w, "\n%-24s %8s %8s %11s %8s %9s %8s\n", "package", "mutants", "killed", "equivalent", "gaps", "survived", "score")
	row := func(name string, s score) {
		fmt.Fprintf(w, "%-24s %8d %8d %11d %8d %9d %8s\n", name, s.total(), s[killed]+s[wrong], s[equivalent], s[gap], s[survived], s.rate())
	}
	for _, label := range sortedKeys(byPackage) {
		row(label, byPackage[label])
	}
	row("all", total)
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
	row := func(name string, s score) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %s |\n", name, s.total(), s[killed]+s[wrong], s[equivalent], s[gap]+s[survived], s.rate())
	}
	byPackage, total := scores(results, explained)
	for _, label := range sortedKeys(byPackage) {
		row("`"+label+"`", byPackage[label])
	}
	row("all", total)
	return before + begin + b.String() + end + after, nil
}
