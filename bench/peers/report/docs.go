package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/effector-go/resilience/bench/peers/internal/behaviour"
)

const (
	pageName  = "performance.md"
	locksName = "internals/locks.md"
	byHand    = "by-hand" // the markers of the part of the page that is written by hand
	locks     = "locks"   // and of the table in locksName
)

// docs is the folder that is written to, and what in it is kept.
type docs struct {
	folder string
	hand   string // what is written by hand in the page
	locks  string // the page of locks, "" if there is none
}

// openDocs makes the folder if need be and reads what is kept. It is an error if what is written by hand cannot be found.
func openDocs(folder string) (docs, error) {
	d := docs{folder: folder}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return d, err
	}
	page, err := readIfThere(filepath.Join(folder, pageName))
	if err != nil {
		return d, err
	}
	if page != "" {
		var ok bool
		if d.hand, ok = between(page, byHand); !ok {
			return d, fmt.Errorf("%s has no markers %s and %s: what is written by hand would be lost", pageName, begin(byHand), end(byHand))
		}
	}
	if d.locks, err = readIfThere(filepath.Join(folder, locksName)); err != nil {
		return d, err
	}
	if d.locks != "" {
		if _, err := replace(d.locks, locks, ""); err != nil {
			return d, fmt.Errorf("%s: %w", locksName, err)
		}
	}
	return d, nil
}

// readIfThere is the text of a file, "" if there is none.
func readIfThere(name string) (string, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(data), err
}

// write writes the page, its figures and the tables of locks, and returns the names of the files it wrote.
func (d docs) write(r *results, answers []behaviour.Answer) (written []string, err error) {
	files := map[string][]byte{}
	for _, f := range figures(r) {
		if files[f.name+".svg"], err = f.render("svg"); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	text, err := page(r, answers, d.hand)
	if err != nil {
		return nil, err
	}
	files[pageName] = []byte(text)
	if d.locks != "" {
		text, err := replace(d.locks, locks, locksTables(r))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", locksName, err)
		}
		files[locksName] = []byte(text)
	}
	if err := os.MkdirAll(filepath.Join(d.folder, filepath.Dir(locksName)), 0o755); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(d.folder, name), files[name], 0o644); err != nil {
			return written, err
		}
		written = append(written, filepath.Join(d.folder, name))
	}
	return written, nil
}

func begin(name string) string { return "<!-- " + name + ":begin -->" }
func end(name string) string   { return "<!-- " + name + ":end -->" }

// between is what stands in text between the markers of the name.
func between(text, name string) (string, bool) {
	_, rest, ok := strings.Cut(text, begin(name))
	if !ok {
		return "", false
	}
	inner, _, ok := strings.Cut(rest, end(name))
	return strings.Trim(inner, "\n"), ok
}

// replace puts another text between the markers of the name, which must be there once, in order.
func replace(text, name, inner string) (string, error) {
	before, rest, _ := strings.Cut(text, begin(name))
	_, after, ok := strings.Cut(rest, end(name))
	if !ok || strings.Count(text, begin(name)) != 1 || strings.Count(text, end(name)) != 1 {
		return "", fmt.Errorf("the markers %s and %s must stand in it once, in this order", begin(name), end(name))
	}
	return before + begin(name) + "\n\n" + strings.Trim(inner, "\n") + "\n\n" + end(name) + after, nil
}
