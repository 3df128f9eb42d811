package dashboard

import (
	"net/http/httptest"
	"testing"
)

func TestSecondsAreForPeople(t *testing.T) {
	for s, want := range map[float64]string{0: "0 s", 0.46: "0.5 s", 4.5: "4.5 s", 9: "9 s", 9.94: "9.9 s", 9.95: "10 s", 9.96: "10 s", 61.2: "61 s"} {
		if got := seconds(s); got != want {
			t.Errorf("got %q for %v s, want %q", got, s, want)
		}
	}
}

func TestFailSaysWhy(t *testing.T) {
	w := httptest.NewRecorder()
	fail(w, 404, "no such page")
	if w.Code != 404 || w.Body.String() != "dashboard: no such page\n" || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("got %d, %q, %v", w.Code, w.Body, w.Header())
	}
}
