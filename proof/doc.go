// Package proof contains no code. Its folders contain tests of the module that need more than the
// standard library: models, linearizability checks, and differential tests. See
// docs/internals/reliability.md.
package proof
