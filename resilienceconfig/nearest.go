package resilienceconfig

import (
	"maps"
	"slices"
	"strings"
)

// didYouMean returns a question with the known name that is nearest to name, or nothing if none is
// known.
func didYouMean(name string, known []string) string {
	best, _ := nearest(name, known)
	if best == "" {
		return ""
	}
	return ", did you mean " + shownName(best) + "?"
}

func shownName(name string) string {
	if nameError(name) == "" {
		return clip(name)
	}
	return quote(name)
}

// nearest returns the known name with the fewest edits from name, and whether it is near enough to be
// what was meant. Of equal ones, it is the first one.
func nearest(name string, known []string) (best string, near bool) {
	least := -1
	folded := strings.ToLower(clip(name))
	for _, candidate := range known {
		if d := edits(folded, strings.ToLower(clip(candidate))); least < 0 || d < least {
			least, best = d, candidate
		}
	}
	return best, least >= 0 && 3*least <= max(len(folded), len(best))
}

// edits returns how many insertions, deletions, replacements, and swaps of neighbors change a to b.
func edits(a, b string) int {
	from, to := []rune(a), []rune(b)
	before, row, next := make([]int, len(to)+1), make([]int, len(to)+1), make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}
	for i := range from {
		next[0] = i + 1
		for j := range to {
			cost := 1
			if from[i] == to[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && from[i] == to[j-1] && from[i-1] == to[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(to)]
}

func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
