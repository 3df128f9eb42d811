package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// A place is a number in a file with pipelines: budgets.NAME.FIELD, or KIND.FIELD or KIND[N].FIELD for
// the N-th policy of its kind in a pipeline, from the outside, also in what the pipeline uses.
type place struct {
	text   string
	budget string // its name; otherwise:
	kind   string
	n      int // from 1; 0: the only one
	fields []string
}

func parsePlace(text string) (place, error) {
	p := place{text: text}
	parts := strings.Split(text, ".")
	isBudget := parts[0] == "budgets"
	if len(parts) < 2 || slices.Contains(parts, "") || isBudget && len(parts) != 3 {
		return place{}, fmt.Errorf("%q must be such as retry.maxAttempts, timeout[2].limit, or budgets.extra.ratio", text)
	}
	if isBudget {
		p.budget, p.fields = parts[1], parts[2:]
		return p, nil
	}
	kind, index, indexed := strings.Cut(parts[0], "[")
	p.kind, p.fields = kind, parts[1:]
	if indexed {
		digits, closed := strings.CutSuffix(index, "]")
		n, err := strconv.Atoi(digits)
		if !closed || err != nil || n < 1 || kind == "" {
			return place{}, fmt.Errorf("%q must be such as timeout[2].limit", text)
		}
		p.n = n
	}
	return p, nil
}

// A document is a file with pipelines as text, with its places.
type document struct {
	data     []byte
	root     ast.Node
	pipeline string
}

func newDocument(data []byte, pipeline string) (*document, error) {
	f, err := parser.ParseBytes(data, 0)
	if err != nil || len(f.Docs) != 1 {
		return nil, fmt.Errorf("not one YAML document: %v", err)
	}
	return &document{data, f.Docs[0].Body, pipeline}, nil
}

// entries returns the entries of a mapping.
func entries(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

func keyOf(entry *ast.MappingValueNode) string { return entry.Key.GetToken().Value }

func entry(n ast.Node, key string) *ast.MappingValueNode {
	for _, e := range entries(n) {
		if keyOf(e) == key {
			return e
		}
	}
	return nil
}

// section returns what a top-level section has under a name, or nil.
func (d *document) section(section, name string) *ast.MappingValueNode {
	if s := entry(d.root, section); s != nil {
		return entry(s.Value, name)
	}
	return nil
}

// policies returns the policies of a pipeline, from the outside: entries whose key is the kind.
func (d *document) policies(pipeline string, depth int) (all []*ast.MappingValueNode) {
	e := d.section("pipelines", pipeline)
	if e == nil || depth > 50 {
		return nil
	}
	items, ok := e.Value.(*ast.SequenceNode)
	if !ok {
		return nil
	}
	for _, item := range items.Values {
		for _, policy := range entries(item) {
			if keyOf(policy) != "use" {
				all = append(all, policy)
				continue
			}
			name := policy.Value.GetToken().Value
			if shared := d.section("policies", name); shared != nil {
				all = append(all, entries(shared.Value)...)
			} else {
				all = append(all, d.policies(name, depth+1)...)
			}
		}
	}
	return all
}

// find returns the entry of the mapping that has the place's fields.
func (d *document) find(p place) (*ast.MappingValueNode, error) {
	if p.budget != "" {
		if e := d.section("budgets", p.budget); e != nil {
			return e, nil
		}
		return nil, fmt.Errorf("%s: the file has no budget %q", p.text, p.budget)
	}
	var found []*ast.MappingValueNode
	for _, policy := range d.policies(d.pipeline, 0) {
		if keyOf(policy) == p.kind {
			found = append(found, policy)
		}
	}
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("%s: pipeline %q has no %s", p.text, d.pipeline, p.kind)
	case p.n > len(found):
		return nil, fmt.Errorf("%s: pipeline %q has only %d of the kind %s", p.text, d.pipeline, len(found), p.kind)
	case p.n == 0 && len(found) > 1:
		return nil, fmt.Errorf("%s: pipeline %q has %d of the kind %s, must be %s[1] to %s[%d]",
			p.text, d.pipeline, len(found), p.kind, p.kind, p.kind, len(found))
	}
	return found[max(p.n, 1)-1], nil
}

// field returns the entry with the place's field, or the deepest one that there is, and the fields
// that are missing below.
func (d *document) field(p place) (e *ast.MappingValueNode, missing []string, err error) {
	if e, err = d.find(p); err != nil {
		return nil, nil, err
	}
	for i, field := range p.fields {
		next := entry(e.Value, field)
		if next == nil {
			return e, p.fields[i:], nil
		}
		e = next
	}
	return e, nil, nil
}

// get returns the text of a value in the file, "" if the file doesn't set it.
func (d *document) get(p place) (string, error) {
	e, missing, err := d.field(p)
	if err != nil || missing != nil {
		return "", err
	}
	return e.Value.GetToken().Value, nil
}

// set returns the text of the file with another value.
func (d *document) set(p place, value string) ([]byte, error) {
	e, missing, err := d.field(p)
	if err != nil {
		return nil, err
	}
	if missing == nil {
		return d.replace(e.Value, value)
	}
	if len(missing) > 1 {
		return nil, fmt.Errorf("%s: the file does not set %s", p.text, missing[0])
	}
	added := missing[0] + ": " + value
	fields := entries(e.Value)
	if len(fields) == 0 {
		if _, braces := e.Value.(*ast.MappingNode); braces {
			at := d.offset(e.Value) + 1
			return d.splice(at, at, added), nil
		}
		// Nothing follows the colon.
		at := d.offset(e.Key) + len(keyOf(e))
		at += strings.IndexByte(string(d.data[at:]), ':') + 1
		return d.splice(at, at, " {"+added+"}"), nil
	}
	at := d.offset(fields[0].Key)
	if flow, ok := e.Value.(*ast.MappingNode); ok && flow.IsFlowStyle {
		return d.splice(at, at, added+", "), nil
	}
	line := strings.LastIndexByte(string(d.data[:at]), '\n') + 1
	return d.splice(at, at, added+"\n"+strings.Repeat(" ", at-line)), nil
}

// replace replaces a scalar.
func (d *document) replace(n ast.Node, value string) ([]byte, error) {
	at, text := d.offset(n), n.GetToken().Value
	rest := string(d.data[at:])
	switch {
	case strings.HasPrefix(rest, text) && text != "":
		return d.splice(at, at+len(text), value), nil
	case strings.HasPrefix(rest, `"`+text+`"`) || strings.HasPrefix(rest, "'"+text+"'"):
		return d.splice(at, at+len(text)+2, value), nil
	}
	return nil, fmt.Errorf("line %d: %q can't be replaced, must be written plainly", n.GetToken().Position.Line, text)
}

// offset returns where a node begins.
func (d *document) offset(n ast.Node) int {
	position := n.GetToken().Position
	at := 0
	for line := 1; line < position.Line; line++ {
		at += strings.IndexByte(string(d.data[at:]), '\n') + 1
	}
	for column := 1; column < position.Column && at < len(d.data); column++ { // in characters
		at++
		for at < len(d.data) && d.data[at]&0xc0 == 0x80 {
			at++
		}
	}
	return at
}

// splice returns the text of the file with other text from one offset to another.
func (d *document) splice(from, to int, text string) []byte {
	return []byte(string(d.data[:from]) + text + string(d.data[to:]))
}
