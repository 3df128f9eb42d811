package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// The kinds of generated mutants, as they appear in IDs. [kindFault] is written manually, see faults.tsv.
const (
	kindBoundary   = "boundary"   // a < b      -> a <= b
	kindNegate     = "negate"     // a < b      -> a >= b; if ok -> if !ok
	kindLogic      = "logic"      // a && b     -> a || b
	kindArithmetic = "arithmetic" // a + b      -> a - b
	kindBits       = "bits"       // a << b     -> a >> b
	kindAssign     = "assign"     // a += b     -> a -= b
	kindIncrement  = "increment"  // a++        -> a--
	kindBool       = "bool"       // true       -> false
	kindMinMax     = "minmax"     // min(a, b)  -> max(a, b)
	kindZero       = "zero"       // return a   -> return the zero value
	kindCall       = "no-call"    // f()        -> nothing
	kindAssignment = "no-assign"  // a = b      -> nothing
	kindDefer      = "no-defer"   // defer f()  -> nothing
	kindCase       = "no-case"    // case a: f() -> case a:
	kindLoop       = "loop"       // continue   -> break
	kindLock       = "no-lock"    // mu.Lock(); defer mu.Unlock() -> nothing
	kindStore      = "cas-store"  // a.CompareAndSwap(b, c) -> a.Store(c), and true
	kindFault      = "fault"
)

// racy lists the kinds that a test may only notice when goroutines collide. Their survivors also meet the race detector.
var racy = []string{kindLock, kindStore, kindFault}

var comparisons = map[token.Token]token.Token{
	token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR,
}

var negations = map[token.Token]token.Token{
	token.EQL: token.NEQ, token.NEQ: token.EQL,
	token.LSS: token.GEQ, token.GEQ: token.LSS, token.GTR: token.LEQ, token.LEQ: token.GTR,
}

var logic = map[token.Token]token.Token{token.LAND: token.LOR, token.LOR: token.LAND}

var arithmetic = map[token.Token]token.Token{
	token.ADD: token.SUB, token.SUB: token.ADD, token.MUL: token.QUO, token.QUO: token.MUL, token.REM: token.MUL,
}

var bits = map[token.Token]token.Token{
	token.AND: token.OR, token.OR: token.AND, token.XOR: token.AND, token.AND_NOT: token.AND, token.SHL: token.SHR, token.SHR: token.SHL,
}

var assignments = map[token.Token]token.Token{
	token.ADD_ASSIGN: token.SUB_ASSIGN, token.SUB_ASSIGN: token.ADD_ASSIGN,
	token.MUL_ASSIGN: token.QUO_ASSIGN, token.QUO_ASSIGN: token.MUL_ASSIGN, token.REM_ASSIGN: token.MUL_ASSIGN,
	token.AND_ASSIGN: token.OR_ASSIGN, token.OR_ASSIGN: token.AND_ASSIGN, token.XOR_ASSIGN: token.AND_ASSIGN,
	token.AND_NOT_ASSIGN: token.AND_ASSIGN, token.SHL_ASSIGN: token.SHR_ASSIGN, token.SHR_ASSIGN: token.SHL_ASSIGN,
}

// A generator makes the mutants of one function.
type generator struct {
	function *function
	results  []*ast.FieldList // of the enclosing function and function literals, the innermost last
	ordinals map[string]int   // how many mutants of a kind there are
	mutants  []*mutant
}

// generate returns the mutants of the function in a stable order.
func generate(f *function) []*mutant {
	g := &generator{function: f, ordinals: map[string]int{}}
	g.walk(f.decl.Type, f.decl.Body)
	return g.mutants
}

// walk visits the body of a function or function literal of the given type.
func (g *generator) walk(typ *ast.FuncType, body *ast.BlockStmt) {
	g.results = append(g.results, typ.Results)
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			g.walk(n.Type, n.Body)
			return false
		case *ast.BlockStmt:
			g.statements(n.List, n == body && typ.Results != nil)
		case *ast.CaseClause:
			g.statements(n.Body, false)
		case *ast.CommClause:
			g.statements(n.Body, false)
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
			g.constant(n)
		case *ast.IncDecStmt:
			if n.Tok == token.INC {
				g.add(kindIncrement, n, g.text(n.X)+"--")
			} else {
				g.add(kindIncrement, n, g.text(n.X)+"++")
			}
		case *ast.AssignStmt:
			if to, ok := assignments[n.Tok]; ok {
				g.add(kindAssign, n, g.text(n.Lhs[0])+" "+to.String()+" "+g.text(n.Rhs[0]))
			}
		case *ast.BranchStmt:
			switch {
			case n.Label != nil:
			case n.Tok == token.BREAK:
				g.add(kindLoop, n, "continue")
			case n.Tok == token.CONTINUE:
				g.add(kindLoop, n, "break")
			}
		case *ast.ReturnStmt:
			g.zero(n)
		}
		return true
	})
	g.results = g.results[:len(g.results)-1]
}

// statements mutates what only a list of statements may hold. A panic that ends a function with results must stay, as without
// it the function doesn't compile.
func (g *generator) statements(list []ast.Stmt, ends bool) {
	locks := map[string][]edit{}
	var order []string
	for i, s := range list {
		if mutex, ok := g.lock(s); ok {
			if locks[mutex] == nil {
				order = append(order, mutex)
			}
			locks[mutex] = append(locks[mutex], g.replace(s, g.without(s)))
			continue
		}
		switch s := s.(type) {
		case *ast.ExprStmt:
			call, ok := s.X.(*ast.CallExpr)
			if !ok || ends && i == len(list)-1 && g.text(call.Fun) == "panic" {
				continue
			}
			g.addRemoval(kindCall, s)
		case *ast.DeferStmt:
			g.addRemoval(kindDefer, s)
		case *ast.AssignStmt:
			if s.Tok == token.ASSIGN && !blank(s.Lhs) {
				g.addRemoval(kindAssignment, s)
			}
		}
	}
	for _, mutex := range order {
		if edits := locks[mutex]; len(edits) > 1 { // a lock that another function releases can't be removed alone
			g.addEdits(kindLock, edits, mutex+".Lock ... Unlock", "(nothing)")
		}
	}
}

// lock returns the mutex that the statement locks or unlocks.
func (g *generator) lock(s ast.Stmt) (mutex string, ok bool) {
	var call *ast.CallExpr
	switch s := s.(type) {
	case *ast.DeferStmt:
		call = s.Call
	case *ast.ExprStmt:
		call, _ = s.X.(*ast.CallExpr)
	}
	if call == nil {
		return "", false
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Lock", "Unlock", "RLock", "RUnlock"}, selector.Sel.Name) {
		return "", false
	}
	return g.text(selector.X), true
}

// cases mutates the clauses of a switch: the conditions of one without a tag, the bodies of any other.
func (g *generator) cases(body *ast.BlockStmt, conditions bool) {
	for _, s := range body.List {
		clause := s.(*ast.CaseClause)
		switch {
		case conditions:
			for _, cond := range clause.List {
				g.condition(cond)
			}
		case len(clause.Body) > 0:
			first, last := clause.Body[0], clause.Body[len(clause.Body)-1]
			from, to := g.function.file.offset(first.Pos()), g.function.file.offset(last.End())
			text := g.function.file.source[from:to]
			label := "default"
			if clause.List != nil {
				label = "case " + g.function.file.source[g.function.file.offset(clause.List[0].Pos()):g.function.file.offset(clause.Colon)]
			}
			g.addEdits(kindCase, []edit{{from, to, "if false {\n" + text + "\n}"}}, label+": "+text, label+": (nothing)")
		}
	}
}

// condition negates a condition that has no operator which another kind mutates.
func (g *generator) condition(cond ast.Expr) {
	switch c := cond.(type) {
	case nil:
	case *ast.BinaryExpr:
		if c.Op == token.LAND || c.Op == token.LOR {
			g.condition(c.X)
			g.condition(c.Y)
		}
	case *ast.ParenExpr:
		g.condition(c.X)
	case *ast.UnaryExpr:
		g.add(kindNegate, c, g.text(c.X))
	case *ast.Ident:
		if c.Name != "true" && c.Name != "false" {
			g.add(kindNegate, c, "!"+c.Name)
		}
	default:
		g.add(kindNegate, c, "!("+g.text(c)+")")
	}
}

func (g *generator) binary(n *ast.BinaryExpr) {
	for _, operators := range []struct {
		kind string
		to   map[token.Token]token.Token
	}{
		{kindBoundary, comparisons}, {kindNegate, negations}, {kindLogic, logic}, {kindArithmetic, arithmetic}, {kindBits, bits},
	} {
		to, ok := operators.to[n.Op]
		if !ok || n.Op == token.ADD && (isString(n.X) || isString(n.Y)) {
			continue
		}
		x, y := g.text(n.X), g.text(n.Y)
		// The parentheses keep the operands together whatever the precedence of the new operator is.
		e := g.replace(n, fmt.Sprintf("((%s) %v (%s))", x, to, y))
		g.addEdits(operators.kind, []edit{e}, g.text(n), fmt.Sprintf("%s %v %s", x, to, y))
	}
}

func (g *generator) call(n *ast.CallExpr) {
	switch f := n.Fun.(type) {
	case *ast.Ident:
		if other := map[string]string{"min": "max", "max": "min"}[f.Name]; other != "" {
			g.addEdits(kindMinMax, []edit{g.replace(f, other)}, g.text(n), other+strings.TrimPrefix(g.text(n), f.Name))
		}
	case *ast.SelectorExpr:
		if f.Sel.Name == "CompareAndSwap" && len(n.Args) == 2 {
			g.add(kindStore, n, fmt.Sprintf("func() bool { _ = %s; %s.Store(%s); return true }()", g.text(n.Args[0]), g.text(f.X), g.text(n.Args[1])))
		}
	}
}

func (g *generator) constant(n *ast.Ident) {
	if other := map[string]string{"true": "false", "false": "true"}[n.Name]; other != "" {
		g.add(kindBool, n, other)
	}
}

// zero returns the zero values of the results. The original statement stays behind it, so that all variables are used.
func (g *generator) zero(n *ast.ReturnStmt) {
	results := g.results[len(g.results)-1]
	if len(n.Results) == 0 || !slices.ContainsFunc(n.Results, g.nonzero) {
		return
	}
	var zeros []string
	for _, field := range results.List {
		for range max(1, len(field.Names)) {
			zeros = append(zeros, "*new("+g.text(field.Type)+")")
		}
	}
	text := "return " + strings.Join(zeros, ", ")
	e := g.replace(n, "if 0 == 0 {\n"+text+"\n}\n"+g.text(n))
	g.addEdits(kindZero, []edit{e}, g.text(n), text)
}

// nonzero reports whether the zero value instead of the expression is a mutant that no other kind makes.
func (g *generator) nonzero(e ast.Expr) bool {
	text := g.text(e)
	return !slices.Contains([]string{"nil", "false", "true", "0", `""`, "zero"}, text) && !strings.HasSuffix(text, "{}")
}

// without returns the statement as one that compiles and is never executed.
func (g *generator) without(s ast.Stmt) string { return "if false {\n" + g.text(s) + "\n}" }

func (g *generator) addRemoval(kind string, s ast.Stmt) {
	g.addEdits(kind, []edit{g.replace(s, g.without(s))}, g.text(s), "(nothing)")
}

func (g *generator) add(kind string, n ast.Node, text string) {
	g.addEdits(kind, []edit{g.replace(n, text)}, g.text(n), text)
}

func (g *generator) addEdits(kind string, edits []edit, before, after string) {
	g.ordinals[kind]++
	g.mutants = append(g.mutants, newMutant(g.function, kind, fmt.Sprint(g.ordinals[kind]), edits, before, after))
}

func (g *generator) replace(n ast.Node, text string) edit {
	return edit{g.function.file.offset(n.Pos()), g.function.file.offset(n.End()), text}
}

func (g *generator) text(n ast.Node) string {
	return g.function.file.source[g.function.file.offset(n.Pos()):g.function.file.offset(n.End())]
}

func isString(e ast.Expr) bool {
	literal, ok := e.(*ast.BasicLit)
	return ok && literal.Kind == token.STRING
}

// blank reports whether the assignment is to the blank identifier only.
func blank(left []ast.Expr) bool {
	return !slices.ContainsFunc(left, func(e ast.Expr) bool {
		name, ok := e.(*ast.Ident)
		return !ok || name.Name != "_"
	})
}
