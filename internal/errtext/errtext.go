// Package errtext holds what the texts of all policies' errors have in common.
package errtext

import "time"

// Title is what an error text begins with: the package, and the policy's name if it has one.
func Title(pkg, name string) string {
	if name == "" {
		return pkg
	}
	return pkg + " " + name
}

// Round is a measured time to two digits, or to the second, for a reader.
func Round(d time.Duration) time.Duration {
	for unit := time.Second; unit > 1; unit /= 10 {
		if d >= 10*unit {
			return d.Round(unit)
		}
	}
	return d
}
