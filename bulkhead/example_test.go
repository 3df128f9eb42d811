package bulkhead_test

import (
	"context"
	"fmt"

	"github.com/effector-go/resilience/bulkhead"
)

func Example() {
	reports := bulkhead.New(bulkhead.Config{Name: "reports", Limit: 1})
	ctx := context.Background()

	running, err := reports.Acquire(ctx) // a report is being made
	if err != nil {
		fmt.Println(err)
		return
	}
	makeReport := func(context.Context) (string, error) { return "report", nil }
	_, err = bulkhead.Do(ctx, reports, makeReport)
	fmt.Println(err)

	running.Release()
	report, err := bulkhead.Do(ctx, reports, makeReport)
	fmt.Println(report, err)
	// Output:
	// bulkhead reports: full, 1 running
	// report <nil>
}
