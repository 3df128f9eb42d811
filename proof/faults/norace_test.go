//go:build !race

package faults

const thinned = false
