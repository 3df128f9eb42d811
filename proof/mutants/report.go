package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// state says what became of the mutant, in a word or two, and whether that is as the table says.
func (r result) state() (word string, expected bool) {
	switch {
	case r.broken != nil:
		return "BROKEN", false
	case r.killedBy != "" && r.equivalent != "":
		return "KILLED, NOT EQUIVALENT", false
	case r.killedBy != "":
		return "killed", true
	case r.equivalent != "":
		return "equivalent", true
	}
	return "SURVIVED", false
}

// String is the mutant's line in the report.
func (r result) String() string {
	word, _ := r.state()
	switch {
	case r.broken != nil:
		return fmt.Sprintf("%-10s  %v: %v", word, r.mutant, r.broken)
	case r.killedBy != "":
		return fmt.Sprintf("%-10s  %v  [%s]", word, r.mutant, r.killedBy)
	case r.equivalent != "":
		return fmt.Sprintf("%-10s  %v: %s", word, r.mutant, r.equivalent)
	}
	return fmt.Sprintf("%-10s  %v", word, r.mutant)
}

func asExpected(results []result) bool {
	for _, r := range results {
		if _, expected := r.state(); !expected {
			return false
		}
	}
	return true
}

// counts are how many mutants came to what end.
type counts struct{ all, killed, equivalent, unexpected int }

func (c *counts) add(r result) {
	c.all++
	switch _, expected := r.state(); {
	case !expected:
		c.unexpected++
	case r.killedBy != "":
		c.killed++
	default:
		c.equivalent++
	}
}

// perFile counts by file, in the order of the mutants, and in all.
func perFile(results []result) (files []string, byFile map[string]*counts, total counts) {
	byFile = map[string]*counts{}
	for _, r := range results {
		if byFile[r.file] == nil {
			byFile[r.file] = new(counts)
			files = append(files, r.file)
		}
		byFile[r.file].add(r)
		total.add(r)
	}
	return files, byFile, total
}

func printList(w io.Writer, mutants []mutant, verbose bool) {
	for _, m := range mutants {
		fmt.Fprintln(w, m)
		if m.equivalent != "" {
			fmt.Fprintf(w, "    equivalent: %s\n", m.equivalent)
		}
		if verbose {
			printPatch(w, m)
		}
	}
	fmt.Fprintf(w, "%d mutants\n", len(mutants))
}

func printPatch(w io.Writer, m mutant) {
	for line := range strings.Lines(m.old + "\n") {
		fmt.Fprint(w, "    - ", line)
	}
	for line := range strings.Lines(m.new + "\n") {
		fmt.Fprint(w, "    + ", line)
	}
}

// printReport prints a line for each mutant and the counts. Of a mutant that is not as the table says it prints the patch too.
func printReport(w io.Writer, results []result, verbose bool) {
	for _, r := range results {
		fmt.Fprintln(w, r)
		if _, expected := r.state(); verbose || !expected {
			printPatch(w, r.mutant)
		}
	}
	fmt.Fprintf(w, "\n%-28s %8s %8s %11s %11s\n", "file", "mutants", "killed", "equivalent", "unexpected")
	files, byFile, total := perFile(results)
	row := func(name string, c counts) {
		fmt.Fprintf(w, "%-28s %8d %8d %11d %11d\n", name, c.all, c.killed, c.equivalent, c.unexpected)
	}
	for _, file := range files {
		row(file, *byFile[file])
	}
	row("all", total)
}

// page is where the counts are told to readers, between two marks.
const (
	page  = "docs/internals/reliability.md"
	begin = "<!-- by go run ./proof/mutants -update -->\n"
	end   = "<!-- end -->\n"
)

// updatePage puts the counts into the page.
func updatePage(root string, mutants []mutant) error {
	name := filepath.Join(root, filepath.FromSlash(page))
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	updated, err := withCounts(string(text), mutants)
	if err != nil {
		return err
	}
	return os.WriteFile(name, []byte(updated), 0o644)
}

// withCounts is the page's text with the counts in their place.
func withCounts(text string, mutants []mutant) (string, error) {
	before, rest, ok := strings.Cut(text, begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		return "", fmt.Errorf("%s: the marks %q and %q are not there", page, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + counted(mutants) + end + after, nil
}

// counted tells as Markdown how many mutants each folder has, and why some must survive.
func counted(mutants []mutant) string {
	var folders []string
	type sum struct{ all, survive int }
	sums, total := map[string]*sum{}, sum{}
	var survivors strings.Builder
	for _, m := range mutants {
		folder := m.dir()
		if sums[folder] == nil {
			folders, sums[folder] = append(folders, folder), new(sum)
		}
		sums[folder].all++
		total.all++
		if m.equivalent != "" {
			sums[folder].survive++
			total.survive++
			fmt.Fprintf(&survivors, "| `%s`: %s | %s |\n", m.file, cell(m.what), cell(m.equivalent))
		}
	}
	slices.Sort(folders)
	var text strings.Builder
	fmt.Fprintf(&text, "There are %d faults. Tests must notice %d, and do; %d change nothing that anybody could see.\n\n",
		total.all, total.all-total.survive, total.survive)
	text.WriteString("| folder | faults | noticed | change nothing |\n| --- | ---: | ---: | ---: |\n")
	row := func(name string, s sum) {
		fmt.Fprintf(&text, "| %s | %d | %d | %d |\n", name, s.all, s.all-s.survive, s.survive)
	}
	for _, folder := range folders {
		row("`"+folder+"`", *sums[folder])
	}
	row("all", total)
	text.WriteString("\n| survivor | why nobody could see it |\n| --- | --- |\n" + survivors.String())
	return text.String()
}

// cell is a text as it stands in a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text)
}
