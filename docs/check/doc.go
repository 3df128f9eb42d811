// Package check tests the documentation:
//
//   - the code on pages compiles, and prints what its Output comment says
//   - links on pages and in doc comments resolve
//   - words are spelled right, in American English
//   - each policy's page has the common outline, and its tables list every field
//   - every test that a page names exists
//   - each diagram names the hash of the source that it was drawn from
//
// Run it with
//
//	go test -count=1 ./docs/check
//
// The pages are outside this module, and the go command tracks only files within a test's module.
// Without -count=1 it may answer from its cache although a page has changed.
//
// Code on a page is usually a fragment. It is type-checked within a function that imports the
// packages it names. It may use the names declared in testdata/prelude: those of common.go on every
// page, replaced by those of a file with the page's name.
//
// A block may show several parts, each of which starts with a line "// wrong", "// right", "//
// before", or "// after". Each part is a scope of its own, which begins with the lines before the
// first part. A part must compile, unless that line says "does not compile": then it must not. A
// part that ends in "// Output:" is run.
package check
