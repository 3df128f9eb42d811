module github.com/effector-go/resilience/examples

go 1.25.0
