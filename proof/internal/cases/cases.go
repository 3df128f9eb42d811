// Package cases determines how many cases the models in proof try.
//
// Each package has a number of cases that takes a second or two. An environment variable multiplies
// this number in all packages, which is worth hours after a change to the core:
//
//	PROOF_TIMES=100 go test ./proof/...
//
// For one package, use the flags of rapid: go test ./proof/retry -rapid.checks=1000000. With
// -short, the number is a fifth.
package cases

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// underRace is what the number of cases is divided by under the race detector, where a case takes
// about ten times as long. In most models only one goroutine runs at any time, so the race detector
// finds little in them.
const underRace = 4

// Main runs the tests of a package, with the given number of cases for each property and of steps
// for each case; if steps is 0, rapid's default applies. The package's TestMain must call it. It
// doesn't return.
//
// A failing case is printed but not saved to a file: tests that fail because of mutants would fill
// the tree with such files.
func Main(m *testing.M, checks, steps int) {
	times, err := strconv.Atoi(cmp.Or(os.Getenv("PROOF_TIMES"), "1"))
	if err != nil || times < 1 {
		fmt.Fprintf(os.Stderr, "PROOF_TIMES is %q, must be a number, at least 1\n", os.Getenv("PROOF_TIMES"))
		os.Exit(2)
	}
	flag.Parse()
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	set := func(name, value string) {
		if given[name] {
			return
		}
		if err := flag.Set(name, value); err != nil {
			panic(err) // rapid has renamed a flag
		}
	}
	if checks *= times; Race && !given["rapid.checks"] {
		checks, reduced = max(1, checks/underRace), true
	}
	set("rapid.checks", strconv.Itoa(checks))
	set("rapid.nofailfile", "true")
	if steps > 0 {
		set("rapid.steps", strconv.Itoa(steps))
	}
	os.Exit(m.Run())
}

var reduced bool // the number of cases was divided by underRace

// Racing returns the number of cases for tests whose goroutines race: under the race detector, half
// as many as without it.
func Racing() int {
	checks, err := strconv.Atoi(flag.Lookup("rapid.checks").Value.String())
	if err != nil {
		panic(err)
	}
	if reduced {
		checks *= underRace / 2
	}
	if testing.Short() {
		checks = max(1, checks/5) // as rapid does
	}
	return checks
}
