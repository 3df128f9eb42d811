// Package proof holds no code of its own: its folders hold the tests that prove the module, which need more than the
// standard library. See docs/internals/reliability.md.
package proof
