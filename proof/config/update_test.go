package config

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/resilienceconfig"
)

// A policy is a policy in a generated file.
type policy struct{ kind, fields string }

func (p policy) String() string { return fmt.Sprintf("%s: {%s}", p.kind, p.fields) }

// A file is a generated file. A use is a policy of kind "use".
type file struct {
	budgets   map[string]int // a hundredth of the ratio
	policies  map[string]policy
	pipelines map[string][]policy
}

func (f file) String() string {
	var b strings.Builder
	b.WriteString("budgets:\n")
	for _, name := range slices.Sorted(keys(f.budgets)) {
		fmt.Fprintf(&b, "  %s: {ratio: 0.%02d}\n", name, f.budgets[name])
	}
	b.WriteString("policies:\n")
	for _, name := range slices.Sorted(keys(f.policies)) {
		fmt.Fprintf(&b, "  %s: {%v}\n", name, f.policies[name])
	}
	b.WriteString("pipelines:\n")
	for _, name := range slices.Sorted(keys(f.pipelines)) {
		fmt.Fprintf(&b, "  %s: [", name)
		for i, p := range f.pipelines[name] {
			if i > 0 {
				b.WriteString(", ")
			}
			switch p.kind {
			case "use":
				b.WriteString("use: " + p.fields)
			case "atMostOnce":
				b.WriteString("atMostOnce")
			default:
				b.WriteString(p.String())
			}
		}
		b.WriteString("]\n")
	}
	return b.String()
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

func drawPolicy(t *rapid.T, budgets []string) policy {
	n := rapid.IntRange(1, 3).Draw(t, "number")
	switch kind := rapid.SampledFrom([]string{"timeout", "retry", "breaker", "bulkhead"}).Draw(t, "kind"); kind {
	case "timeout":
		return policy{kind, fmt.Sprintf("limit: %ds", n)}
	case "breaker":
		return policy{kind, fmt.Sprintf("consecutive: %d", n)}
	case "bulkhead":
		return policy{kind, fmt.Sprintf("limit: %d", n)}
	default:
		fields := fmt.Sprintf("maxAttempts: %d", n)
		if len(budgets) > 0 && rapid.Bool().Draw(t, "with budget") {
			fields += ", budget: " + rapid.SampledFrom(budgets).Draw(t, "budget")
		}
		return policy{kind, fields}
	}
}

func drawFile(t *rapid.T) file {
	f := file{map[string]int{}, map[string]policy{}, map[string][]policy{}}
	subset := func(names []string, label string) (chosen []string) {
		for _, name := range names {
			if rapid.Bool().Draw(t, label+" "+name) {
				chosen = append(chosen, name)
			}
		}
		return chosen
	}
	budgets := subset([]string{"b1", "b2"}, "budget")
	for _, name := range budgets {
		f.budgets[name] = rapid.IntRange(1, 3).Draw(t, "ratio")
	}
	uses := subset([]string{"x1", "x2"}, "policy")
	for _, name := range uses {
		f.policies[name] = drawPolicy(t, budgets)
	}
	for _, name := range append(subset([]string{"p1", "p2"}, "pipeline"), "p3") { // uses only earlier ones
		list := []policy{}
		for range rapid.IntRange(0, 4).Draw(t, "items") {
			switch rapid.IntRange(0, 5).Draw(t, "item") {
			case 0:
				list = append(list, policy{kind: "atMostOnce"})
			case 1, 2:
				if len(uses) > 0 {
					list = append(list, policy{"use", rapid.SampledFrom(uses).Draw(t, "use")})
				}
			default:
				list = append(list, drawPolicy(t, budgets))
			}
		}
		f.pipelines[name] = list
		uses = append(uses, name)
	}
	return f
}

// places returns what each policy of a pipeline's flattened list is: the n-th of a kind in a pipeline,
// or a name under policies with its kind.
func (f file) places(name string) (places []string) {
	count := map[string]int{}
	for _, p := range f.pipelines[name] {
		switch {
		case p.kind == "atMostOnce":
			places = append(places, "once")
		case p.kind != "use":
			places = append(places, fmt.Sprintf("%s/%s/%d", name, p.kind, count[p.kind]))
			count[p.kind]++
		case f.pipelines[p.fields] != nil:
			places = append(places, f.places(p.fields)...)
		default:
			places = append(places, p.fields+"="+f.policies[p.fields].kind)
		}
	}
	return places
}

// describe returns the Config of a policy, with the budget's.
func describe(p resilience.Policy) string {
	method := reflect.ValueOf(p).MethodByName("Config")
	if !method.IsValid() {
		return fmt.Sprintf("%T", p)
	}
	config := method.Call(nil)[0]
	text := ""
	for i := range config.NumField() {
		switch value := config.Field(i).Interface().(type) {
		case *budget.Budget:
			if value != nil {
				text += fmt.Sprintf("%+v ", value.Config())
			}
		default:
			if config.Field(i).Kind() != reflect.Func {
				text += fmt.Sprintf("%v ", value)
			}
		}
	}
	return fmt.Sprintf("%T %s", p, text)
}

// A call is one of Wrap.
type call struct {
	name string
	list resilience.Pipeline
}

// take returns the lists that Wrap was called with for the name.
func take(calls []call, name string) (lists []resilience.Pipeline) {
	for _, c := range calls {
		if c.name == name {
			lists = append(lists, c.list)
		}
	}
	return lists
}

// TestUpdateEqualsFreshSetAndKeepsPolicies updates a Set with random files. After each, every pipeline
// equals that of a Set that was created afresh, and its policies are those of the previous file at the
// same place. Wrap was called for a pipeline exactly if its list is another one. The same holds for a
// pipeline that Make has returned.
func TestUpdateEqualsFreshSetAndKeepsPolicies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var calls []call
		o := resilienceconfig.Options{Wrap: func(name string, p resilience.Pipeline) resilience.Policy {
			calls = append(calls, call{name, p})
			return p
		}}
		parse := func(f file) *resilienceconfig.File {
			parsed, err := resilienceconfig.Parse([]byte(f.String()), o)
			if err != nil {
				t.Fatalf("got error %v for\n%v", err, f)
			}
			return parsed
		}
		old := drawFile(t)
		set := resilienceconfig.New(parse(old))
		made := set.Make("p3") // is in every file
		// The lists of each pipeline; of p3, also that of the copy.
		lists := map[string][]resilience.Pipeline{}
		for name := range old.pipelines {
			lists[name] = take(calls, name)
		}
		for range rapid.IntRange(1, 4).Draw(t, "updates") {
			next := drawFile(t)
			parsed := parse(next)
			calls = nil
			d := set.Update(parsed)
			updated := calls
			calls = nil
			fresh := resilienceconfig.New(parsed)
			if got, want := string(set.Effective()), string(fresh.Effective()); got != want {
				t.Fatalf("got Effective\n%s\nwant\n%s", got, want)
			}
			for name := range next.pipelines {
				_, existed := old.pipelines[name]
				was, places := old.places(name), next.places(name)
				same := existed && slices.Equal(was, places)
				now := take(updated, name)
				if same {
					if len(now) != 0 {
						t.Fatalf("%s: got Wrap %d times, want none for the same list", name, len(now))
					}
					now = lists[name]
				}
				if !existed && len(now) == 0 { // it was in the file earlier, with this list
					now = lists[name]
				}
				if want := 1 + count(name, "p3"); len(now) != want {
					t.Fatalf("%s: got Wrap %d times, want %d", name, len(now), want)
				}
				for n, list := range now {
					for i, place := range places {
						if got, want := describe(list[i]), describe(take(calls, name)[0][i]); got != want {
							t.Errorf("%s[%d]: got %s, want %s", name, i, got, want)
						}
						at := slices.Index(was, place)
						if existed && at >= 0 && lists[name][n][at] != list[i] {
							t.Errorf("%s[%d]: got another policy at %s, want the one from before", name, i, place)
						}
					}
				}
				path := "pipelines." + name
				if slices.Contains(d.Added, path) == existed || slices.Contains(d.Kept, path) != same || slices.Contains(d.Changed, path) != (existed && !same) {
					t.Errorf("%s: got %+v, want it added: %v, kept: %v", name, d, !existed, same)
				}
				lists[name] = now
			}
			for name := range old.pipelines {
				if gone := next.pipelines[name] == nil; slices.Contains(d.Removed, "pipelines."+name) != gone {
					t.Errorf("%s: got removed %q, want it there: %v", name, d.Removed, gone)
				}
			}
			if again := set.Update(parsed); !again.Empty() {
				t.Errorf("got %+v from the same file, want nothing changed", again)
			}
			old = next
		}
		runtime.KeepAlive(made)
	})
}

func count(name, want string) int {
	if name == want {
		return 1
	}
	return 0
}
