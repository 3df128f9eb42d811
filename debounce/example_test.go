package debounce_test

import (
	"context"
	"fmt"
	"time"

	"github.com/effector-go/resilience/debounce"
)

func ExampleFirst() {
	reload := debounce.First(func(context.Context) (string, error) {
		fmt.Println("reading")
		return "config", nil
	}, time.Minute, 0)
	for range 3 {
		config, err := reload(context.Background())
		fmt.Println(config, err)
	}
	// Output:
	// reading
	// config <nil>
	// config <nil>
	// config <nil>
}

func ExampleLast() {
	search := debounce.Last(func(context.Context) (string, error) { return "found", nil }, time.Millisecond, time.Second)
	result, err := search(context.Background())
	fmt.Println(result, err)
	// Output: found <nil>
}
