//! Equations with indices: `y[n, o] = sum[k] x[n, k] * w[o, k]`, from syntax to resolved [`Node`]s.
//!
//! Input: a scope, the left side, the right side, and the output's dims as far as they are declared.
//! Output: a tensor whose dims are the indices of the left side in order (built by `lowering`).
//! Rules: a plain index gets its range from the dims that it indexes, which must be provably equal; an index that is
//! only read at an affine place needs a declared output shape; an unguarded affine read must be provably in range.
//! Invariant: every name of a [`Node`] is resolved; parts that need no index are already values.

mod index_range;
mod left;
mod lowering;
mod node;
mod places;
#[cfg(test)]
mod places_tests;
#[cfg(test)]
mod random_tests;
mod read;
mod reduction;
#[cfg(test)]
mod tests;

use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::ValueId;
use crate::model::expander::{Expander, Factors, Meaning, Outcome, Reported, Scope};
use crate::model::expression::{as_number, is_literal};
use crate::source::Span;
use crate::syntax::ast::{self, BinaryOp, Expr, ExprKind, UnaryOp};
use left::LeftDim;
use node::{Indices, Known, Node, NodeKind, Reduction, Var, union};

/// The dims of a declared shape, as far as they are known; and how many each part of it gives, and what it makes them of.
type Declared = (Vec<Known>, Vec<(usize, Factors)>);

impl Expander<'_> {
    /// `name[places] = value`, optionally with the declared shape of the output. Names in the shape that are not
    /// bound yet take the range that the right side gives.
    pub(crate) fn equation(
        &mut self,
        scope: &mut Scope,
        name: &ast::Ident,
        places: &[ast::Place],
        value: &Expr,
        shape: Option<&ast::TensorType>,
    ) -> Outcome<ValueId> {
        let (mut known, mut lengths) = (Vec::new(), Vec::new());
        if let Some(shape) = shape {
            for dim in &shape.dims {
                let before = known.len();
                let unbound = matches!(&dim.kind, ExprKind::Name(name) if !scope.names.contains_key(name));
                if unbound {
                    known.push(None);
                } else {
                    let dims = self.dims(scope, std::slice::from_ref(dim))?;
                    known.extend(dims.into_iter().map(|value| Some((value, dim.span))));
                }
                let factors = match &dim.kind {
                    ExprKind::Group(members) => Some(self.dims(scope, members)?),
                    _ => None,
                };
                lengths.push((known.len() - before, factors));
            }
        }
        self.equation_of(scope, (name, places), value, shape.map(|shape| shape.span), (known, lengths))
    }

    /// [`Self::equation`] with an output of these dims, if any are given.
    pub(crate) fn equation_over(
        &mut self,
        scope: &mut Scope,
        name: &ast::Ident,
        places: &[ast::Place],
        value: &Expr,
        dims: &[Dim],
    ) -> Outcome<ValueId> {
        let known = dims.iter().map(|dim| Some((dim.clone(), name.span))).collect();
        let declared = (!dims.is_empty()).then_some(name.span);
        self.equation_of(scope, (name, places), value, declared, (known, Vec::new()))
    }

    fn equation_of(
        &mut self,
        scope: &mut Scope,
        (name, places): (&ast::Ident, &[ast::Place]),
        value: &Expr,
        declared: Option<Span>,
        (known, lengths): Declared,
    ) -> Outcome<ValueId> {
        let plan = self.places(scope, places, (&known, &lengths), value)?;
        let mut table = Indices { plan, ..Indices::default() };
        let left = self.left_side(&mut table, scope, places)?;
        let count: usize = left.iter().map(|dim| dim.dims).sum();
        if let Some(shape) = declared
            && known.len() != count
        {
            let message = format!("`{}` has {count} indices and a shape of {}", name.name, known.len());
            return self.fail(Diagnostic::error("rank-mismatch", shape, message).label(name.span, "defined here"));
        }
        let value = self.right_side(&mut table, scope, &left, value, &known)?;
        let mut factors: Vec<Factors> = left.iter().flat_map(|dim| dim.factors(&table.vars)).collect();
        let declared: Vec<_> = lengths.into_iter().flat_map(|(length, factors)| vec![factors; length]).collect();
        self.agree_on_factors(&factors, &declared, name.span)?;
        factors.iter_mut().zip(declared).for_each(|(made, declared)| *made = made.take().or(declared));
        scope.bind(name, Meaning::Tensor(value));
        scope.divide(&name.name, factors);
        Ok(value)
    }

    /// Proves that dims that are made of as many ranges as is said are made of these ranges.
    pub(crate) fn agree_on_factors(&mut self, made: &[Factors], said: &[Factors], span: Span) -> Outcome<()> {
        for (made, said) in made.iter().zip(said) {
            let (Some(made), Some(said)) = (made, said) else { continue };
            if made.len() == said.len() {
                for (made, said) in made.iter().zip(said) {
                    self.agree_on_dim(made, said, span, span)?;
                }
            }
        }
        Ok(())
    }

    /// An equation's value over its left side; `known` gives ranges by dim, as far as they are known.
    fn right_side(
        &mut self,
        table: &mut Indices,
        scope: &mut Scope,
        left: &[LeftDim],
        value: &Expr,
        known: &[Known],
    ) -> Outcome<ValueId> {
        let mut place = 0;
        for dim in left {
            let ranges = known.get(place..place + dim.dims).unwrap_or_default();
            place += dim.dims;
            let ranges: Option<Vec<(Dim, Span)>> = ranges.iter().cloned().collect();
            let is_plain = !dim.group && dim.affine.is_none();
            let Some(ranges) = ranges.filter(|ranges| is_plain && ranges.len() == dim.dims) else { continue };
            let Some((_, span)) = ranges.first().cloned() else { continue };
            let dims: Vec<Dim> = ranges.into_iter().map(|(dim, _)| dim).collect();
            let var = &mut table.vars[dim.vars[0]];
            var.extent = Some((Dim::product(&dims), span));
            var.dims = (dim.dims != 1).then_some(dims);
        }
        let node = self.elaborate(table, scope, value)?;
        // What the right side leaves open, the declared dims of groups may give.
        for seen in &table.visible {
            for (entry, var) in seen.vars.iter().enumerate().filter(|_| !known.is_empty() && !seen.whole) {
                if table.vars[*var].extent.is_none()
                    && let Some(range) = table.plan.extents.get(&(seen.binder, entry))
                {
                    table.vars[*var].extent = Some((range.clone(), seen.binder));
                }
            }
        }
        let mut complete = true;
        for index in &table.vars {
            if index.extent.is_none() {
                complete = false;
                let message = format!("nothing gives the range of the index `{}`", index.name);
                self.diagnostics.push(
                    Diagnostic::error("unbound-index", index.span, message)
                        .hint("use it as a plain index of a tensor, or declare the output's shape"),
                );
            }
        }
        if !complete {
            return Err(Reported);
        }
        // An index of a group with one place that nothing is read at makes no dim.
        let is_placed = left.iter().any(|dim| dim.affine.is_some());
        let is_idle = |var: &Var| {
            !is_placed && lowering::extent(&table.vars, *var).as_const() == Some(1) && !node.free.contains(var)
        };
        let axes = left.iter().flat_map(|dim| dim.vars.iter().copied().filter(|var| !dim.group || !is_idle(var)));
        let axes: Vec<Var> = axes.collect();
        let before = self.graph.len();
        let mut result = self.lower(&table.vars, &node, &axes)?;
        if is_placed {
            let is_new = result.0 as usize >= before;
            result = self.placed(table, scope, (left, known), &axes, (result, is_new), value.span)?;
        }
        self.joined(table, left, known, result, value.span)
    }

    /// An expression with reads or reductions but no index of its own: a tensor without dims, or a list's item.
    pub(crate) fn point(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<Meaning> {
        if let ExprKind::Index { base, indices } = &expr.kind
            && let Some(item) = self.list_item(scope, base, indices)?
        {
            return Ok(item);
        }
        let plan = self.places(scope, &[], (&[], &[]), expr)?;
        let mut table = Indices { plan, ..Indices::default() };
        self.right_side(&mut table, scope, &[], expr, &[]).map(Meaning::Tensor)
    }

    /// `items[2]` of a list.
    fn list_item(&mut self, scope: &mut Scope, base: &Expr, indices: &[Expr]) -> Outcome<Option<Meaning>> {
        let ExprKind::Name(name) = &base.kind else { return Ok(None) };
        let Some(Meaning::List(items)) = scope.names.get(name).cloned() else { return Ok(None) };
        let [index] = indices else { return Ok(None) };
        let position = self.expression(scope, index)?;
        let item = match &position {
            Meaning::Size(dim) => dim.as_const().and_then(|value| items.get(usize::try_from(value).ok()?)),
            _ => None,
        };
        match item {
            Some(item) => Ok(Some(item.clone())),
            None => {
                let message = format!("the list has {} items; this is {}", items.len(), self.describe(&position));
                self.refuse("index-out-of-range", index.span, message)
            }
        }
    }

    fn elaborate(&mut self, table: &mut Indices, scope: &mut Scope, expr: &Expr) -> Outcome<Node> {
        let span = expr.span;
        match &expr.kind {
            ExprKind::Index { base, indices } => self.read(table, scope, base, indices, None, span),
            ExprKind::Guard { read, otherwise } => {
                let guard = self.elaborate(table, scope, otherwise)?;
                match &read.kind {
                    ExprKind::Index { base, indices } => self.read(table, scope, base, indices, Some(guard), span),
                    _ => self.refuse("bad-guard", read.span, "`else` guards a read such as `x[i - 1]`"),
                }
            }
            ExprKind::Reduce { op, indices, body } => self.reduce(table, scope, op, indices, body, span),
            ExprKind::Name(name) if table.find(name).is_some() => self.index_named(table, name, false, span),
            ExprKind::Each(inner) => match inner.as_name() {
                Some(name) if table.find(name).is_some() => self.index_named(table, name, true, span),
                _ => self.entry(table, scope, inner, span),
            },
            ExprKind::Group(_) => self.refuse(
                "misplaced-group",
                span,
                "`(a b)` stands for a dim of a tensor or of a shape, and this is neither",
            ),
            ExprKind::Call { callee, arguments } if is_uniform(callee, arguments) => {
                let free = table.all();
                Ok(Node { kind: NodeKind::Uniform, span, free })
            }
            ExprKind::Unary(op, operand) if depends(expr, table) => {
                let operand = self.elaborate(table, scope, operand)?;
                self.prefix_node(*op, operand, span)
            }
            ExprKind::Binary(op, a, b) if depends(expr, table) => self.infix_node(table, scope, *op, (a, b), span),
            ExprKind::Conditional { then, condition, otherwise } if depends(expr, table) => {
                let condition = self.elaborate(table, scope, condition)?;
                if let NodeKind::Static(Meaning::Flag(flag)) = condition.kind {
                    return self.elaborate(table, scope, if flag { then } else { otherwise });
                }
                let then = self.elaborate(table, scope, then)?;
                let otherwise = self.elaborate(table, scope, otherwise)?;
                let free = union([&condition, &then, &otherwise]);
                let kind = NodeKind::Select(Box::new(condition), Box::new(then), Box::new(otherwise));
                Ok(Node { kind, span, free })
            }
            ExprKind::Call { callee, arguments } if depends(expr, table) => {
                self.call_node(table, scope, callee, arguments, span)
            }
            ExprKind::Name(name) => {
                let reported = self.diagnostics.len();
                let node = self.value_node(scope, expr);
                if let Some(last) = self.diagnostics.get_mut(reported).filter(|last| last.code == "unknown-name") {
                    explain_unbound(last, name);
                }
                node
            }
            ExprKind::Number { .. } | ExprKind::Text(_) | ExprKind::Bool(_) => self.value_node(scope, expr),
            ExprKind::Unary(..) | ExprKind::Binary(..) | ExprKind::Conditional { .. } | ExprKind::Call { .. } => {
                self.value_node(scope, expr)
            }
            ExprKind::Field { .. } => self.value_node(scope, expr),
            ExprKind::List(_) | ExprKind::Pipeline { .. } | ExprKind::Residual(_) | ExprKind::Repeat { .. } => {
                if depends(expr, table) {
                    let message = "this has no value at an index";
                    return self
                        .fail(Diagnostic::error("type-mismatch", span, message).hint("bind it to a name first"));
                }
                self.value_node(scope, expr)
            }
        }
    }

    /// A part without indices: evaluated as it stands.
    fn value_node(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<Node> {
        match self.expression(scope, expr)? {
            Meaning::Tensor(id) => {
                let rank = self.graph.shape(id).len();
                if rank > 0 {
                    let message = format!("{} has no index here", self.describe(&Meaning::Tensor(id)));
                    let hint = format!("inside an equation every tensor is read at its {rank} indices");
                    return self.fail(Diagnostic::error("missing-index", expr.span, message).hint(hint));
                }
                let kind = NodeKind::Read { tensor: id, subscripts: Vec::new(), guard: None };
                Ok(Node { kind, span: expr.span, free: Vec::new() })
            }
            value @ (Meaning::Size(_)
            | Meaning::Number(_)
            | Meaning::Scalar(_)
            | Meaning::Flag(_)
            | Meaning::Text(_)) => Ok(Node::fixed(value, expr.span)),
            other @ (Meaning::List(_) | Meaning::Tuple(_) | Meaning::Stage(_)) => {
                let message = format!("{} cannot stand in an equation", self.describe(&other));
                self.refuse("type-mismatch", expr.span, message)
            }
        }
    }

    fn reduce(
        &mut self,
        table: &mut Indices,
        scope: &mut Scope,
        op: &ast::Ident,
        indices: &[ast::Bound],
        body: &Expr,
        span: Span,
    ) -> Outcome<Node> {
        let Some(reduction) = Reduction::named(&op.name) else {
            return self.refuse("unknown-name", op.span, format!("`{}` is not a reduction", op.name));
        };
        if reduction.keeps_indices() {
            let mut vars = Vec::new();
            for ast::Bound { name, each } in indices {
                let Some(seen) = table.find(&name.name) else {
                    let message =
                        format!("`{}` normalises over an index of the left side; `{}` is not one", op.name, name.name);
                    return self.refuse("unbound-index", name.span, message);
                };
                if seen.each != *each {
                    let (written, meant) = if seen.each { ("", "..") } else { ("..", "") };
                    let message = format!("`{}{written}` is bound as `{}{meant}`", name.name, name.name);
                    let diagnostic = Diagnostic::error("bad-pack", name.span, message).label(seen.binder, "bound here");
                    return self.fail(diagnostic);
                }
                vars.extend(&seen.vars);
            }
            let body = self.elaborate(table, scope, body)?;
            let mut free = body.free.clone();
            free.extend(&vars);
            free.sort_unstable();
            free.dedup();
            return Ok(Node { kind: NodeKind::Reduce(reduction, vars, Box::new(body)), span, free });
        }
        let outside = table.visible.len();
        for (position, ast::Bound { name: index, .. }) in indices.iter().enumerate() {
            let again = indices[..position].iter().find(|other| other.name.name == index.name);
            let outer = table.find(&index.name).map(|seen| seen.binder);
            if let Some(first) = again.map(|other| other.name.span).or(outer) {
                let message = format!("`{}` is an index already", index.name);
                return self.fail(Diagnostic::error("duplicate-index", index.span, message).label(first, "first here"));
            }
        }
        let vars: Vec<Var> = indices.iter().flat_map(|index| table.open(index)).collect();
        let body = self.elaborate(table, scope, body);
        table.visible.truncate(outside);
        let body = body?;
        let free = body.free.iter().copied().filter(|var| !vars.contains(var)).collect();
        Ok(Node { kind: NodeKind::Reduce(reduction, vars, Box::new(body)), span, free })
    }

    fn prefix_node(&mut self, op: UnaryOp, operand: Node, span: Span) -> Outcome<Node> {
        if let NodeKind::Static(value) = &operand.kind {
            return Ok(Node::fixed(self.prefix(op, value, span)?, span));
        }
        if let (UnaryOp::Neg, NodeKind::Index(affine)) = (op, &operand.kind)
            && let Some(negated) = affine.scale(&Dim::constant(-1))
        {
            return Ok(Node::index(negated, span));
        }
        let free = operand.free.clone();
        Ok(Node { kind: NodeKind::Prefix(op, Box::new(operand)), span, free })
    }

    fn infix_node(
        &mut self,
        table: &mut Indices,
        scope: &mut Scope,
        op: BinaryOp,
        sides: (&Expr, &Expr),
        span: Span,
    ) -> Outcome<Node> {
        let a = self.elaborate(table, scope, sides.0)?;
        let flag = |node: &Node| match node.kind {
            NodeKind::Static(Meaning::Flag(flag)) => Some(flag),
            _ => None,
        };
        match (op, flag(&a)) {
            (BinaryOp::And, Some(false)) | (BinaryOp::Or, Some(true)) => return Ok(a),
            (BinaryOp::And | BinaryOp::Or, Some(_)) => return self.elaborate(table, scope, sides.1),
            _ => {}
        }
        let b = self.elaborate(table, scope, sides.1)?;
        let divides_literal = op == BinaryOp::Div && is_literal(sides.0);
        match (op, flag(&b)) {
            (BinaryOp::And, Some(false)) | (BinaryOp::Or, Some(true)) => return Ok(b),
            (BinaryOp::And | BinaryOp::Or, Some(_)) => return Ok(a),
            _ => {}
        }
        if let (NodeKind::Static(x), NodeKind::Static(y)) = (&a.kind, &b.kind) {
            let result = match divides_literal {
                true => self.literal_quotient(x, y, (a.span, b.span), span)?,
                false => self.infix(op, (x, a.span), (y, b.span), span)?,
            };
            match result {
                Meaning::Tensor(tensor) => {
                    let kind = NodeKind::Read { tensor, subscripts: Vec::new(), guard: None };
                    return Ok(Node { kind, span, free: Vec::new() });
                }
                value => return Ok(Node::fixed(value, span)),
            }
        }
        if let (Some(x), Some(y)) = (a.as_affine(), b.as_affine()) {
            let affine = match op {
                BinaryOp::Add => x.combine(&y, 1),
                BinaryOp::Sub => x.combine(&y, -1),
                BinaryOp::Mul if y.terms.is_empty() => x.scale(&y.offset),
                BinaryOp::Mul if x.terms.is_empty() => y.scale(&x.offset),
                _ => None,
            };
            if let Some(affine) = affine {
                if affine.offset.is_overflow() {
                    return self.refuse("size-overflow", span, "this index is too large");
                }
                return Ok(Node::index(affine, span));
            }
        }
        let a = match &a.kind {
            NodeKind::Static(value) if divides_literal && let Some(number) = as_number(value) => {
                Node::fixed(Meaning::Number(number), a.span)
            }
            _ => a,
        };
        let free = union([&a, &b]);
        Ok(Node { kind: NodeKind::Infix(op, Box::new(a), Box::new(b)), span, free })
    }

    fn call_node(
        &mut self,
        table: &mut Indices,
        scope: &mut Scope,
        callee: &Expr,
        arguments: &[ast::Argument],
        span: Span,
    ) -> Outcome<Node> {
        let callee = match self.expression(scope, callee)? {
            Meaning::Stage(stage) => stage,
            other => {
                return self.refuse(
                    "type-mismatch",
                    callee.span,
                    format!("{} cannot be called", self.describe(&other)),
                );
            }
        };
        let mut nodes = Vec::new();
        for argument in arguments {
            nodes.push((argument.name.clone(), self.elaborate(table, scope, &argument.value)?));
        }
        let free = union(nodes.iter().map(|(_, node)| node));
        Ok(Node { kind: NodeKind::Call { callee, arguments: nodes }, span, free })
    }
}

/// True where the expression reads an index of the table, or reads or reduces tensors by indices of its own.
fn depends(expr: &Expr, table: &Indices) -> bool {
    match &expr.kind {
        ExprKind::Name(name) => table.find(name).is_some(),
        ExprKind::Index { .. } | ExprKind::Guard { .. } | ExprKind::Reduce { .. } => true,
        ExprKind::Each(_) | ExprKind::Group(_) => true,
        ExprKind::Call { callee, arguments } => {
            is_uniform(callee, arguments) || arguments.iter().any(|argument| depends(&argument.value, table))
        }
        _ => expr.parts().into_iter().any(|part| depends(part, table)),
    }
}

/// A short lower-case name in an equation is more likely an index than a misspelled value.
fn explain_unbound(diagnostic: &mut Diagnostic, name: &str) {
    if name.len() > 2 || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return;
    }
    diagnostic.code = "unbound-index";
    diagnostic.message = format!("the index `{name}` is neither on the left nor named by a reduction");
    diagnostic.hints = vec![format!("to sum over it, write `sum[{name}]` before the product")];
    diagnostic.fixes.clear();
}

fn is_uniform(callee: &Expr, arguments: &[ast::Argument]) -> bool {
    arguments.is_empty() && callee.as_name() == Some("uniform")
}
