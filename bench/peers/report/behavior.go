package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/effector-go/resilience/bench/peers/internal/behavior"
)

// behaviorTables returns one table per kind: a row for each question, a column for each library.
func behaviorTables(answers []behavior.Answer) string {
	var w bytes.Buffer
	for _, kind := range behavior.Kinds {
		subjects := behavior.Subjects(kind)
		fmt.Fprintf(&w, "\n| %s |", kind)
		for _, s := range subjects {
			fmt.Fprintf(&w, " %s |", s.Name)
		}
		w.WriteString("\n| ---" + strings.Repeat(" | :---:", len(subjects)) + " |\n")
		for _, q := range behavior.Questions(kind) {
			fmt.Fprintf(&w, "| %s |", q.Name)
			for _, s := range subjects {
				fmt.Fprintf(&w, " %s |", cell(answers, kind, s.Name, q.ID))
			}
			w.WriteString("\n")
		}
	}
	return w.String()
}

// cell returns an answer as the table shows it.
func cell(answers []behavior.Answer, kind behavior.Kind, subject, question string) string {
	a, ok := find(answers, kind, subject, question)
	switch {
	case !ok:
		return "not asked"
	case a.Found != "":
		return fmt.Sprintf("%s: %s", a.Verdict, a.Found)
	case a.Verdict == behavior.Cannot:
		return "–"
	default:
		return string(a.Verdict)
	}
}

func find(answers []behavior.Answer, kind behavior.Kind, subject, question string) (behavior.Answer, bool) {
	i := slices.IndexFunc(answers, func(a behavior.Answer) bool {
		return a.Kind == kind && a.Subject == subject && a.Question == question
	})
	if i < 0 {
		return behavior.Answer{}, false
	}
	return answers[i], true
}

// questionLists returns, for each kind, what happens in each question and which libraries have no
// setting for it.
func questionLists(answers []behavior.Answer) string {
	var w bytes.Buffer
	asked := map[string]bool{}
	for _, kind := range behavior.Kinds {
		article := "a"
		if kind == behavior.Client {
			article = "an"
		}
		fmt.Fprintf(&w, "\n### Questions about %s %s\n\n", article, kind)
		for _, q := range behavior.Questions(kind) {
			text := q.Text
			if asked[text] {
				text = "As above."
			}
			asked[q.Text] = true
			fmt.Fprintf(&w, "- *%s*: %s\n", q.Name, perLine(text, "  "))
			for _, s := range behavior.Subjects(kind) {
				if a, ok := find(answers, kind, s.Name, q.ID); ok && a.Verdict == behavior.Cannot {
					fmt.Fprintf(&w, "  - –: %s %s.\n", s.Name, a.Why)
				}
			}
		}
	}
	return w.String()
}
