package peers

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/effector-go/resilience/bench/peers/internal/behaviour"
)

// What the peers answer is found out and told, not asserted: in the tests' attributes, where the report reads it.
func TestBehaviour(t *testing.T) {
	for _, kind := range behaviour.Kinds {
		for i, subject := range behaviour.Subjects(kind) {
			for _, probe := range behaviour.Probes(kind) {
				t.Run(fmt.Sprintf("%s/%s/%s", kind, subject.Name, probe.ID), func(t *testing.T) {
					answer := probe.Run(t, subject)
					line, err := json.Marshal(answer)
					if err != nil {
						t.Fatal(err)
					}
					t.Attr("behaviour", string(line))
					_, lacks := kind.Lacks(probe.ID)
					if i == 0 && answer.Verdict != behaviour.Yes && !lacks {
						t.Errorf("this library: %s %s", answer.Verdict, answer.Why)
					}
				})
			}
		}
	}
}
