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

	"github.com/effector-go/resilience/bench/peers/internal/behavior"
)

const (
	performanceName  = "performance.md"
	measurementsName = "internals/measurements.md"
	locksName        = "internals/locks.md"

	notes = "notes" // the markers of the part of measurements.md that the report keeps
	locks = "locks" // the markers of the part of locks.md that the report replaces
)

// docs is the folder to write to, and what it contains that must be kept.
type docs struct {
	folder string
	notes  string // the part of measurements.md that the report keeps
	locks  string // locks.md, or "" if it doesn't exist
}

// openDocs creates the folder if necessary and reads what must be kept. It returns an error if that
// can't be found.
func openDocs(folder string) (docs, error) {
	d := docs{folder: folder}
	if err := os.MkdirAll(filepath.Join(folder, "internals"), 0o755); err != nil {
		return d, err
	}
	page, err := readIfExists(filepath.Join(folder, measurementsName))
	if err != nil {
		return d, err
	}
	if page != "" {
		var ok bool
		if d.notes, ok = between(page, notes); !ok {
			return d, fmt.Errorf("%s: the markers %s and %s are missing: the notes between them would be lost",
				measurementsName, begin(notes), end(notes))
		}
	}
	if d.locks, err = readIfExists(filepath.Join(folder, locksName)); err != nil {
		return d, err
	}
	if d.locks != "" {
		if _, err := replace(d.locks, locks, ""); err != nil {
			return d, fmt.Errorf("%s: %w", locksName, err)
		}
	}
	return d, nil
}

// readIfExists returns the text of a file, or "" if it doesn't exist.
func readIfExists(name string) (string, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(data), err
}

// write writes the pages and their figures, and returns the names of the files. peers names the
// libraries.
func (d docs) write(m measurements, answers []behavior.Answer, peers string) (written []string, err error) {
	files := map[string][]byte{}
	for _, f := range figures(m) {
		if files[f.name+".svg"], err = f.render("svg"); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	text, err := performancePage(m, answers)
	if err != nil {
		return nil, err
	}
	files[performanceName] = []byte(text)
	if text, err = measurementsPage(m, answers, peers, d.notes); err != nil {
		return nil, err
	}
	files[measurementsName] = []byte(text)
	if d.locks != "" {
		if text, err = replace(d.locks, locks, locksTables(m.all)); err != nil {
			return nil, fmt.Errorf("%s: %w", locksName, err)
		}
		files[locksName] = []byte(text)
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

// between returns the text between the markers of this name.
func between(text, name string) (string, bool) {
	_, rest, ok := strings.Cut(text, begin(name))
	if !ok {
		return "", false
	}
	inner, _, ok := strings.Cut(rest, end(name))
	return strings.Trim(inner, "\n"), ok
}

// replace replaces the text between the markers of this name. The text must contain each marker
// once, in order.
func replace(text, name, inner string) (string, error) {
	before, rest, _ := strings.Cut(text, begin(name))
	_, after, ok := strings.Cut(rest, end(name))
	if !ok || strings.Count(text, begin(name)) != 1 || strings.Count(text, end(name)) != 1 {
		return "", fmt.Errorf("must contain the markers %s and %s once, in this order", begin(name), end(name))
	}
	return before + begin(name) + "\n\n" + strings.Trim(inner, "\n") + "\n\n" + end(name) + after, nil
}
