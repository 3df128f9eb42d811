package resilience_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
)

func TestReportLogValueHasKindNameStateAndValues(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	log.Info("", "policy", breaker.New(breaker.Config{Name: "db"}).Report())
	log.Info("", "policy", resilience.AtMostOnce.(resilience.Reporter).Report())
	for i, want := range []string{
		"policy.kind=breaker policy.name=db policy.state=closed policy.calls=0 policy.failures=0 policy.slow=0 policy.running=0 policy.retry_after=0",
		"policy.kind=at_most_once",
	} {
		if line := strings.Split(out.String(), "\n")[i]; !strings.HasSuffix(line, " "+want) {
			t.Errorf("got %s, want %s", line, want)
		}
	}
}

func TestReportOfRootPoliciesHasOnlyKind(t *testing.T) {
	for want, p := range map[string]resilience.Policy{
		"at_most_once": resilience.AtMostOnce,
		"discard":      resilience.Discard(func(int) {}),
	} {
		if got := p.(resilience.Reporter).Report(); !reflect.DeepEqual(got, resilience.Report{Kind: want}) {
			t.Errorf("got %+v, want kind %s and nothing else", got, want)
		}
	}
}

func ExampleReport() {
	b := breaker.New(breaker.Config{Name: "users"})
	r := b.Report()
	fmt.Println(r.Kind, r.Name, r.State, r.Config["OpenFor"])
	for _, v := range r.Values {
		fmt.Println(v.Name, v.Value, v.Unit)
	}
	// Output:
	// breaker users closed 5s
	// calls 0 {call}
	// failures 0 {call}
	// slow 0 {call}
	// running 0 {call}
	// retry_after 0 s
}
