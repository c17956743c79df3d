//! What the rules of a policy refer to. The engine finds out only while it evaluates, and a function that calls
//! itself without an end would take the service down with it: its stack is the worker's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use regorus::unstable::{
    BUILTINS, Expr, Literal, Module, Query, Ref, Rule, RuleAssign, RuleHead, Span,
};

/// The most rules that may build on one another, one on the next.
pub(super) const MAX_CHAIN: usize = 16;

/// What is wrong, and where; its text is `line:column: reason`, both counted from 1.
#[derive(Debug)]
pub(super) struct Mistake {
    line: u32,
    column: u32,
    reason: String,
}

impl Mistake {
    fn new(span: &Span, reason: impl Into<String>) -> Self {
        Self {
            line: span.line,
            column: span.col,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.reason)
    }
}

/// A rule: where it first stands, and the rules that it names.
struct Node<'a> {
    span: &'a Span,
    names: BTreeSet<&'a str>,
}

/// Checks that there is a rule `allow`, that every function exists, and that no rule builds on itself.
pub(super) fn check(module: &Module) -> Result<(), Mistake> {
    let mut rules: BTreeMap<&str, Node<'_>> = BTreeMap::new();
    let mut has_allow = false;
    for rule in &module.policy {
        let (head, is_function) = head(rule);
        let name = root(head);
        has_allow |= name == "allow" && !is_function;
        rules.entry(name).or_insert_with(|| Node {
            span: rule.span(),
            names: BTreeSet::new(),
        });
    }
    if !has_allow {
        let reason = "there is no rule allow; say when to allow: allow if …";
        return Err(Mistake::new(&module.package.span, reason));
    }
    let known: BTreeSet<&str> = rules.keys().copied().collect();
    for import in &module.imports {
        let mut names = BTreeSet::new();
        Reader {
            known: &known,
            names: &mut names,
        }
        .expr(&import.refr)?;
    }
    for rule in &module.policy {
        if let Some(node) = rules.get_mut(root(head(rule).0)) {
            let names = &mut node.names;
            Reader {
                known: &known,
                names,
            }
            .rule(rule)?;
        }
    }
    let mut done = BTreeMap::new();
    for name in rules.keys() {
        length(name, &rules, &mut Vec::new(), &mut done)?;
    }
    Ok(())
}

/// How many rules the longest chain from `name` on has; `above` is on the way to it.
fn length<'a>(
    name: &'a str,
    rules: &BTreeMap<&'a str, Node<'a>>,
    above: &mut Vec<&'a str>,
    done: &mut BTreeMap<&'a str, usize>,
) -> Result<usize, Mistake> {
    if let Some(length) = done.get(name) {
        return Ok(*length);
    }
    let Some(node) = rules.get(name) else {
        return Ok(0);
    };
    if let Some(first) = above.iter().position(|other| *other == name) {
        let way = match &above[first + 1..] {
            [] => String::new(),
            way => format!(" by way of {}", way.join(", ")),
        };
        let reason = format!(
            "{name} refers to itself{way}; a rule may not (a variable of that name counts, too: rename it)"
        );
        return Err(Mistake::new(node.span, reason));
    }
    above.push(name);
    let mut longest = 0;
    for next in &node.names {
        longest = longest.max(length(next, rules, above, done)?);
    }
    above.pop();
    let chain = longest + 1;
    if chain > MAX_CHAIN {
        let reason = format!("more than {MAX_CHAIN} rules build on one another below {name}");
        return Err(Mistake::new(node.span, reason));
    }
    done.insert(name, chain);
    Ok(chain)
}

/// What `rule` defines, and whether it is a function.
fn head(rule: &Rule) -> (&Expr, bool) {
    match rule {
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } => (refr, false),
            RuleHead::Func { refr, .. } => (refr, true),
        },
        Rule::Default { refr, args, .. } => (refr, !args.is_empty()),
    }
}

/// The first name of a reference: `a` of `a.b["c"]`.
fn root(mut expr: &Expr) -> &str {
    while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = expr {
        expr = refr;
    }
    expr.span().text()
}

/// Reads what a rule is made of, and keeps the rules that it names.
struct Reader<'a, 'b> {
    known: &'b BTreeSet<&'a str>,
    names: &'b mut BTreeSet<&'a str>,
}

impl Reader<'_, '_> {
    fn rule(&mut self, rule: &Rule) -> Result<(), Mistake> {
        self.indexes(head(rule).0)?;
        match rule {
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Compr { assign, .. } => self.assign(assign.as_ref())?,
                    RuleHead::Set { key, .. } => self.all(key)?,
                    RuleHead::Func { args, assign, .. } => {
                        self.all(args)?;
                        self.assign(assign.as_ref())?;
                    }
                }
                for body in bodies {
                    self.assign(body.assign.as_ref())?;
                    self.query(&body.query)?;
                }
                Ok(())
            }
            Rule::Default { args, value, .. } => {
                self.all(args)?;
                self.expr(value)
            }
        }
    }

    /// What stands in the brackets of a head; the name before them is the rule's own.
    fn indexes(&mut self, head: &Expr) -> Result<(), Mistake> {
        match head {
            Expr::RefDot { refr, .. } => self.indexes(refr),
            Expr::RefBrack { refr, index, .. } => {
                self.indexes(refr)?;
                self.expr(index)
            }
            _ => Ok(()),
        }
    }

    fn assign(&mut self, assign: Option<&RuleAssign>) -> Result<(), Mistake> {
        assign.map_or(Ok(()), |assign| self.expr(&assign.value))
    }

    fn query(&mut self, query: &Query) -> Result<(), Mistake> {
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn {
                    key,
                    value,
                    collection,
                    ..
                } => {
                    self.all(key)?;
                    self.expr(value)?;
                    self.expr(collection)?;
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expr(expr)?,
                Literal::Every { domain, query, .. } => {
                    self.expr(domain)?;
                    self.query(query)?;
                }
            }
            for with in &statement.with_mods {
                self.expr(&with.refr)?;
                self.expr(&with.r#as)?;
            }
        }
        Ok(())
    }

    fn all<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Ref<Expr>>) -> Result<(), Mistake> {
        exprs.into_iter().try_for_each(|expr| self.expr(expr))
    }

    fn expr(&mut self, expr: &Expr) -> Result<(), Mistake> {
        match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => Ok(()),
            Expr::Var { span, .. } => self.name(span),
            Expr::Array { items, .. } | Expr::Set { items, .. } => self.all(items),
            Expr::Object { fields, .. } => {
                self.all(fields.iter().flat_map(|(_, key, value)| [key, value]))
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.expr(term)?;
                self.query(query)
            }
            Expr::ObjectCompr {
                key, value, query, ..
            } => {
                self.all([key, value])?;
                self.query(query)
            }
            Expr::Call { fcn, params, .. } => {
                self.function(fcn)?;
                self.all(params)
            }
            Expr::UnaryExpr { expr, .. } => self.expr(expr),
            Expr::RefDot { refr, .. } => self.expr(refr),
            Expr::RefBrack { refr, index, .. } => self.all([refr, index]),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => self.all([lhs, rhs]),
            Expr::Membership {
                key,
                value,
                collection,
                ..
            } => {
                self.all(key)?;
                self.all([value, collection])
            }
        }
    }

    fn function(&mut self, function: &Expr) -> Result<(), Mistake> {
        let name = function.span().text();
        let is_known =
            self.known.contains(root(function)) || name == "print" || BUILTINS.contains_key(name);
        if !is_known {
            let reason = format!("could not find function {name}");
            return Err(Mistake::new(function.span(), reason));
        }
        self.expr(function)
    }

    fn name(&mut self, span: &Span) -> Result<(), Mistake> {
        let name = span.text();
        if name == "data" {
            let reason = "there is no data; a policy calls its own rules by their names alone";
            return Err(Mistake::new(span, reason));
        }
        if let Some(known) = self.known.get(name) {
            self.names.insert(known);
        }
        Ok(())
    }
}
