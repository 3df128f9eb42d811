package resiliencesql

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	answerTime = time.Second     // how long the context of ROLLBACK or a Ping lasts
	commitTime = time.Second     // how long the context of COMMIT or Verify lasts at least
	patience   = 2 * time.Second // how long a call waits for a driver that may not take a context
)

var errGoexit = errors.New("resiliencesql: the driver ended its goroutine")

// An outcome is how a function ended that ran on its own goroutine.
type outcome struct {
	err      error
	panicked bool
	value    any // of the panic
}

// start runs f on its own goroutine. A panic of f is part of the outcome.
func start(f func() error) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		o := outcome{err: errGoexit}
		returned := false
		defer func() {
			if !returned {
				o.value = recover()
				o.panicked = o.value != nil
			}
			done <- o
		}()
		o.err = f()
		returned = true
	}()
	return done
}

// wait waits for the outcome, at most for patience, and reports whether it came.
func wait(done <-chan outcome) (o outcome, ok bool) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case o = <-done:
		return o, true
	case <-timer.C:
		return o, false
	}
}

// within runs f on its own goroutine and waits for it, at most for patience. If f panics, so does
// within. It reports false if f still runs.
func within(f func() error) (err error, ok bool) {
	o, ok := wait(start(f))
	if o.panicked {
		panic(o.value)
	}
	return o.err, ok
}

// discard closes the connection instead of returning it to the pool.
func discard(conn *sql.Conn) error {
	return conn.Raw(func(any) error { return driver.ErrBadConn })
}

// database/sql holds a read lock of a Conn or Tx, its closemu, while the driver runs. If the driver
// panics in one of the functions below, or calls Goexit, the lock stays locked, and Tx.Rollback,
// Tx.Commit, and Conn.Close block forever.
var lockHolders = map[string]bool{
	"database/sql.(*DB).queryDC":        true,
	"database/sql.(*Rows).close":        true,
	"database/sql.(*Stmt).ExecContext":  true,
	"database/sql.(*Stmt).QueryContext": true,
}

// panickedInDriver reports whether the goroutine, which is panicking or in Goexit, left a read lock
// locked. It looks at the goroutine's stack, so it must be called by a deferred function.
func panickedInDriver() bool {
	pcs := make([]uintptr, 256)
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		frames := runtime.CallersFrames(pcs[:n])
		for {
			frame, more := frames.Next()
			name, _, _ := strings.Cut(frame.Function, ".func") // closures
			switch {
			case lockHolders[name]:
				return true
			case strings.HasPrefix(name, packagePath+".runTx[") || strings.HasPrefix(name, packagePath+".runDo["):
				return false
			}
			if !more {
				break
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}

var packagePath = reflect.TypeFor[Config]().PkgPath()

// closemu returns that lock of connOrTx, a *sql.Conn or *sql.Tx, or nil if this version of
// database/sql has no such lock. database/sql offers no other way: a connection whose lock stays
// locked would stay in use forever.
func closemu(connOrTx any) *sync.RWMutex {
	field := reflect.ValueOf(connOrTx).Elem().FieldByName("closemu")
	if !field.IsValid() || field.Type() != reflect.TypeFor[sync.RWMutex]() {
		return nil
	}
	return (*sync.RWMutex)(field.Addr().UnsafePointer())
}

// isFree reports whether nobody holds mu. It may be nil.
func isFree(mu *sync.RWMutex) bool {
	if mu == nil {
		return true
	}
	if mu.TryLock() {
		mu.Unlock()
		return true
	}
	return false
}

// unlock unlocks a read lock that a panic of the driver left locked in connOrTx.
func unlock(connOrTx any) {
	if mu := closemu(connOrTx); !isFree(mu) {
		mu.RUnlock()
	}
}
