package resilienceconfig

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxSize       = 1 << 20 // bytes
	maxIndicators = 20_000
	maxLines      = 20_000
	maxBlankLines = 1000 // in a row
	maxDepth      = 50
)

// A node is a part of a file: what YAML means, without how it is written.
type node struct {
	parent *node
	key    string // in a mapping
	index  int    // in a list

	shape        shape
	line, column int // of the value; of the key, if there is no value

	keyLine, keyColumn int // of the key, in a mapping

	text      string  // of a scalar
	quoted    bool    // a scalar in quotes, or a block
	variables bool    // a scalar that contains ${NAME}
	children  []*node // of a mapping or a list
}

type shape int

const (
	unreadable shape = iota // an error was reported
	missing                 // nothing is written
	scalar
	list
	mapping
)

// isNull reports whether nothing or null is written.
func (n *node) isNull() bool {
	if n.shape != scalar || n.quoted {
		return n.shape == missing
	}
	switch n.text {
	case "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// path returns where n is, such as pipelines.users[1].retry.
func (n *node) path() string {
	switch {
	case n.parent == nil:
		return ""
	case n.parent.shape == list:
		return fmt.Sprintf("%s[%d]", n.parent.path(), n.index)
	}
	return join(n.parent.path(), n.key)
}

// join returns the path of a key. A key that is no name is quoted, so that it can't look like a path
// or break a line.
func join(path, key string) string {
	if nameError(key) != "" {
		key = quote(key)
	}
	if path == "" {
		return clip(key)
	}
	return path + "." + clip(key)
}

const maxShown = 60

// clip shortens text that is long, so that an error can't be much longer than its file's keys.
func clip(text string) string {
	if len(text) <= maxShown {
		return text
	}
	runes := []rune(text[:min(len(text), maxShown*utf8.UTFMax)])
	if len(runes) <= maxShown {
		return text
	}
	return string(runes[:maxShown-1]) + "…"
}

// quote returns text in quotes, on one line, and not too long.
func quote(text string) string { return strconv.Quote(clip(text)) }

// nameError returns why name can't be the name of a policy, a pipeline, or a budget; "" if it can.
func nameError(name string) string {
	if name == "" {
		return "is empty, must be a name"
	}
	for _, r := range name {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(".[]$", r) {
			return fmt.Sprintf("contains %q: a name has no spaces, dots, brackets, or $", r)
		}
	}
	return ""
}

// A tree reads YAML into nodes.
type tree struct {
	env      func(string) (string, bool)
	expanded int // bytes that variables have produced
	errs     Errors
}

func (t *tree) fail(line, column int, path, format string, args ...any) {
	t.errs = append(t.errs, &Error{Path: path, Line: line, Column: max(column, 1), Message: fmt.Sprintf(format, args...)})
}

// read returns the root of a file, or nil if it can't be read.
func (t *tree) read(data []byte) *node {
	source, ok := t.source(data)
	if !ok {
		return nil
	}
	file, err := parse(source)
	if err != nil {
		t.errs = append(t.errs, syntaxError(err))
		return nil
	}
	var docs []*ast.DocumentNode
	for _, doc := range file.Docs {
		if directive, ok := doc.Body.(*ast.DirectiveNode); ok {
			at := directive.GetToken().Position
			t.fail(at.Line, at.Column, "", "a YAML directive is not accepted")
			continue
		}
		docs = append(docs, doc)
	}
	if len(docs) == 0 || docs[0].Body == nil {
		if len(t.errs) == 0 {
			t.fail(1, 1, "", "the file is empty, must have pipelines")
		}
		return nil
	}
	if len(docs) > 1 {
		line, column := bytes.Count(source, []byte("\n"))+1, 1
		if second := docs[1]; second.Start != nil {
			line, column = second.Start.Position.Line, second.Start.Position.Column
		} else if second.Body != nil {
			line, column = position(second.Body)
		}
		t.fail(line, column, "", "a second document is not accepted, a file has one")
	}
	root := new(node)
	t.fill(root, docs[0].Body, 0)
	return root
}

// syntaxError returns an error of the parser with its position.
func syntaxError(err error) *Error {
	e := &Error{Line: 1, Column: 1}
	var located yaml.Error
	if !errors.As(err, &located) {
		e.Message = oneLine(err.Error())
		return e
	}
	e.Message = oneLine(located.GetMessage()) // its Error would format all of the source
	if at := located.GetToken(); at != nil && at.Position != nil {
		e.Line, e.Column = at.Position.Line, max(at.Position.Column, 1)
	}
	return e
}

// source returns the text of a file for the parser, which takes time quadratic in the numbers that
// are checked here.
func (t *tree) source(data []byte) ([]byte, bool) {
	if len(data) > maxSize {
		t.fail(1, 1, "", "the file is larger than 1 MiB (%d bytes)", maxSize)
		return nil, false
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if bytes.ContainsRune(data, '\r') { // the parser counts some lines twice
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
		data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	}
	if valid := validPrefix(data); len(valid) < len(data) {
		line, column := bytes.Count(valid, []byte("\n"))+1, utf8.RuneCount(valid[bytes.LastIndexByte(valid, '\n')+1:])+1
		t.fail(line, column, "", "the file is not valid UTF-8")
		return nil, false
	}
	if err := tooComplex(data); err != "" {
		t.fail(1, 1, "", "%s", err)
		return nil, false
	}
	return data, true
}

// validPrefix returns the text before the first byte that isn't valid UTF-8.
func validPrefix(data []byte) []byte {
	if utf8.Valid(data) {
		return data
	}
	at := 0
	for {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size <= 1 {
			return data[:at]
		}
		at += size
	}
}

// tooComplex returns why the parser would need too long for data; "" if it wouldn't. The limits are
// those of indicators, of which each becomes a token, and of blank lines, over which the parser goes
// again and again in a block.
func tooComplex(data []byte) string {
	var indicators, others, lines, blank int
	empty := true // so far, the line
	for _, c := range data {
		switch c {
		case ':', '-', '?', '[', '{', ',', '&', '*', '!':
			indicators++
		case ']', '}', '|', '>', '\'', '"', '@', '`', '%', '#':
			others++
		case '\n':
			lines++
			if blank++; !empty {
				blank = 0
			}
			if blank > maxBlankLines {
				return fmt.Sprintf("the file has more than %d blank lines in a row", maxBlankLines)
			}
			empty = true
			continue
		}
		empty = empty && (c == ' ' || c == '\t')
	}
	const tooMany = "the file has %d of the characters %s, must be at most %d"
	switch {
	case indicators > maxIndicators:
		return fmt.Sprintf(tooMany, indicators, ": - ? [ { , & * !", maxIndicators)
	case others > maxIndicators:
		return fmt.Sprintf(tooMany, others, "] } | > ' \" @ ` % #", maxIndicators)
	case lines > maxLines:
		return fmt.Sprintf("the file has %d lines, must be at most %d", lines, maxLines)
	}
	return ""
}

// parse calls the parser. A panic of the parser is an error.
func parse(source []byte) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the file is no YAML that the parser can read: %s", oneLine(fmt.Sprint(p)))
		}
	}()
	return parseSource(source)
}

// parseSource calls the parser; a test replaces it.
var parseSource = func(source []byte) (*ast.File, error) {
	tokens := lexer.Tokenize(string(source))
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		}
		if depth > maxDepth { // the parser takes time quadratic in the depth
			return nil, &yaml.SyntaxError{Message: tooDeep, Token: t}
		}
	}
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

var tooDeep = fmt.Sprintf("is nested too deeply, must be at most %d levels", maxDepth)

// oneLine returns the parser's message without line breaks and control characters.
func oneLine(message string) string {
	message = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, message)
	if len(message) > 200 {
		message = strings.ToValidUTF8(message[:200], "") + "…"
	}
	return message
}

// position returns where a part of the file begins.
func position(part ast.Node) (line, column int) {
	switch p := part.(type) {
	case *ast.MappingNode:
		if !p.IsFlowStyle && len(p.Values) > 0 {
			return position(p.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(p.Key)
	case *ast.MappingKeyNode:
		if p.Value != nil {
			return position(p.Value)
		}
	}
	if t := part.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line, max(t.Position.Column, 1)
	}
	return 1, 1
}

// fill reads part into n, at the depth.
func (t *tree) fill(n *node, part ast.Node, depth int) {
	if part == nil {
		n.shape, n.line, n.column = missing, max(n.keyLine, 1), max(n.keyColumn, 1)
		return
	}
	n.line, n.column = position(part)
	if depth > maxDepth {
		t.fail(n.line, n.column, n.path(), "%s", tooDeep)
		return
	}
	switch p := part.(type) {
	case *ast.AnchorNode:
		t.fail(n.line, n.column, n.path(), "has an anchor, which is not accepted: share with use")
		t.fillAgain(n, p.Value, depth)
	case *ast.TagNode:
		t.fail(n.line, n.column, n.path(), "has a tag, which is not accepted")
		t.fillAgain(n, p.Value, depth)
	case *ast.AliasNode:
		t.fail(n.line, n.column, n.path(), "is an alias, which is not accepted: share with use")
	case *ast.MappingNode:
		n.shape = mapping
		t.fillMapping(n, p.Values, depth)
	case *ast.MappingValueNode:
		n.shape = mapping
		t.fillMapping(n, []*ast.MappingValueNode{p}, depth)
	case *ast.SequenceNode:
		n.shape = list
		for i, value := range p.Values {
			item := &node{parent: n, index: i, keyLine: n.line, keyColumn: n.column}
			n.children = append(n.children, item)
			t.fill(item, value, depth+1)
		}
	case *ast.LiteralNode:
		n.shape, n.quoted = scalar, true
		if p.Value != nil {
			n.text = p.Value.Value
		}
		t.expand(n)
	case ast.ScalarNode:
		t.fillScalar(n, p.GetToken())
	default:
		t.fail(n.line, n.column, n.path(), "is a %s, which is not accepted", strings.ToLower(part.Type().String()))
	}
}

// fillAgain reads the part inside an anchor or a tag, whose error is reported.
func (t *tree) fillAgain(n *node, part ast.Node, depth int) {
	if part == nil {
		return
	}
	t.fill(n, part, depth+1)
}

func (t *tree) fillScalar(n *node, tok *token.Token) {
	n.shape = scalar
	switch tok.Type {
	case token.ImplicitNullType:
		n.shape = missing
		if n.keyLine > 0 {
			n.line, n.column = n.keyLine, n.keyColumn
		}
		return
	case token.SingleQuoteType, token.DoubleQuoteType:
		n.quoted = true
	}
	n.text = tok.Value
	t.expand(n)
}

func (t *tree) fillMapping(n *node, values []*ast.MappingValueNode, depth int) {
	first := make(map[string]*node, len(values))
	for _, value := range values {
		line, column := position(value.Key)
		key, problem := keyText(value.Key)
		if problem != "" {
			t.fail(line, column, n.path(), "%s", problem)
			continue
		}
		child := &node{parent: n, key: key, keyLine: line, keyColumn: column}
		if earlier := first[key]; earlier != nil {
			t.fail(line, column, child.path(), "is a duplicate, the first is in line %d", earlier.keyLine)
			continue
		}
		first[key] = child
		n.children = append(n.children, child)
		t.fill(child, value.Value, depth+1)
	}
}

// keyText returns the text of a key, or why it can't be one.
func keyText(key ast.Node) (text, problem string) {
	if explicit, ok := key.(*ast.MappingKeyNode); ok && explicit.Value != nil {
		key = explicit.Value
	}
	switch k := key.(type) {
	case *ast.MergeKeyNode:
		return "", "has a merge key, which is not accepted: share with use"
	case *ast.AnchorNode:
		return "", "has a key with an anchor, which is not accepted"
	case *ast.AliasNode:
		return "", "has an alias as a key, which is not accepted"
	case *ast.TagNode:
		return "", "has a key with a tag, which is not accepted"
	case *ast.LiteralNode:
		if k.Value == nil {
			return "", ""
		}
		return k.Value.Value, ""
	case ast.ScalarNode:
		if tok := k.GetToken(); tok.Type != token.ImplicitNullType {
			return tok.Value, ""
		}
		return "", ""
	}
	return "", "has a key that is not a scalar, which is not accepted"
}

// expand replaces the variables in n's text.
func (t *tree) expand(n *node) {
	if t.env == nil || !strings.Contains(n.text, "$") {
		return
	}
	var replaced strings.Builder
	for rest := n.text; rest != ""; {
		before, after, found := strings.Cut(rest, "$")
		replaced.WriteString(before)
		switch {
		case !found:
		case strings.HasPrefix(after, "$"):
			replaced.WriteByte('$')
			after = after[1:]
		case strings.HasPrefix(after, "{"):
			value, behind, problem := t.variable(after)
			if problem != "" {
				t.fail(n.line, n.column, n.path(), "%s", problem)
				n.shape, n.text = unreadable, ""
				return
			}
			replaced.WriteString(value)
			n.variables = true
			after = behind
		default:
			replaced.WriteByte('$')
		}
		rest = after
	}
	n.text = replaced.String()
}

// variable returns the value of the variable {NAME} with which text begins, and what follows it, or what
// is wrong with it.
func (t *tree) variable(text string) (value, rest, problem string) {
	inner, rest, closed := strings.Cut(text[1:], "}")
	name, fallback, hasFallback := strings.Cut(inner, ":-")
	if !closed || !isVariable(name) {
		return "", "", fmt.Sprintf("has %s, must be ${NAME} or ${NAME:-default}; $$ is a $", quote("$"+text))
	}
	value, set := t.env(name)
	if value == "" && hasFallback {
		value, set = fallback, true
	}
	t.expanded += len(value)
	needs := "needs the variable " + clip(name)
	switch {
	case !set:
		problem = fmt.Sprintf("%s, which is not set and has no default: ${%s:-default}", needs, clip(name))
	case !utf8.ValidString(value):
		problem = needs + ", which is not valid UTF-8"
	case t.expanded > maxSize:
		problem = needs + ": variables add more than 1 MiB to the file"
	}
	return value, rest, problem
}

func isVariable(name string) bool {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
