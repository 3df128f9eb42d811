package mark

import (
	"errors"
	"testing"
)

func TestAliasMatchesBothErrorsAndHidesNoMark(t *testing.T) {
	down, refused, other := errors.New("down"), errors.New("refused"), errors.New("other")
	err := Also(New(NotMade, New(Contention, down)), refused, "refused: ")
	for name, c := range map[string]struct {
		err     error
		notMade bool
	}{"as made": {err, true}, "without NotMade": {WithoutNotMade(err), false}} {
		if !errors.Is(c.err, down) || !errors.Is(c.err, refused) || errors.Is(c.err, other) || c.err.Error() != "refused: down" {
			t.Errorf("%s: got %v, want an error that matches both and has the text of both", name, c.err)
		}
		if Of(c.err) != Contention || IsNotMade(c.err) != c.notMade {
			t.Errorf("%s: got kind %d, not made %t, want %d, %t", name, Of(c.err), IsNotMade(c.err), Contention, c.notMade)
		}
	}
}
