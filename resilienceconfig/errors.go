package resilienceconfig

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// An Error is one error in a file.
type Error struct {
	Path    string // such as pipelines.users[1].retry.maxAttempts; empty if the file can't be read as YAML
	Line    int    // from 1; 0 for an error in Options
	Column  int    // from 1, in characters
	Message string // continues the path: "is -2, must be ..."
}

// Error returns line, column, path, and message, such as "12:20: pipelines.users[1].retry.maxAttempts
// is -2, must be ...".
func (e *Error) Error() string {
	text := e.Message
	if e.Path != "" {
		text = e.Path + " " + text
	}
	if e.Line > 0 {
		text = fmt.Sprintf("%d:%d: %s", e.Line, e.Column, text)
	}
	return text
}

// Errors are the errors in a file, in file order. After the first 100, one more states how many
// follow.
type Errors []*Error

const maxErrors = 100

// Error returns one line for each error.
func (e Errors) Error() string { return e.text("") }

// Unwrap returns the errors.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// text returns one line for each error, each with the prefix.
func (e Errors) text(prefix string) string {
	var lines strings.Builder
	for i, err := range e {
		if i > 0 {
			lines.WriteByte('\n')
		}
		lines.WriteString(prefix)
		if prefix != "" && err.Line == 0 {
			lines.WriteByte(' ')
		}
		lines.WriteString(err.Error())
	}
	return lines.String()
}

// inOrder sorts the errors by their place and replaces those after the first 100 by their number.
func (e Errors) inOrder() Errors {
	slices.SortStableFunc(e, func(a, b *Error) int { return compare(a.Line, a.Column, b.Line, b.Column) })
	if more := len(e) - maxErrors; more > 0 {
		next := e[maxErrors]
		message := fmt.Sprintf("%d more errors from here on", more)
		if more == 1 {
			message = "1 more error from here on"
		}
		e = append(slices.Clip(e[:maxErrors]), &Error{Line: next.Line, Column: next.Column, Message: message})
	}
	return e
}

// compare compares two positions.
func compare(line, column, line2, column2 int) int {
	return cmp.Or(cmp.Compare(line, line2), cmp.Compare(column, column2))
}

// A fileError is an error with the path of its file.
type fileError struct {
	path string
	err  error
}

func (e *fileError) Error() string {
	if errs, ok := e.err.(Errors); ok {
		return errs.text(e.path + ":")
	}
	return "resilienceconfig: " + e.path + ": " + e.err.Error()
}

func (e *fileError) Unwrap() error { return e.err }
