// Program runs simulations outside of tests.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/sim"
)

func main() {
	reports := 0
	for range 3 {
		report, err := sim.Run(context.Background(), sim.Scenario{Rate: sim.Constant(20), Length: 2 * time.Second}, map[string]func() resilience.Policy{
			"retry": func() resilience.Policy { return retry.New(retry.Config{}) },
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		reports += len(report.Pipelines)
	}
	// An error doesn't end the program either.
	_, err := sim.Run(context.Background(), sim.Scenario{Rate: sim.Constant(20), Length: 2 * time.Second}, map[string]func() resilience.Policy{
		"stuck": func() resilience.Policy {
			return resilience.PolicyFunc(func(context.Context, resilience.Next) error { select {} })
		},
	})
	if err == nil {
		fmt.Println("no error")
	}
	flags := 0
	flag.VisitAll(func(*flag.Flag) { flags++ })
	fmt.Printf("%d reports, %d flags\n", reports, flags)
}
