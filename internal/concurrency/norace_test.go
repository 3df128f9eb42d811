//go:build !race

package concurrency

// raceDetector reports whether the tests run under the race detector.
const raceDetector = false
