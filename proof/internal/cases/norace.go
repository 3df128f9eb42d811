//go:build !race

package cases

// Race reports whether this is a program under the race detector.
const Race = false
