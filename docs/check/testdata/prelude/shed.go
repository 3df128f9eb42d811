package prelude

import "github.com/effector-go/resilience/shed"

var (
	search = shed.New(shed.Config{Name: "search"})
	shards = make([]*shed.Shedder, 4)
)
