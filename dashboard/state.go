package dashboard

import (
	"encoding/json"
	"time"
)

// state is the answer to state.json. Texts in it are redacted and printable.
type state struct {
	At        time.Time      `json:"at"`
	Title     string         `json:"title"`
	Host      string         `json:"host"`
	PID       int            `json:"pid"`
	Started   time.Time      `json:"started"`
	Instance  string         `json:"instance"`
	Build     string         `json:"build"`
	Interval  float64        `json:"interval"`
	Window    float64        `json:"window"`
	Bounds    []float64      `json:"bounds"`
	Troubles  []trouble      `json:"troubles"`
	Pipelines []pipelineJSON `json:"pipelines"`
	Policies  []policyJSON   `json:"policies"`
	Changes   []changeOfJSON `json:"changes"`
}

type trouble struct {
	Level     level      `json:"level"`
	What      string     `json:"what"`
	Since     time.Time  `json:"since"`
	Why       string     `json:"why"`
	Advice    string     `json:"advice"`
	Error     *errorJSON `json:"error"`
	Pipelines []string   `json:"pipelines"`
	Policy    string     `json:"policy"`
}

type errorJSON struct {
	At   time.Time `json:"at"`
	Type string    `json:"type"`
	Text string    `json:"text"`
}

type pipelineJSON struct {
	ID       string               `json:"id"`
	Name     string               `json:"name"`
	Level    level                `json:"level"`
	Why      string               `json:"why"`
	Running  int                  `json:"running"`
	Rate     number               `json:"rate"`
	Good     *float64             `json:"good"`
	P50      *float64             `json:"p50"`
	P99      *float64             `json:"p99"`
	Attempts number               `json:"attempts"`
	Results  map[string]number    `json:"results"`
	Total    map[string]uint64    `json:"total"`
	Errors   map[string]errorJSON `json:"errors"`
	Layers   []layerJSON          `json:"layers"`
	Spark    sparkJSON            `json:"spark"`
}

type layerJSON struct {
	Position int               `json:"position"`
	Kind     string            `json:"kind"`
	Name     string            `json:"name"`
	Policy   string            `json:"policy"`
	States   map[string]int    `json:"states"`
	Entered  number            `json:"entered"`
	Passed   number            `json:"passed"`
	Events   map[string]number `json:"events"`
}

type policyJSON struct {
	ID        string            `json:"id"`
	Kind      string            `json:"kind"`
	Name      string            `json:"name"`
	Live      int               `json:"live"`
	States    map[string]int    `json:"states"`
	Since     time.Time         `json:"since"`
	Manual    *time.Time        `json:"manual"`
	Controls  bool              `json:"controls"`
	Pipelines []string          `json:"pipelines"`
	Values    []valueJSON       `json:"values"`
	Config    map[string]string `json:"config"`
	Changes   json.RawMessage   `json:"changes"` // of changeJSON
}

type valueJSON struct {
	Name  string `json:"name"`
	Unit  string `json:"unit"`
	Min   number `json:"min"`
	Max   number `json:"max"`
	Total number `json:"total"`
}

type changeJSON struct {
	At    time.Time  `json:"at"`
	From  string     `json:"from"`
	To    string     `json:"to"`
	Cause string     `json:"cause"`
	Error *errorJSON `json:"error"`
}

// changeOfJSON is a change in the list of all policies.
type changeOfJSON struct {
	Policy string `json:"policy"`
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	changeJSON
}

// number is a float that is encoded as null if it is NaN or infinite.
type number float64

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) {
	return appendNumber(make([]byte, 0, 16), float64(n), 6), nil
}
