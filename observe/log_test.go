package observe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
)

// A line is a line of a log.
type line struct {
	Level      string
	Msg        string
	User       string // of the context
	Resilience map[string]any
}

// A recorder is a handler that keeps records and their contexts.
type recorder struct {
	level   slog.Level
	lines   *[]line
	groups  []string
	ordered *[]string
}

func (r recorder) Enabled(_ context.Context, level slog.Level) bool { return level >= r.level }
func (r recorder) WithAttrs([]slog.Attr) slog.Handler               { return r }
func (r recorder) WithGroup(name string) slog.Handler {
	r.groups = append(r.groups[:len(r.groups):len(r.groups)], name)
	return r
}

func (r recorder) Handle(ctx context.Context, record slog.Record) error {
	l := line{Level: record.Level.String(), Msg: record.Message, Resilience: map[string]any{}}
	l.User, _ = ctx.Value(key("user")).(string)
	record.Attrs(func(a slog.Attr) bool {
		l.Resilience[a.Key] = a.Value.Any()
		*r.ordered = append(*r.ordered, fmt.Sprint(r.groups, a.Key))
		return true
	})
	*r.lines = append(*r.lines, l)
	return nil
}

func newRecorder(level slog.Level) (*slog.Logger, *[]line, *[]string) {
	var lines []line
	var ordered []string
	return slog.New(recorder{level: level, lines: &lines, ordered: &ordered}), &lines, &ordered
}

func TestLogLevelsAndAttributes(t *testing.T) { // rule 13
	synctest.Test(t, func(t *testing.T) {
		l, lines, ordered := newRecorder(slog.LevelDebug)
		o := observe.New(observe.Config{Listeners: []observe.Listener{observe.Log(l)}})
		b := breaker.New(breaker.Config{Name: "b", Consecutive: 2})
		p := o.Pipeline("p", retry.New(retry.Config{Name: "r", MaxAttempts: 2, Backoff: retry.Constant(time.Second)}), b)
		ctx := context.WithValue(t.Context(), key("user"), "ada")
		_ = resilience.Run(ctx, p, fails(errBoom))
		_ = resilience.Run(ctx, p, fails(errBoom))
		b.Reset()
		b.ForceOpen()
		want := []string{
			`DEBUG ada map[attempt:2 error:boom event:retry layer:1 name:r pipeline:p policy:retry wait:1s]`,
			`WARN  map[cause:2 failures in a row error:boom from:closed name:b policy:breaker to:open]`,
			`WARN ada map[error:retry r: gave up after 2 attempts: boom event:give_up layer:1 name:r pipeline:p policy:retry]`,
			`WARN ada map[count:1 error:breaker b: open, retry in 5s event:refusal layer:2 name:b pipeline:p policy:breaker]`,
			`INFO  map[cause:manual from:open name:b policy:breaker to:closed]`,
			`WARN  map[cause:manual from:closed name:b policy:breaker to:forced open]`,
		}
		var got []string
		for _, line := range *lines {
			got = append(got, fmt.Sprint(line.Level, " ", line.User, " ", line.Resilience))
		}
		equal(t, "lines", got, want)
		if (*lines)[0].Resilience["error"] != errBoom {
			t.Errorf("got %v, want the error itself", (*lines)[0].Resilience["error"])
		}
		equal(t, "attributes", (*ordered)[:8], []string{"[resilience]pipeline", "[resilience]layer", "[resilience]policy", "[resilience]name", "[resilience]event", "[resilience]attempt", "[resilience]wait", "[resilience]error"})
		for _, line := range *lines {
			if line.Msg == "" {
				t.Errorf("got no message in %v", line)
			}
		}
	})
}

func TestLogOneRefusalIn10Seconds(t *testing.T) { // rule 13
	synctest.Test(t, func(t *testing.T) {
		l, lines, _ := newRecorder(slog.LevelInfo)
		o := observe.New(observe.Config{Listeners: []observe.Listener{observe.Log(l)}})
		p := o.Pipeline("p", returns(errBoom))
		q := o.Pipeline("q", policy(pass), returns(errBoom))
		for range 25 {
			_ = resilience.Run(t.Context(), p, fails(nil))
			_ = resilience.Run(t.Context(), q, fails(nil))
			time.Sleep(time.Second)
		}
		var got []string
		for _, line := range *lines {
			got = append(got, fmt.Sprint(line.Resilience["pipeline"], line.Resilience["count"]))
		}
		equal(t, "lines", got, []string{"p1", "q1", "p10", "q10", "p10", "q10"})
	})
}

func TestLogDisabledLevelFormatsNothing(t *testing.T) { // rule 13
	l, lines, _ := newRecorder(slog.LevelError)
	listener := observe.Log(l)
	call := &observe.Call{Pipeline: "p"}
	events := []observe.Event{{Kind: observe.Retry, Err: brokenText{}}, {Kind: observe.Refusal, Err: brokenText{}}}
	ctx := context.Background()
	allocs := testing.AllocsPerRun(100, func() {
		for _, e := range events {
			listener.Event(ctx, call, e)
		}
		listener.Changed(resilience.Change{To: "open"})
	})
	if allocs != 0 || len(*lines) != 0 {
		t.Errorf("got %v allocations, %d lines, want none", allocs, len(*lines))
	}
}

func TestLogPanicsOnNil(t *testing.T) {
	defer func() {
		if got, want := recover(), "observe: Log: l is nil, must be a Logger"; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}()
	observe.Log(nil)
}

func TestLogKeepsFewRefusals(t *testing.T) { // bounded, whatever the names
	synctest.Test(t, func(t *testing.T) {
		l, lines, _ := newRecorder(slog.LevelWarn)
		listener := observe.Log(l)
		refuse := func(name int) {
			listener.Event(t.Context(), &observe.Call{Pipeline: fmt.Sprint(name)}, observe.Event{Kind: observe.Refusal})
		}
		for name := range 10_001 {
			refuse(name)
		}
		refuse(0) // forgotten meanwhile, so logged although 10 s have not passed
		refuse(0)
		if got := len(*lines); got != 10_002 {
			t.Errorf("got %d lines, want one for each of 10,001 names and one for the name that was forgotten", got)
		}
	})
}

func FuzzLog(f *testing.F) {
	f.Add("p", "k", "n", "boom")
	f.Add("\x00", "\"", "\n", "\u202e")
	f.Fuzz(func(t *testing.T, pipeline, policy, name, text string) {
		var b bytes.Buffer
		listener := observe.Log(slog.New(slog.NewJSONHandler(&b, nil)))
		listener.Event(context.Background(), &observe.Call{Pipeline: pipeline}, observe.Event{Kind: observe.Refusal, Layer: 1, Policy: policy, Name: name, Err: fmt.Errorf("%s", text)})
		var l line
		if err := json.Unmarshal(b.Bytes(), &l); err != nil || bytes.Count(b.Bytes(), []byte("\n")) != 1 || l.Resilience["event"] != "refusal" {
			t.Errorf("got %q, %v, want one line of JSON", b.String(), err)
		}
	})
}
