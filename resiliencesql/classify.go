package resiliencesql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"syscall"

	"github.com/effector-go/resilience"
)

// A Class says what an error of a database means for the statement that failed with it.
type Class int

// The classes.
const (
	Unknown    Class = iota // not a known database error
	NotRun                  // the database did nothing
	RolledBack              // the work was undone; another attempt may succeed
	Ambiguous               // it may have taken effect
	Answered                // the database did its work and the answer is negative
	Failed                  // the database failed; another attempt would not help
)

var classes = [...]string{
	Unknown:    "unknown",
	NotRun:     "not run",
	RolledBack: "rolled back",
	Ambiguous:  "ambiguous",
	Answered:   "answered",
	Failed:     "failed",
}

// String returns the class in lower case, in words: "not run".
func (c Class) String() string {
	if c < Unknown || int(c) >= len(classes) {
		return fmt.Sprintf("Class(%d)", int(c))
	}
	return classes[c]
}

// MarshalText returns the text of String.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Classify returns the class of an error of database/sql or of a driver, and [Answered] for nil. It
// needs no driver: it looks anywhere in the error's tree for the forms that the drivers for
// PostgreSQL (pgx, lib/pq), MySQL and MariaDB (go-sql-driver), and SQLite use, then for errors of the
// network. Codes and reasons are in docs/sql.md. It never panics, whatever the errors' methods do,
// and looks at no more than the first 10,000 errors of a tree. It is safe for concurrent use.
func Classify(err error) Class {
	if err == nil {
		return Answered
	}
	f := finding{rank: nothing, left: 10_000}
	f.visit(err)
	return f.class
}

// A rank is the place of a form in the order of Classify. The form with the lowest rank decides,
// wherever it is in the tree.
type rank int

const (
	notSent     rank = iota // ErrRefused, sql.ErrConnDone
	noRows                  // sql.ErrNoRows
	safeToRetry             // SafeToRetry() bool
	sqlState                // SQLState() string
	mysqlNumber             // a struct with Number and SQLState
	sqliteCode              // a type of a package for SQLite
	commitText              // two texts
	lostNetwork             // the network, after something may have been sent
	unreachable             // the network, before anything was sent
	nothing
)

// A finding is what Classify has found so far.
type finding struct {
	class Class
	rank  rank
	left  int // errors that may still be visited; a tree can be large, or contain itself
}

// visit looks at err and at what it wraps, in the order of errors.Is. A dial's error is a leaf for
// the network: what it wraps belongs to the dial.
func (f *finding) visit(err error) {
	if err == nil || f.left <= 0 {
		return
	}
	f.left--
	found, class := inspect(err)
	if found < f.rank {
		f.rank, f.class = found, class
	}
	if found == unreachable {
		return
	}
	for _, inner := range unwrap(err) {
		f.visit(inner)
	}
}

// unwrap returns the errors that err wraps, or nil if its Unwrap method panics.
func unwrap(err error) (inner []error) {
	defer func() { _ = recover() }()
	switch e := err.(type) {
	case *notBadConn:
		return []error{e.err}
	case interface{ Unwrap() error }:
		return []error{e.Unwrap()}
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	}
	return nil
}

// inspect looks at err alone. It finds nothing if a method of err panics.
func inspect(err error) (found rank, class Class) {
	defer func() {
		if recover() != nil {
			found, class = nothing, Unknown
		}
	}()
	if is(err, resilience.ErrRefused) || is(err, sql.ErrConnDone) {
		return notSent, NotRun
	}
	if is(err, sql.ErrNoRows) {
		return noRows, Answered
	}
	if e, ok := err.(interface{ SafeToRetry() bool }); ok && e.SafeToRetry() {
		return safeToRetry, NotRun
	}
	if e, ok := err.(interface{ SQLState() string }); ok {
		if state := e.SQLState(); isState(state) {
			return sqlState, ofState(state)
		}
	}
	if number, ok := mysql(err); ok {
		return mysqlNumber, ofNumber(number)
	}
	if code, ok := sqlite(err); ok {
		return sqliteCode, ofCode(code)
	}
	if text := err.Error(); strings.EqualFold(text, "commit unexpectedly resulted in rollback") ||
		strings.EqualFold(text, "pq: could not complete operation in a failed transaction") {
		return commitText, RolledBack
	}
	return network(err)
}

// is is errors.Is for err alone.
func is(err, target error) bool {
	if err == target {
		return true
	}
	e, ok := err.(interface{ Is(error) bool })
	return ok && e.Is(target)
}

func network(err error) (rank, Class) {
	if is(err, syscall.ECONNREFUSED) {
		return unreachable, NotRun
	}
	switch e := err.(type) {
	case *net.DNSError:
		return unreachable, NotRun
	case *net.OpError:
		var dns *net.DNSError
		if e.Op == "dial" || errors.Is(e.Err, syscall.ECONNREFUSED) || errors.As(e.Err, &dns) {
			return unreachable, NotRun
		}
		return lostNetwork, Ambiguous
	}
	for _, lost := range [...]error{
		driver.ErrBadConn, context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe,
		net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE,
	} {
		if is(err, lost) {
			return lostNetwork, Ambiguous
		}
	}
	return nothing, Unknown
}

func isState(s string) bool {
	for _, c := range []byte(s) {
		if !('0' <= c && c <= '9' || 'A' <= c && c <= 'Z') {
			return false
		}
	}
	return len(s) == 5
}

// ofState returns the class of an SQLSTATE. An exact code takes precedence over the class of codes
// that its first two characters name.
func ofState(state string) Class {
	switch state {
	case "40000", "40001", "40P01", "55P03", "25P02":
		return RolledBack
	case "08001", "08004", "57P03", "57P05", "25006":
		return NotRun
	case "40003", "57P01", "57P02", "57P04":
		return Ambiguous
	case "53100":
		return Failed
	}
	switch state[:2] {
	case "53":
		return NotRun
	case "08":
		return Ambiguous
	case "57", "58", "XX", "HV", "28", "3D", "F0":
		return Failed
	}
	return Answered
}

// mysql returns the number of an error of MySQL: a struct with the fields Number, of type uint16,
// and SQLState, of type [5]byte, or a pointer to one.
func mysql(err error) (uint16, bool) {
	v := reflect.ValueOf(err)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return 0, false
	}
	number, state := v.FieldByName("Number"), v.FieldByName("SQLState")
	if !number.IsValid() || !state.IsValid() || number.Type() != reflect.TypeFor[uint16]() || state.Type() != reflect.TypeFor[[5]byte]() {
		return 0, false
	}
	return uint16(number.Uint()), true
}

func ofNumber(number uint16) Class {
	switch number {
	case 1020, 1205, 1213, 1613, 1614, 3058, 3101, 3572:
		return RolledBack
	case 1037, 1038, 1040, 1041, 1047, 1053, 1203, 1226, 1290, 1836:
		return NotRun
	case 1152, 1158, 1159, 1160, 1161, 1184, 1927, 4031:
		return Ambiguous
	case 1021, 1026, 1030, 1034, 1035, 1044, 1045, 1049, 1114, 1129, 1130, 1180, 1194, 1195, 1317, 1698, 1969, 3024:
		return Failed
	}
	return Answered
}

// sqlite returns the code of an error whose type belongs to a package for SQLite: its ExtendedCode or
// its Code, a method or a field.
func sqlite(err error) (code uint8, ok bool) {
	v := reflect.ValueOf(err)
	typ := v.Type()
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if !strings.Contains(typ.PkgPath(), "sqlite") {
		return 0, false
	}
	fields := v
	if fields.Kind() == reflect.Pointer {
		fields = fields.Elem()
	}
	for _, found := range [...]reflect.Value{
		result(v.MethodByName("ExtendedCode")), field(fields, "ExtendedCode"),
		result(v.MethodByName("Code")), field(fields, "Code"),
	} {
		switch {
		case !found.IsValid():
			continue
		case found.CanInt():
			code, ok = uint8(found.Int()), true
		case found.CanUint():
			code, ok = uint8(found.Uint()), true
		}
		if code != 0 { // an ExtendedCode that isn't set is 0
			break
		}
	}
	return code, ok
}

// result returns what the method returns, or the zero Value if it takes an argument or doesn't
// return one value.
func result(method reflect.Value) reflect.Value {
	if !method.IsValid() || method.Type().NumIn() != 0 || method.Type().NumOut() != 1 {
		return reflect.Value{}
	}
	return method.Call(nil)[0]
}

func field(v reflect.Value, name string) reflect.Value {
	if v.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return v.FieldByName(name)
}

// ofCode returns the class of the low byte of a code of SQLite.
func ofCode(code uint8) Class {
	switch code {
	case 4, 5, 6, 15: // ABORT, BUSY, LOCKED, PROTOCOL
		return RolledBack
	case 2, 7, 8, 9, 10, 11, 13, 14, 22, 26: // INTERNAL, NOMEM, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, NOLFS, NOTADB
		return Failed
	}
	return Answered
}
