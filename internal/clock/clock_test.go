package clock

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestNowIsPositiveAndMovesWithTheBubble(t *testing.T) {
	if Now() <= 0 {
		t.Error(Now())
	}
	synctest.Test(t, func(t *testing.T) {
		before := Now()
		time.Sleep(time.Hour)
		if d := Now() - before; before <= 0 || d != int64(time.Hour) {
			t.Errorf("from %d in %v", before, time.Duration(d))
		}
	})
}

func TestAddHoldsAtTheLargestTime(t *testing.T) {
	if Add(5, 7) != 12 || Add(Now(), math.MaxInt64) != math.MaxInt64 {
		t.Error(Add(5, 7), Add(Now(), math.MaxInt64))
	}
}
