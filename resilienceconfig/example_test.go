package resilienceconfig_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resilienceconfig"
)

const pipelines = `
policies:
  users-breaker: {breaker: {consecutive: 2, openFor: 10s}}
pipelines:
  users:
    - timeout: {limit: 400ms}
    - use: users-breaker
`

func Example() {
	f, err := resilienceconfig.Parse([]byte(pipelines), resilienceconfig.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	set := resilienceconfig.New(f) // Load does both for a file
	users := set.Pipeline("users")
	for range 3 {
		err := resilience.Run(context.Background(), users, func(context.Context) error { return errors.New("connection refused") })
		fmt.Println(err)
	}
	// Output:
	// connection refused
	// connection refused
	// breaker users-breaker: open, retry in 10s
}

func ExampleLoad() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "pipelines.yaml")
	if err := os.WriteFile(path, []byte("pipelines:\n  users:\n    - timeout: {limit: 400}\n    - brekaer: {}\n"), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	_, err = resilienceconfig.Load(path, resilienceconfig.Options{})
	var errs resilienceconfig.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			fmt.Println(e)
		}
	}
	// Output:
	// 3:24: pipelines.users[0].timeout.limit is 400 without a unit, must be a time such as 400ms or 1h30m: write 400s or 400ms
	// 4:7: pipelines.users[1].brekaer is not a policy, did you mean breaker?
}

func ExampleSet_Update() {
	parse := func(text string) *resilienceconfig.File {
		f, err := resilienceconfig.Parse([]byte(text), resilienceconfig.Options{})
		if err != nil {
			panic(err)
		}
		return f
	}
	set := resilienceconfig.New(parse(pipelines))
	diff := set.Update(parse(`
policies:
  users-breaker: {breaker: {consecutive: 5, openFor: 10s}}
pipelines:
  users:
    - timeout: {limit: 400ms}
    - retry: {}
    - use: users-breaker
`))
	fmt.Println("added:", diff.Added)
	fmt.Println("changed:", diff.Changed)
	fmt.Println("kept:", diff.Kept)
	// Output:
	// added: [pipelines.users[1].retry]
	// changed: [policies.users-breaker pipelines.users]
	// kept: [pipelines.users[0].timeout]
}
