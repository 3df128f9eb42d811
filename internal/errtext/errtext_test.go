package errtext

import (
	"testing"
	"time"
)

func TestRoundKeepsTwoDigitsOrSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 7: "7ns", 1234567: "1.2ms", 4199 * time.Millisecond: "4.2s", 4999999999: "5s", 99950 * time.Millisecond: "1m40s",
		time.Hour + 1: "1h0m0s", 62*time.Second + 3e8: "1m2s",
	} {
		if got := Round(d).String(); got != want {
			t.Errorf("Round(%d): got %s, want %s", d, got, want)
		}
	}
}

func TestTitleContainsName(t *testing.T) {
	if Title("breaker", "") != "breaker" || Title("breaker", "db") != "breaker db" {
		t.Errorf("got %q and %q, want breaker and breaker db", Title("breaker", ""), Title("breaker", "db"))
	}
}
