// Package program runs the examples: flags, interrupts, exit status, and the output folder. It
// imports only the standard library, so that a small example builds quickly.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

// A Func is an example. It returns a [UsageError] for an error in its flags. When ctx is done, it
// reports what it has so far and returns nil or the context's error.
type Func func(ctx context.Context, args []string, stdout, stderr io.Writer) error

// Main runs the example on the arguments and streams of the process, and exits with the status that
// [Run] returns. The first Ctrl-C cancels the context; a second one ends the process immediately.
func Main(name string, run Func) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // restores the default action of Ctrl-C
	os.Exit(Run(ctx, name, run, os.Args[1:], os.Stdout, os.Stderr))
}

// The exit statuses, as shells and the standard library use them.
const (
	statusFailed      = 1
	statusUsage       = 2
	statusInterrupted = 130 // 128 + SIGINT
)

// Run runs the example, writes its error to stderr, and returns the exit status: 0 for success and
// for -help, 1 for an error, 2 for an error in the flags, 130 if ctx was canceled.
func Run(ctx context.Context, name string, run Func, args []string, stdout, stderr io.Writer) (status int) {
	err := run(ctx, args, stdout, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
		fmt.Fprintf(stderr, "%s: interrupted\n", name)
		return statusInterrupted
	}
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	var usage *UsageError
	if errors.As(err, &usage) {
		return statusUsage
	}
	return statusFailed
}
