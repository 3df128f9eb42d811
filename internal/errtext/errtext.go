// Package errtext formats what the error texts of all policies have in common.
package errtext

import "time"

// Title returns the beginning of an error text: the package, and the policy's name if it has one.
func Title(pkg, name string) string {
	if name == "" {
		return pkg
	}
	return pkg + " " + name
}

// Round rounds a measured time to two digits, or to the second if that is finer, for readability.
func Round(d time.Duration) time.Duration {
	for unit := time.Second; unit > 1; unit /= 10 {
		if d >= 10*unit {
			return d.Round(unit)
		}
	}
	return d
}
