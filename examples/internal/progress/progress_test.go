package progress

import (
	"bytes"
	"testing"
	"time"
)

func TestDisplayPrintsLabelsAndQuarters(t *testing.T) {
	var out bytes.Buffer
	p := New(&out, 100*time.Second)
	for i := range 101 {
		label := "first"
		if i >= 40 {
			label = "second"
		}
		p.Set(time.Duration(i)*time.Second, label)
	}
	p.Done()
	const want = "  0%  first\n 25%  first\n 40%  second\n 50%  second\n 75%  second\n100%  second\n"
	if got := out.String(); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}
