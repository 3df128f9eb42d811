package sim

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Trace is recorded traffic: see [ReadTrace].
type Trace struct {
	Calls   int          // in the trace
	Failed  int          // of them
	Used    int          // successful calls that Service consists of
	Rate    Rate         // a [Replay] of all calls; the first one is at 0
	Service Distribution // [Recorded] times of the calls in use

	queueing bool
}

const (
	maxTraceSize  = 1 << 30 // bytes
	maxTraceCalls = 10_000_000
)

// ReadTrace reads recorded calls as CSV, at most 10,000,000 of them and 1 GiB, in any order. The
// header line names the columns:
//
//   - start: when the call began, in RFC 3339 or in seconds since any instant
//   - duration: how long it took, such as 12ms, or in seconds; 0 to 24 h
//   - outcome, if there is one: ok, or a status below 500; any other outcome is a failure
//
// Other columns are ignored. An error names the line.
//
// Durations include time in queues if the quarter of the successful calls that began while most
// others were in progress took, on average, at least a tenth longer than the quarter that met the
// fewest. Then only the latter is used for Service. Durations also include the network, so set
// [Server.Network] to Fixed(0), or subtract its time.
func ReadTrace(r io.Reader) (*Trace, error) { return readTrace(r, maxTraceSize, maxTraceCalls) }

// readTrace reads at most a number of bytes, and of calls.
func readTrace(r io.Reader, maxSize int64, maxCalls int) (*Trace, error) {
	limited := &io.LimitedReader{R: r, N: maxSize + 1}
	calls, err := readCalls(limited, maxCalls)
	switch {
	case limited.N == 0: // whatever is wrong with its last line
		return nil, errors.New("sim: trace: larger than 1 GiB")
	case err != nil:
		return nil, fmt.Errorf("sim: trace: %w", err)
	}
	return fit(calls)
}

// readCalls reads the calls of a trace. An error names its line.
func readCalls(r io.Reader, most int) ([]tracedCall, error) {
	input := bufio.NewReader(r)
	if mark, _ := input.Peek(3); string(mark) == "\uFEFF" {
		input.Discard(3)
	}
	c := csv.NewReader(input)
	c.ReuseRecord = true
	header, err := c.Read()
	if err == io.EOF {
		return nil, errors.New("it is empty, must have a header line")
	}
	if err != nil {
		return nil, err
	}
	columns, err := columnsOf(header)
	if err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	var calls []tracedCall
	for {
		row, err := c.Read()
		if err == io.EOF {
			return calls, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := c.FieldPos(0)
		call, err := columns.call(row)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if calls = append(calls, call); len(calls) > most {
			return nil, fmt.Errorf("line %d: more than %d calls", line, most)
		}
	}
}

// traceColumns are the numbers of the columns of a trace. That of outcome is negative if there is
// none.
type traceColumns struct{ start, duration, outcome int }

func columnsOf(header []string) (traceColumns, error) {
	columns := traceColumns{-1, -1, -1}
	known := map[string]*int{"start": &columns.start, "duration": &columns.duration, "outcome": &columns.outcome}
	for i, name := range header {
		column := known[strings.TrimSpace(name)]
		if column == nil {
			continue
		}
		if *column >= 0 {
			return columns, fmt.Errorf("two columns %q, must be one", strings.TrimSpace(name))
		}
		*column = i
	}
	if columns.start < 0 || columns.duration < 0 {
		return columns, errors.New("must be a header with the columns start, duration, and optionally outcome")
	}
	return columns, nil
}

// call reads the call of a row.
func (t traceColumns) call(row []string) (call tracedCall, err error) {
	if call.start, err = parseStart(strings.TrimSpace(row[t.start])); err != nil {
		return call, err
	}
	if call.took, err = parseTook(strings.TrimSpace(row[t.duration])); err != nil {
		return call, err
	}
	call.ok = true
	if t.outcome >= 0 {
		text := strings.TrimSpace(row[t.outcome])
		status, err := strconv.Atoi(text)
		call.ok = strings.EqualFold(text, "ok") || err == nil && status < 500
	}
	return call, nil
}

// A tracedCall is a call of a trace.
type tracedCall struct {
	start int64 // nanoseconds
	took  time.Duration
	ok    bool
	met   int // calls that were in progress when it began
}

// fit returns the trace of the calls.
func fit(calls []tracedCall) (*Trace, error) {
	slices.SortStableFunc(calls, func(a, b tracedCall) int { return cmp.Compare(a.start, b.start) })
	t := &Trace{Calls: len(calls)}
	times, ends := make([]time.Duration, len(calls)), make([]int64, len(calls))
	for i, c := range calls {
		if c.start-calls[0].start < 0 { // an overflow
			return nil, fmt.Errorf("sim: trace: the calls span more than %d years", math.MaxInt64/int64(365*24*time.Hour))
		}
		times[i], ends[i] = time.Duration(c.start-calls[0].start), c.start+int64(c.took)
	}
	slices.Sort(ends)
	ended := 0
	var successful []tracedCall
	for i, c := range calls {
		for ended < i && ends[ended] <= c.start {
			ended++
		}
		c.met = i - ended
		if c.ok {
			successful = append(successful, c)
		} else {
			t.Failed++
		}
	}
	if len(successful) == 0 {
		return nil, errors.New("sim: trace: no successful call, must be at least one")
	}
	successful, t.queueing = withoutQueueing(successful)
	t.Used = len(successful)
	took := make([]time.Duration, len(successful))
	for i, c := range successful {
		took[i] = c.took
	}
	t.Rate, t.Service = Replay(times), Recorded(took)
	return t, nil
}

// withoutQueueing returns the quarter of the calls that met the fewest others, and true, if their
// durations show that those of the other calls include queueing; otherwise all calls. It sorts them.
func withoutQueueing(calls []tracedCall) (used []tracedCall, queueing bool) {
	slices.SortStableFunc(calls, func(a, b tracedCall) int { return cmp.Compare(a.met, b.met) })
	n := len(calls) / 4
	if n == 0 {
		return calls, false
	}
	quietest, busiest := calls[:n], calls[len(calls)-n:]
	// Calls that met as many others are equally busy.
	if quietest[n-1].met == busiest[0].met || meanTime(busiest) < 1.1*meanTime(quietest) {
		return calls, false
	}
	return quietest, true
}

func meanTime(calls []tracedCall) float64 {
	sum := 0.0
	for _, c := range calls {
		sum += c.took.Seconds()
	}
	return sum / float64(len(calls))
}

// String describes the trace and what its service times come from.
func (t *Trace) String() string {
	s := fmt.Sprintf("%s in %s, %d failed; service times ", counted(t.Calls, "call"), short(rounded(t.Rate.last())), t.Failed)
	if t.queueing {
		s += fmt.Sprintf("of the %s that met the fewest others, because durations include queueing",
			counted(t.Used, "successful call"))
	} else {
		s += fmt.Sprintf("of %s", counted(t.Used, "successful call"))
	}
	return s + ", mean " + short(rounded(t.Service.Mean()))
}

// parseStart returns a time in nanoseconds since some instant.
func parseStart(text string) (int64, error) {
	if ns, ok := parseSeconds(text); ok {
		return ns, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || at.Year() < 1700 || at.Year() > 2200 {
		return 0, fmt.Errorf("start %s, must be a time such as 2006-01-02T15:04:05Z, or seconds such as 12.5",
			quoted(text))
	}
	return at.UnixNano(), nil
}

func parseTook(text string) (time.Duration, error) {
	ns, ok := parseSeconds(text)
	d := time.Duration(ns)
	if !ok {
		var err error
		d, err = time.ParseDuration(text)
		ok = err == nil
	}
	if !ok || d < 0 || d > maxTime {
		return 0, fmt.Errorf("duration %s, must be 0 to 24 h, such as 12ms, or in seconds, such as 0.012",
			quoted(text))
	}
	return d, nil
}

// parseSeconds reads decimal seconds, exactly.
func parseSeconds(text string) (ns int64, ok bool) {
	digits, negative := strings.CutPrefix(text, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	if whole == "" || len(whole) > 10 || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, false
	}
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || seconds > 9_000_000_000 {
		return 0, false
	}
	nanos, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	ns = seconds*1e9 + nanos
	if negative {
		ns = -ns
	}
	return ns, true
}
