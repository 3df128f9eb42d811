module github.com/effector-go/resilience/resiliencegrpc/bench

go 1.25.0

require (
	github.com/effector-go/resilience v0.0.0
	github.com/effector-go/resilience/resiliencegrpc v0.0.0
)

replace (
	github.com/effector-go/resilience => ../../
	github.com/effector-go/resilience/resiliencegrpc => ../
)
