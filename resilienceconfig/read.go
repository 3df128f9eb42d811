package resilienceconfig

import (
	"fmt"
	"reflect"
	"slices"
)

// A spec is a policy or a budget as a file describes it. It is complete and valid, and not changed
// after Parse.
type spec struct {
	kind *kind
	path string

	config   reflect.Value     // the Config, without Budget
	budget   string            // name, if set
	schedule string            // of retry, as it is written; empty for the default or a function
	funcs    map[string]string // names of functions by key

	settings []setting // the Config with its defaults
}

// A named is an entry under policies or budgets.
type named struct {
	name         string
	spec         *spec
	line, column int
}

// A pipeline is an entry under pipelines.
type pipeline struct {
	name  string
	items []item
}

// An item of a pipeline is a spec, the use of a name, or atMostOnce if both are unset.
type item struct {
	spec  *spec
	place place // of the spec
	use   string

	path         string
	line, column int // of its kind
}

// A place says which policy of a file a policy is: the n-th of its kind in a pipeline, or the one with
// a name under policies. It is zero for atMostOnce.
type place struct {
	pipeline string
	name     string
	kind     string
	n        int
}

// A reader turns nodes into a File and collects the errors.
type reader struct {
	options Options
	file    *File
	errs    Errors

	suggestions map[*Error]suggestion

	budgetNames                         map[string]bool
	names                               map[string]*node // of policies and pipelines
	knownBudgets, knownFuncs, knownUses []string
	ambiguous                           []string // names of both a policy and a pipeline
	missingBudgets, missingNames        bool     // a section with names can't be read
}

// A suggestion is added to an error only if the error is reported: to find the nearest name takes time.
type suggestion struct {
	name  string
	known []string
}

func (r *reader) report(e *Error) *Error {
	r.errs = append(r.errs, e)
	return e
}

// fail reports an error of n's value.
func (r *reader) fail(n *node, format string, args ...any) *Error {
	return r.report(&Error{Path: n.path(), Line: n.line, Column: n.column, Message: fmt.Sprintf(format, args...)})
}

// failKey reports an error of n's key.
func (r *reader) failKey(n *node, format string, args ...any) *Error {
	return r.report(&Error{Path: n.path(), Line: n.keyLine, Column: n.keyColumn, Message: fmt.Sprintf(format, args...)})
}

// failMissing reports an error of a field that n doesn't have.
func (r *reader) failMissing(n *node, key, message string) {
	r.report(&Error{Path: join(n.path(), key), Line: n.keyLine, Column: n.keyColumn, Message: message})
}

// failUnknown reports that n's value is not a known name.
func (r *reader) failUnknown(n *node, name string, known []string, format string, args ...any) {
	r.suggestions[r.fail(n, format, args...)] = suggestion{name, known}
}

// failUnknownKey reports that n's key is not a known one.
func (r *reader) failUnknownKey(n *node, known []string, message string) {
	r.suggestions[r.failKey(n, "%s", message)] = suggestion{n.key, known}
}

// maxComparisons bounds the time of finish. It is enough for a hundred errors and two hundred names.
const maxComparisons = 20_000

// finish returns the errors in file order, with suggestions.
func (r *reader) finish() Errors {
	r.errs = r.errs.inOrder()
	comparisons := 0
	for _, e := range r.errs {
		s, ok := r.suggestions[e]
		if comparisons += len(s.known); ok && comparisons <= maxComparisons {
			e.Message += didYouMean(s.name, s.known)
		}
	}
	return r.errs
}

var sections = []string{"budgets", "pipelines", "policies"}

// read reads the file below root.
func (r *reader) read(root *node) {
	if root.shape != mapping {
		if root.shape != unreadable {
			r.fail(root, "the file is %s, must be a mapping with pipelines", root.what())
		}
		return
	}
	found := map[string]*node{}
	for _, n := range root.children {
		if slices.Contains(sections, n.key) {
			found[n.key] = n
		}
	}
	guessed := false
	for _, n := range root.children {
		if found[n.key] == n {
			continue
		}
		r.failUnknownKey(n, sections, "is not a section of a file")
		if section, near := nearest(n.key, sections); near && found[section] == nil {
			found[section], guessed = n, true // what is wrong in it is reported too
		}
	}
	r.readBudgets(found["budgets"])
	r.collectNames(found["policies"], found["pipelines"])
	r.readPolicies(found["policies"])
	pipelines := found["pipelines"]
	switch {
	case pipelines != nil:
		r.readPipelines(pipelines)
	case !guessed:
		r.report(&Error{Path: "pipelines", Line: root.line, Column: root.column, Message: "is missing, must have at least one pipeline"})
	}
}

// section returns the entries of a section, which may be missing or empty.
func (r *reader) section(n *node) []*node {
	switch {
	case n == nil || n.shape == unreadable || n.isNull():
		return nil
	case n.shape != mapping:
		r.fail(n, "is %s, must be a mapping of names", n.what())
		return nil
	}
	return n.children
}

// unknowable reports whether names may be missing because their section can't be read.
func unknowable(n *node) bool { return n != nil && n.shape != mapping && !n.isNull() }

func (r *reader) checkName(n *node) {
	if problem := nameError(n.key); problem != "" {
		r.failKey(n, "%s", problem)
	}
}

func (r *reader) readBudgets(section *node) {
	r.budgetNames = map[string]bool{}
	for _, n := range r.section(section) {
		r.checkName(n)
		r.budgetNames[n.key] = true
		if s := r.spec(budgetKind, n, n.key, n.path()); s != nil {
			r.file.budgets = append(r.file.budgets, named{n.key, s, n.keyLine, n.keyColumn})
		}
	}
	r.knownBudgets = keysOf(r.budgetNames)
	r.missingBudgets = unknowable(section)
}

// collectNames registers the names of policies and pipelines, so that what they contain may use each
// other.
func (r *reader) collectNames(policies, pipelines *node) {
	r.names = map[string]*node{}
	for _, n := range r.section(policies) {
		r.checkName(n)
		r.names[n.key] = n
	}
	for _, n := range r.section(pipelines) {
		r.checkName(n)
		first := r.names[n.key]
		if first == nil {
			r.names[n.key] = n
			continue
		}
		second, what := n, "policy"
		if compare(n.keyLine, n.keyColumn, first.keyLine, first.keyColumn) < 0 {
			first, second, what = n, first, "pipeline"
		}
		r.ambiguous = append(r.ambiguous, n.key)
		r.failKey(second, "is also the name of a %s, in line %d", what, first.keyLine)
	}
	r.knownUses = keysOf(r.names)
	r.missingNames = unknowable(policies) || unknowable(pipelines)
}

func (r *reader) readPolicies(section *node) {
	if section == nil || section.shape != mapping {
		return // reported by collectNames
	}
	for _, n := range section.children {
		k, value := r.one(n, false)
		if k == nil {
			continue
		}
		if s := r.spec(k, value, n.key, value.path()); s != nil {
			r.file.policies = append(r.file.policies, named{n.key, s, value.keyLine, value.keyColumn})
		}
	}
}

func (r *reader) readPipelines(section *node) {
	switch {
	case section.shape == unreadable:
		return
	case section.isNull() || section.shape == mapping && len(section.children) == 0:
		r.fail(section, "is empty, must have at least one pipeline")
		return
	case section.shape != mapping:
		return // reported by collectNames
	}
	for _, n := range section.children {
		p := &pipeline{name: n.key}
		r.file.pipelines = append(r.file.pipelines, p)
		switch n.shape {
		case unreadable:
			continue
		case list:
		default:
			r.fail(n, "is %s, must be a list of policies, outermost first", n.what())
			continue
		}
		count := map[*kind]int{}
		for _, child := range n.children {
			i, ok := r.item(child, n.key)
			if !ok {
				continue
			}
			if i.spec != nil {
				k := i.spec.kind
				i.place = place{pipeline: n.key, kind: k.name, n: count[k]}
				count[k]++
			}
			p.items = append(p.items, i)
		}
	}
}

const atMostOnce = "atMostOnce"

var itemNames = func() []string {
	names := []string{"use", atMostOnce}
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}()

var kindNames = itemNames[2:]

// item reads an item of the pipeline.
func (r *reader) item(n *node, pipeline string) (item, bool) {
	if n.shape == scalar && !n.isNull() {
		switch {
		case n.text == atMostOnce:
			return item{path: n.path(), line: n.line, column: n.column}, true
		case kindNamed(n.text) != nil:
			r.fail(n, "is text, must be a mapping: %s:", n.text)
		case r.names[n.text] != nil:
			r.fail(n, "is text, must be a mapping: use: %s", shownName(n.text))
		default:
			r.failUnknown(n, n.text, itemNames, "is %s, must be a policy, use, or atMostOnce", quote(n.text))
		}
		return item{}, false
	}
	k, value := r.one(n, true)
	if value == nil {
		return item{}, false
	}
	i := item{path: value.path(), line: value.keyLine, column: value.keyColumn}
	if k != nil {
		i.spec = r.spec(k, value, pipeline, value.path())
		return i, i.spec != nil
	}
	name, ok := r.text(value, "the name of a policy or a pipeline")
	switch {
	case !ok:
		return item{}, false
	case r.names[name] == nil:
		if !r.missingNames {
			r.failUnknown(value, name, r.knownUses, "is %s, must be the name of a policy or a pipeline", quote(name))
		}
		return item{}, false
	}
	i.use, i.line, i.column = name, value.line, value.column
	return i, true
}

// one reads a mapping with one key: a kind, or use. It returns the kind, which is nil for use, and
// the node of its fields, which is nil after an error.
func (r *reader) one(n *node, mayUse bool) (*kind, *node) {
	want := "a policy"
	if mayUse {
		want = "a policy, use, or atMostOnce"
	}
	switch {
	case n.shape == unreadable:
		return nil, nil
	case n.shape != mapping || len(n.children) == 0:
		what := n.what()
		if n.shape == mapping {
			what = "empty"
		}
		r.fail(n, "is %s, must be %s", what, want)
		return nil, nil
	case len(n.children) > 1:
		r.failKey(n.children[1], "is a second key beside %s, must be one: indent the fields of a policy below it, "+
			`and begin each policy with its own "- "`, shownName(n.children[0].key))
		return nil, nil
	}
	value := n.children[0]
	k := kindNamed(value.key)
	switch {
	case k != nil:
		return k, value
	case value.key == "use" && mayUse:
		return nil, value
	case value.key == "use":
		r.failKey(value, "is not accepted here, must be a policy: pipelines use policies")
	case value.key == atMostOnce && mayUse:
		r.failKey(value, "is a mapping, must be text: - atMostOnce")
	case inCode[value.key]:
		r.failKey(value, "is not accepted in a file: put it around the pipeline in the program")
	case mayUse:
		r.failUnknownKey(value, itemNames, "is not a policy")
	default:
		r.failUnknownKey(value, kindNames, "is not a policy")
	}
	return nil, nil
}

// inCode are the names that readers of the documentation may try in a file.
var inCode = map[string]bool{"share": true, "debounce": true, "chaos": true, "keyed": true, "discard": true}

// spec reads the fields in n. It returns nil if they can't be read; errors in single fields leave the
// spec incomplete.
func (r *reader) spec(k *kind, n *node, name, path string) *spec {
	s := &spec{kind: k, path: path, config: reflect.New(k.config).Elem()}
	if n.shape == unreadable {
		return nil
	}
	if n.shape != mapping && !n.isNull() {
		r.fail(n, "is %s, must be a mapping with the fields of %s", n.what(), k.name)
		return nil
	}
	values, failed := map[string]*node{}, map[string]bool{}
	var unknown []*node
	for _, child := range n.children {
		f := k.field(child.key)
		if f == nil {
			unknown = append(unknown, child)
			continue
		}
		values[f.name] = child
		if !r.value(s, f, child) {
			failed[f.name] = true
			s.config.Field(f.index).SetZero()
		}
	}
	for _, child := range unknown {
		keys := k.keys()
		r.failUnknownKey(child, keys, "is not a field of "+k.name)
		if key, near := nearest(child.key, keys); near && values[k.field(key).name] == nil {
			failed[k.field(key).name] = true
		}
	}
	r.validate(s, n, values, failed)
	if at := s.config.FieldByName("Name"); at.String() == "" {
		at.SetString(name)
	}
	return s
}
