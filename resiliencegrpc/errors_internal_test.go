package resiliencegrpc

import (
	"math"
	"math/big"
	"testing"
	"time"
)

// FuzzParsePushback compares parsePushback with arithmetic on integers of any size: an integer that
// isn't negative is that many milliseconds, at most the longest duration; anything else forbids
// retries.
func FuzzParsePushback(f *testing.F) {
	for _, text := range []string{"0", "-0", "+5", "250", "-1", "", "1.5", "soon", " 1", "1_000", "0x10", "9223372036854", "9223372036855", "99999999999999999999", "-99999999999999999999", "20000000000000000000A"} {
		f.Add(text)
	}
	longest := new(big.Int).Div(big.NewInt(math.MaxInt64), big.NewInt(int64(time.Millisecond)))
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parsePushback(text)
		ms, isInteger := new(big.Int).SetString(text, 10)
		switch {
		case !isInteger || ms.Sign() < 0:
			if ok || got != 0 {
				t.Errorf("%q: got %v, %t, want retries forbidden", text, got, ok)
			}
		case ms.Cmp(longest) > 0:
			if !ok || got != math.MaxInt64 {
				t.Errorf("%q: got %v, %t, want the longest duration", text, got, ok)
			}
		default:
			if want := time.Duration(ms.Int64()) * time.Millisecond; !ok || got != want {
				t.Errorf("%q: got %v, %t, want %v", text, got, ok, want)
			}
		}
	})
}
