// Package sqlitelike has errors with the forms that packages for SQLite use, for tests. Its path
// contains "sqlite", which Classify looks for.
package sqlitelike

// A MethodError has its code as the result of a method, as in modernc.org/sqlite.
type MethodError struct{ N int }

func (e *MethodError) Error() string { return "method" }

// Code returns N.
func (e *MethodError) Code() int { return e.N }

// An ErrNo is a code, as in github.com/mattn/go-sqlite3.
type ErrNo int

// A FieldError has its codes in fields, as in github.com/mattn/go-sqlite3.
type FieldError struct{ Code, ExtendedCode ErrNo }

func (FieldError) Error() string { return "field" }

// An ExtendedError has both codes as results of methods, as in github.com/ncruces/go-sqlite3.
type ExtendedError uint16

func (ExtendedError) Error() string { return "extended" }

// Code returns the low byte.
func (e ExtendedError) Code() uint8 { return uint8(e) }

// ExtendedCode returns the code.
func (e ExtendedError) ExtendedCode() uint16 { return uint16(e) }

// NoCode has none.
type NoCode struct{}

func (NoCode) Error() string { return "no code" }
