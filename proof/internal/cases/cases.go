// Package cases says how many cases the models of proof try.
//
// Each package has a number that it tries within a second or two. An environment variable has all of them try more, which is
// worth hours after a change to the core:
//
//	PROOF_TIMES=100 go test ./proof/...
//
// For one package the flags of rapid do as ever: go test ./proof/retry -rapid.checks=1000000. With -short it is a fifth.
package cases

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// underRace is the share of the cases that are tried under the race detector, which takes some ten times as long: most models have
// one goroutine at a time, so that it finds little in them.
const underRace = 4

// Main runs the tests of a package, with so many cases for each property and so many steps for each case, 0 for as many as rapid
// has it. It is to be called by the package's TestMain, and does not return.
//
// A case that fails is printed and not kept in a file: tests that mutants fail would fill the tree with them.
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

var reduced bool // the number of cases, as this is under the race detector

// Racing is how many cases those tests are to try whose goroutines race: under the race detector half of those without.
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
