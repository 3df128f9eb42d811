// Package check has tests of the documentation: that its code compiles and prints what it says, that its links and those of doc comments
// lead somewhere, that its words are spelled right, that each policy's page has the common outline and every field, and that the diagrams
// are those of their sources.
//
//	go test -count=1 ./docs/check
//
// The pages lie outside of this module, so the go command does not see that they changed: hence -count=1, lest it answer from its cache.
//
// Code of a page is mostly a fragment. It is type-checked in a function, with the packages it names imported, and with the names that are
// declared in testdata/prelude: those of common.go on every page, and in place of them those of a file with the page's name. Parts that
// begin with a line "// wrong", "// right", "// before" or "// after" are scopes of their own, each with what stands before the first of
// them; all must compile, unless the line says "does not compile", and then must not. A part that ends in "// Output:" is run.
package check
