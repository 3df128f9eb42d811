package resiliencesql_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencesql"
	"github.com/effector-go/resilience/resiliencesql/internal/sqlitelike"
)

// mysqlError has the form of go-sql-driver's error.
type mysqlError struct {
	Number   uint16
	SQLState [5]byte
	Message  string
}

func (e *mysqlError) Error() string { return e.Message }

// Forms that mean nothing.
type (
	numberError struct{ Number uint16 }
	wideError   struct {
		Number   int
		SQLState [5]byte
	}
	codeError    struct{ Code int }
	safeError    bool
	selfWrapping struct{}
	panicking    struct{}
)

func (numberError) Error() string      { return "number" }
func (wideError) Error() string        { return "wide" }
func (codeError) Error() string        { return "code" }
func (safeError) Error() string        { return "safe" }
func (e safeError) SafeToRetry() bool  { return bool(e) }
func (selfWrapping) Error() string     { return "itself" }
func (e selfWrapping) Unwrap() []error { return []error{e, e} }
func (panicking) Error() string        { panic("Error") }
func (panicking) Unwrap() error        { panic("Unwrap") }
func (panicking) Is(error) bool        { panic("Is") }
func (panicking) SQLState() string     { panic("SQLState") }

// Rule 10.

func TestClassifyCodes(t *testing.T) {
	for class, codes := range map[resiliencesql.Class]struct {
		states  []string
		numbers []uint16
		codes   []int
	}{
		resiliencesql.RolledBack: {
			[]string{"40000", "40001", "40P01", "55P03", "25P02"},
			[]uint16{1020, 1205, 1213, 1613, 1614, 3058, 3101, 3572},
			[]int{4, 5, 6, 15, 517, 262},
		},
		resiliencesql.NotRun: {
			[]string{"08001", "08004", "57P03", "57P05", "53000", "53200", "53300", "53400", "25006"},
			[]uint16{1037, 1038, 1040, 1041, 1047, 1053, 1203, 1226, 1290, 1836},
			nil,
		},
		resiliencesql.Ambiguous: {
			[]string{"08000", "08003", "08006", "08007", "08P01", "40003", "57P01", "57P02", "57P04"},
			[]uint16{1152, 1158, 1159, 1160, 1161, 1184, 1927, 4031},
			nil,
		},
		resiliencesql.Failed: {
			[]string{"53100", "57000", "57014", "58000", "58030", "XX000", "XX001", "HV000", "28000", "28P01", "3D000", "F0000"},
			[]uint16{1021, 1026, 1030, 1034, 1035, 1044, 1045, 1049, 1114, 1129, 1130, 1180, 1194, 1195, 1317, 1698, 1969, 3024},
			[]int{2, 7, 8, 9, 10, 11, 13, 14, 22, 26, 266},
		},
		resiliencesql.Answered: {
			[]string{"23505", "42P01", "22012", "40002", "25001", "00000", "P0001", "ZZZZZ"},
			[]uint16{1062, 1064, 1157, 1162, 0},
			[]int{1, 19, 2067, 20, 100, 0},
		},
	} {
		check := func(err error) {
			t.Helper()
			for _, err := range []error{err, fmt.Errorf("x: %w", err), errors.Join(errOwn, err), resilience.NotFailure(err)} {
				if got := resiliencesql.Classify(err); got != class {
					t.Errorf("%v: got %v, want %v", err, got, class)
				}
			}
		}
		for _, state := range codes.states {
			check(stateError(state))
		}
		for _, number := range codes.numbers {
			check(&mysqlError{Number: number})
		}
		for _, code := range codes.codes {
			check(&sqlitelike.MethodError{N: code})
			check(sqlitelike.FieldError{Code: sqlitelike.ErrNo(code & 0xff), ExtendedCode: sqlitelike.ErrNo(code)})
			check(sqlitelike.FieldError{Code: sqlitelike.ErrNo(code & 0xff)})
			check(sqlitelike.ExtendedError(code))
		}
	}
}

func TestClassifyOtherForms(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ETIMEDOUT)}
	for _, test := range []struct {
		err  error
		want resiliencesql.Class
	}{
		{nil, resiliencesql.Answered},
		{errOwn, resiliencesql.Unknown},
		{resilience.ErrRefused, resiliencesql.NotRun},
		{&breaker.OpenError{}, resiliencesql.NotRun},
		{sql.ErrConnDone, resiliencesql.NotRun},
		{sql.ErrTxDone, resiliencesql.Unknown},
		{sql.ErrNoRows, resiliencesql.Answered},
		{safeError(true), resiliencesql.NotRun},
		{safeError(false), resiliencesql.Unknown},
		{stateError("2350"), resiliencesql.Unknown},
		{stateError("235055"), resiliencesql.Unknown},
		{stateError("23p05"), resiliencesql.Unknown},
		{stateError("é123"), resiliencesql.Unknown},
		{mysqlByValue(1213), resiliencesql.RolledBack},
		{numberError{1213}, resiliencesql.Unknown},
		{wideError{Number: 1213}, resiliencesql.Unknown},
		{codeError{5}, resiliencesql.Unknown},
		{sqlitelike.NoCode{}, resiliencesql.Unknown},
		{(*sqlitelike.MethodError)(nil), resiliencesql.Unknown},
		{errors.New("commit unexpectedly resulted in rollback"), resiliencesql.RolledBack},
		{errors.New("pq: could not complete operation in a failed transaction"), resiliencesql.RolledBack},
		{dial, resiliencesql.NotRun},
		{&net.OpError{Op: "dial", Err: context.DeadlineExceeded}, resiliencesql.NotRun},
		{&net.DNSError{}, resiliencesql.NotRun},
		{syscall.ECONNREFUSED, resiliencesql.NotRun},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, resiliencesql.Ambiguous},
		{&net.OpError{Op: "write", Err: errOwn}, resiliencesql.Ambiguous},
		{driver.ErrBadConn, resiliencesql.Ambiguous},
		{context.Canceled, resiliencesql.Ambiguous},
		{context.DeadlineExceeded, resiliencesql.Ambiguous},
		{io.EOF, resiliencesql.Ambiguous},
		{io.ErrUnexpectedEOF, resiliencesql.Ambiguous},
		{syscall.ECONNRESET, resiliencesql.Ambiguous},
		{syscall.EPIPE, resiliencesql.Ambiguous},
		{net.ErrClosed, resiliencesql.Ambiguous},
		{io.ErrClosedPipe, resiliencesql.Ambiguous},
	} {
		for _, err := range []error{test.err, fmt.Errorf("x: %w", test.err)} {
			if test.err == nil {
				err = nil
			}
			if got := resiliencesql.Classify(err); got != test.want {
				t.Errorf("%v (%T): got %v, want %v", err, test.err, got, test.want)
			}
		}
	}
}

type valueError struct {
	Number   uint16
	SQLState [5]byte
}

func (valueError) Error() string { return "by value" }

func mysqlByValue(number uint16) error { return valueError{Number: number} }

func TestClassifyPrefersTheFirstForm(t *testing.T) {
	inOrder := []struct {
		err  error
		want resiliencesql.Class
	}{
		{resilience.ErrRefused, resiliencesql.NotRun},
		{sql.ErrNoRows, resiliencesql.Answered},
		{safeError(true), resiliencesql.NotRun},
		{diskFull, resiliencesql.Failed},
		{&mysqlError{Number: 1213}, resiliencesql.RolledBack},
		{&sqlitelike.MethodError{N: 19}, resiliencesql.Answered},
		{errors.New("commit unexpectedly resulted in rollback"), resiliencesql.RolledBack},
		{io.EOF, resiliencesql.Ambiguous},
		{errOwn, resiliencesql.Unknown},
	}
	for i, first := range inOrder {
		for _, later := range inOrder[i+1:] {
			for _, err := range []error{errors.Join(first.err, later.err), errors.Join(later.err, fmt.Errorf("x: %w", first.err))} {
				if got := resiliencesql.Classify(err); got != first.want {
					t.Errorf("%q: got %v, want %v", err, got, first.want)
				}
			}
		}
	}
	// What failed after something was sent counts more than a dial.
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	if got := resiliencesql.Classify(errors.Join(refused, io.EOF)); got != resiliencesql.Ambiguous {
		t.Errorf("got %v, want ambiguous", got)
	}
}

func TestClassifyNeverPanicsOrHangs(t *testing.T) {
	for _, err := range []error{panicking{}, selfWrapping{}, errors.Join(panicking{}, selfWrapping{})} {
		if got := resiliencesql.Classify(err); got != resiliencesql.Unknown {
			t.Errorf("got %v, want unknown", got)
		}
	}
	if got := resiliencesql.Classify(errors.Join(panicking{}, serialization)); got != resiliencesql.RolledBack {
		t.Errorf("got %v, want rolled back", got)
	}
}

func TestClassString(t *testing.T) {
	want := []string{"unknown", "not run", "rolled back", "ambiguous", "answered", "failed", "Class(6)"}
	for i, want := range want {
		class := resiliencesql.Class(i)
		text, err := class.MarshalText()
		if class.String() != want || string(text) != want || err != nil {
			t.Errorf("got %v, %s, %v, want %s", class, text, err, want)
		}
	}
	if got := resiliencesql.Class(-1).String(); got != "Class(-1)" {
		t.Errorf("got %s, want Class(-1)", got)
	}
}

// FuzzClassify builds a tree of errors from data. The class must be one of the constants and must not
// depend on how often the tree is wrapped.
func FuzzClassify(f *testing.F) {
	f.Add([]byte("\x0023505"))
	f.Add([]byte("\x01\x04\xbd\x00\x00\x00\x02\x05\x00\x00\x00\x00"))
	f.Add([]byte("\x03\x00\x00\x00\x00\x00\x0408006\x05\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var err error = errOwn
		for range 20 {
			if len(data) < 6 {
				break
			}
			kind, rest := data[0], data[1:6]
			data = data[6:]
			var leaf error
			switch kind % 8 {
			case 0:
				leaf = stateError(rest)
			case 1:
				leaf = &mysqlError{Number: binary.BigEndian.Uint16(rest)}
			case 2:
				leaf = &sqlitelike.MethodError{N: int(int8(rest[0]))}
			case 3:
				leaf = safeError(rest[0]%2 == 0)
			case 4:
				leaf = errors.New(string(rest))
			case 5:
				leaf = panicking{}
			case 6:
				leaf = sqlitelike.FieldError{Code: sqlitelike.ErrNo(rest[0]), ExtendedCode: sqlitelike.ErrNo(rest[1])}
			case 7:
				leaf = &net.OpError{Op: string(rest), Err: io.EOF}
			}
			err = errors.Join(err, leaf)
		}
		class := resiliencesql.Classify(err)
		if class < resiliencesql.Unknown || class > resiliencesql.Failed {
			t.Errorf("got %v, want one of the constants", class)
		}
		if again := resiliencesql.Classify(fmt.Errorf("%w", resilience.NotMade(err))); again != class {
			t.Errorf("got %v when wrapped, want %v", again, class)
		}
	})
}
