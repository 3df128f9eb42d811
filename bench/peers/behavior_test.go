package peers

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/effector-go/resilience/bench/peers/internal/behavior"
)

// TestBehavior asks every question of every library. It asserts only the answers of this library.
// It writes all answers as attributes of the tests, which the report reads.
func TestBehavior(t *testing.T) {
	for _, kind := range behavior.Kinds {
		for i, subject := range behavior.Subjects(kind) {
			for _, question := range behavior.Questions(kind) {
				t.Run(fmt.Sprintf("%s/%s/%s", kind, subject.Name, question.ID), func(t *testing.T) {
					answer := question.Ask(t, subject)
					line, err := json.Marshal(answer)
					if err != nil {
						t.Fatal(err)
					}
					t.Attr("behavior", string(line))
					if i == 0 && answer.Verdict != behavior.Yes {
						t.Errorf("this library: %s %s", answer.Verdict, answer.Why)
					}
				})
			}
		}
	}
}
