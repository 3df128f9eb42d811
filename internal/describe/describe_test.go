package describe

import (
	"errors"
	"maps"
	"math"
	"testing"
	"time"
)

type mode int

func (m mode) String() string { return [...]string{"slow", "fast"}[m] }

type base struct {
	Name string
	Rate float64
}

type part struct {
	Share float64
	Delay time.Duration
	Err   error
	Panic any
}

type panics struct{}

func (panics) Error() string { panic("boom") }

func TestConfigRendersFieldsExceptFunctionsPointersAndName(t *testing.T) {
	got := Config(struct {
		base
		Limit  time.Duration
		Calls  int
		Seed   uint64
		Share  float64
		On     bool
		Mode   mode
		Func   func()
		Budget *base
		Parts  []part
		None   []part
	}{
		base: base{"secret", math.Inf(1)}, Limit: 90 * time.Second, Calls: math.MaxInt, Seed: math.MaxUint64, Share: math.NaN(),
		On: true, Mode: 1, Func: func() {}, Budget: &base{},
		Parts: []part{{Share: 0.5, Err: errors.New("gone")}, {Delay: time.Second, Panic: &base{}}, {Err: panics{}}, {Panic: "down"}, {Panic: 7}},
	})
	want := map[string]string{
		"Rate": "+Inf", "Limit": "1m30s", "Calls": "9223372036854775807", "Seed": "18446744073709551615", "Share": "NaN", "On": "true",
		"Mode": "fast", "None": "[]",
		"Parts": "[{Share: 0.5, Err: gone} {Delay: 1s, Panic: *describe.base} {Err: %!v(PANIC=Error method: boom)} {Panic: down} {Panic: int}]",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestCallsCountsInCalls(t *testing.T) {
	if got := Calls("running", 3); got.Name != "running" || got.Unit != "{call}" || got.Value != 3 {
		t.Errorf("got %+v, want running 3 {call}", got)
	}
}
