package shed_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/effector-go/resilience/shed"
)

func Example() {
	search := shed.New(shed.Config{Name: "search"})
	overloaded := func(context.Context) ([]string, error) { return nil, errors.New("overloaded") }
	refused := 0
	for range 1000 {
		if _, err := shed.Do(context.Background(), search, overloaded); errors.Is(err, shed.ErrShed) {
			refused++
		}
	}
	fmt.Println(refused > 800, "of 1000: most fail immediately")
	fmt.Printf("%.0f%% are refused by now\n", 100*search.Snapshot().Share)
	// Output:
	// true of 1000: most fail immediately
	// 90% are refused by now
}
