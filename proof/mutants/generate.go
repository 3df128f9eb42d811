package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// operators lists, for each kind of mutant that replaces an operator or a word, what replaces
// what. The other kinds are:
//
//	negate      if ok                               ->  if !ok
//	increment   a++                                 ->  a--
//	zero        return a                            ->  return the zero value
//	no-call     f()                                 ->  nothing
//	no-assign   a = b                               ->  nothing
//	no-defer    defer f()                           ->  nothing
//	no-case     case a: f()                         ->  case a:
//	no-lock     mu.Lock() and mu.Unlock()           ->  nothing
//	cas-store   a.CompareAndSwap(b, c)              ->  a.Store(c), and true
//	fault       what a line of faults.tsv replaces
var operators = []struct{ kind, pairs string }{
	{"boundary", "< <=  <= <  > >=  >= >"},
	{"negate", "== !=  != ==  < >=  >= <  > <=  <= >"},
	{"logic", "&& ||  || &&"},
	{"arithmetic", "+ -  - +  * /  / *  % *"},
	{"bits", "& |  | &  ^ &  &^ &  << >>  >> <<"},
	{"assign", "+= -=  -= +=  *= /=  /= *=  %= *=  &= |=  |= &=  ^= &=  &^= &=  <<= >>=  >>= <<="},
	{"bool", "true false  false true"},
	{"minmax", "min max  max min"},
	{"loop", "break continue  continue break"},
}

// replacements returns what may replace the operator or word, by kind.
func replacements(of string) map[string]string {
	all := map[string]string{}
	for _, o := range operators {
		words := strings.Fields(o.pairs)
		for i := 0; i < len(words); i += 2 {
			if words[i] == of {
				all[o.kind] = words[i+1]
			}
		}
	}
	return all
}

// racy lists the kinds that a test may only notice when goroutines collide. Their survivors also
// meet the race detector.
var racy = []string{"no-lock", "cas-store", "fault"}

// A generator makes the mutants of one function.
type generator struct {
	*function
	ordinals map[string]int // how many mutants of a kind there are
	mutants  []*mutant
}

// generate returns the mutants of the function in a stable order.
func generate(f *function) []*mutant {
	g := &generator{function: f, ordinals: map[string]int{}}
	g.walk(f.decl.Type, f.decl.Body)
	return g.mutants
}

// walk visits the body of a function or function literal of the type.
func (g *generator) walk(typ *ast.FuncType, body *ast.BlockStmt) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			g.walk(n.Type, n.Body)
			return false
		case *ast.BlockStmt:
			g.statements(n.List)
		case *ast.CaseClause:
			g.statements(n.Body)
		case *ast.CommClause:
			g.statements(n.Body)
		case *ast.SwitchStmt:
			g.cases(n.Body, n.Tag == nil)
		case *ast.TypeSwitchStmt:
			g.cases(n.Body, false)
		case *ast.IfStmt:
			g.condition(n.Cond)
		case *ast.ForStmt:
			g.condition(n.Cond)
		case *ast.BinaryExpr:
			g.binary(n)
		case *ast.CallExpr:
			g.call(n)
		case *ast.Ident:
			g.word(n, n.Name, "bool")
		case *ast.BranchStmt:
			if n.Label == nil {
				g.word(n, n.Tok.String(), "loop")
			}
		case *ast.IncDecStmt:
			g.add("increment", n, g.text(n.X)+map[token.Token]string{token.INC: "--", token.DEC: "++"}[n.Tok])
		case *ast.AssignStmt:
			if to, ok := replacements(n.Tok.String())["assign"]; ok {
				g.add("assign", n, g.text(n.Lhs[0])+" "+to+" "+g.text(n.Rhs[0]))
			}
		case *ast.ReturnStmt:
			g.zero(n, typ.Results)
		}
		return true
	})
}

// statements removes statements. It keeps a lock that another function releases.
func (g *generator) statements(list []ast.Stmt) {
	locks := map[string][]edit{}
	for _, s := range list {
		var call *ast.CallExpr
		kind := ""
		switch s := s.(type) {
		case *ast.ExprStmt:
			if call, _ = s.X.(*ast.CallExpr); call != nil {
				kind = "no-call"
			}
		case *ast.DeferStmt:
			call, kind = s.Call, "no-defer"
		case *ast.AssignStmt:
			if s.Tok == token.ASSIGN && strings.Trim(g.text(s)[:s.TokPos-s.Pos()], "_, ") != "" {
				kind = "no-assign"
			}
		}
		without := "if false {\n" + g.text(s) + "\n}" // all variables stay used
		if mutex, ok := g.mutex(call); ok {
			locks[mutex] = append(locks[mutex], g.replace(s, without))
		} else if kind != "" {
			g.addEdits(kind, []edit{g.replace(s, without)}, g.text(s), "(nothing)")
		}
	}
	for _, mutex := range sortedKeys(locks) {
		if len(locks[mutex]) > 1 {
			g.addEdits("no-lock", locks[mutex], mutex+".Lock ... Unlock", "(nothing)")
		}
	}
}

// mutex returns what the call locks or unlocks.
func (g *generator) mutex(call *ast.CallExpr) (mutex string, ok bool) {
	if call == nil {
		return "", false
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Lock", "Unlock", "RLock", "RUnlock"}, method.Sel.Name) {
		return "", false
	}
	return g.text(method.X), true
}

// cases mutates the clauses of a switch: the conditions of one without a tag, the bodies of any
// other.
func (g *generator) cases(body *ast.BlockStmt, conditions bool) {
	for _, s := range body.List {
		clause := s.(*ast.CaseClause)
		for _, cond := range clause.List {
			if conditions {
				g.condition(cond)
			}
		}
		if n := len(clause.Body); n > 0 && !conditions {
			from, to := g.file.offset(clause.Body[0].Pos()), g.file.offset(clause.Body[n-1].End())
			label := g.file.source[g.file.offset(clause.Pos()) : g.file.offset(clause.Colon)+1]
			text := g.file.source[from:to]
			g.addEdits("no-case", []edit{{from, to, "if false {\n" + text + "\n}"}}, label+" "+text, label+" (nothing)")
		}
	}
}

// condition negates the parts of a condition that no operator joins.
func (g *generator) condition(cond ast.Expr) {
	switch c := cond.(type) {
	case *ast.BinaryExpr:
		if c.Op == token.LAND || c.Op == token.LOR {
			g.condition(c.X)
			g.condition(c.Y)
		}
	case *ast.ParenExpr:
		g.condition(c.X)
	case *ast.UnaryExpr:
		g.add("negate", c, g.text(c.X))
	case *ast.Ident:
		if len(replacements(c.Name)) == 0 {
			g.add("negate", c, "!"+c.Name)
		}
	case *ast.CallExpr, *ast.SelectorExpr, *ast.IndexExpr:
		g.add("negate", c, "!("+g.text(c)+")")
	}
}

func (g *generator) binary(n *ast.BinaryExpr) {
	x, y := g.text(n.X), g.text(n.Y)
	if n.Op == token.ADD && (strings.HasPrefix(x, `"`) || strings.HasPrefix(y, `"`)) {
		return // strings can't be subtracted
	}
	to := replacements(n.Op.String())
	for _, kind := range sortedKeys(to) {
		// The parentheses keep the operands together whatever the precedence of the new operator
		// is.
		e := g.replace(n, fmt.Sprintf("((%s) %s (%s))", x, to[kind], y))
		g.addEdits(kind, []edit{e}, g.text(n), x+" "+to[kind]+" "+y)
	}
}

func (g *generator) call(n *ast.CallExpr) {
	switch f := n.Fun.(type) {
	case *ast.Ident:
		if to, ok := replacements(f.Name)["minmax"]; ok {
			g.addEdits("minmax", []edit{g.replace(f, to)}, g.text(n), to+strings.TrimPrefix(g.text(n), f.Name))
		}
	case *ast.SelectorExpr:
		if f.Sel.Name == "CompareAndSwap" && len(n.Args) == 2 {
			g.add("cas-store", n, fmt.Sprintf("func() bool { _ = %s; %s.Store(%s); return true }()", g.text(n.Args[0]), g.text(f.X), g.text(n.Args[1])))
		}
	}
}

func (g *generator) word(n ast.Node, word, kind string) {
	if to, ok := replacements(word)[kind]; ok {
		g.add(kind, n, to)
	}
}

// zero returns zero values, unless all results are such constants that only other kinds can change
// them.
func (g *generator) zero(n *ast.ReturnStmt, results *ast.FieldList) {
	if !slices.ContainsFunc(n.Results, func(e ast.Expr) bool {
		text := g.text(e)
		return !slices.Contains([]string{"nil", "false", "true", "0", `""`, "zero"}, text) && !strings.HasSuffix(text, "{}")
	}) {
		return
	}
	var zeros []string
	for _, field := range results.List {
		zeros = append(zeros, slices.Repeat([]string{"*new(" + g.text(field.Type) + ")"}, max(1, len(field.Names)))...)
	}
	text := "return " + strings.Join(zeros, ", ")
	e := g.replace(n, "if 0 == 0 {\n"+text+"\n}\n"+g.text(n)) // all variables stay used
	g.addEdits("zero", []edit{e}, g.text(n), text)
}

func (g *generator) add(kind string, n ast.Node, text string) {
	g.addEdits(kind, []edit{g.replace(n, text)}, g.text(n), text)
}

func (g *generator) addEdits(kind string, edits []edit, before, after string) {
	g.ordinals[kind]++
	g.mutants = append(g.mutants, newMutant(g.function, kind, fmt.Sprint(g.ordinals[kind]), edits, before, after))
}

func (g *generator) replace(n ast.Node, text string) edit {
	return edit{g.file.offset(n.Pos()), g.file.offset(n.End()), text}
}
