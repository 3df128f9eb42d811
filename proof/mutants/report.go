package main

import (
	"fmt"
	"io"
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

// printMarkdown prints the counts and the survivors as docs/reliability.md has them.
func printMarkdown(w io.Writer, results []result) {
	files, byFile, total := perFile(results)
	fmt.Fprintf(w, "| file | mutants | killed | equivalent | unexpected |\n| --- | ---: | ---: | ---: | ---: |\n")
	for _, file := range files {
		c := byFile[file]
		fmt.Fprintf(w, "| `%s` | %d | %d | %d | %d |\n", file, c.all, c.killed, c.equivalent, c.unexpected)
	}
	fmt.Fprintf(w, "| all | %d | %d | %d | %d |\n", total.all, total.killed, total.equivalent, total.unexpected)

	fmt.Fprintf(w, "\n| survivor | why it is equivalent |\n| --- | --- |\n")
	for _, r := range results {
		if r.killedBy == "" && r.broken == nil {
			reason := r.equivalent
			if reason == "" {
				reason = "**it is not: a test is missing**"
			}
			fmt.Fprintf(w, "| `%s`: %s | %s |\n", r.file, r.what, strings.ReplaceAll(reason, "|", `\|`))
		}
	}
}
