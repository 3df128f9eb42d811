package budget_test

import (
	"fmt"

	"github.com/effector-go/resilience/budget"
)

func ExampleBudget() {
	extra := budget.New(budget.Config{Ratio: 0.2}) // one extra call for every five calls
	retried := 0
	for range 100 { // every call fails
		extra.Deposit()
		if extra.Withdraw() {
			retried++
		}
	}
	fmt.Println(retried, "of 100 calls were retried")
	// Output: 20 of 100 calls were retried
}
