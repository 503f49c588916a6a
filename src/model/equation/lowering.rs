//! Resolved equations to graph values.
//!
//! Input: a [`Node`] and the ranges of all indices. Output: tensors with one dim per index, in an order the caller
//! names. Invariant: a read that is a plain permutation in order is the tensor itself; any other affine read is one
//! contraction with one operand; every value carries the span of its part of the equation.

use super::node::{AffineIndex, Index, Node, NodeKind, Reduction, Subscript, Var, union};
use crate::diagnostics::Diagnostic;
use crate::dim::{Dim, Verdict};
use crate::graph::print::shape_text;
use crate::graph::{Affine, Binary, Compare, Contract, DType, Indirect, IndirectIndex, ValueId};
use crate::model::expander::{Expander, Given, Meaning, Outcome, Stage};
use crate::model::expression::{as_number, number_type};
use crate::source::Span;
use crate::syntax::ast::{self, BinaryOp};
use std::rc::Rc;

/// The extent of an index; all are known when lowering starts.
pub(super) fn extent(vars: &[Index], var: Var) -> &Dim {
    &vars[var].extent.as_ref().expect("every index has a range before lowering").0
}

/// The shape over these indices.
pub(super) fn shape_over(vars: &[Index], axes: &[Var]) -> Vec<Dim> {
    axes.iter().map(|var| extent(vars, *var).clone()).collect()
}

/// The position of each index of `affine` in a domain over `axes`.
pub(super) fn affine_over(affine: &AffineIndex, axes: &[Var]) -> Affine {
    let place = |var: Var| axes.iter().position(|axis| *axis == var).expect("the domain holds every index of a read");
    let mut terms: Vec<(usize, i64)> = affine.terms.iter().map(|(var, c)| (place(*var), *c)).collect();
    terms.sort_unstable();
    Affine { terms, offset: affine.offset.clone() }
}

fn same_set(a: &[Var], b: &[Var]) -> bool {
    a.len() == b.len() && a.iter().all(|var| b.contains(var))
}

/// The order of indices in which a node is cheapest to have.
pub(super) fn natural(node: &Node) -> Vec<Var> {
    match &node.kind {
        NodeKind::Static(_) | NodeKind::Index(_) | NodeKind::Uniform => node.free.clone(),
        NodeKind::Read { subscripts, .. } => {
            let plain: Option<Vec<Var>> = subscripts
                .iter()
                .map(|subscript| match subscript {
                    Subscript::Affine(affine, _) => affine.plain(),
                    Subscript::Value(_) => None,
                })
                .collect();
            plain.filter(|order| same_set(order, &node.free)).unwrap_or_else(|| node.free.clone())
        }
        NodeKind::Prefix(_, operand) => natural(operand),
        NodeKind::Infix(_, a, b) => natural_of([a.as_ref(), b.as_ref()]),
        NodeKind::Select(a, b, c) => natural_of([b.as_ref(), c.as_ref(), a.as_ref()]),
        NodeKind::Call { arguments, .. } => natural_of(arguments.iter().map(|(_, node)| node)),
        NodeKind::Reduce(Reduction::Sum | Reduction::Mean, _, _) => node.free.clone(),
        NodeKind::Reduce(_, vars, body) => {
            let order: Vec<Var> = natural(body).into_iter().filter(|var| node.free.contains(var)).collect();
            let missing = vars.iter().filter(|var| node.free.contains(var) && !order.contains(var)).copied();
            let missing: Vec<Var> = missing.collect();
            order.into_iter().chain(missing).collect()
        }
    }
}

/// The order of the part that has all indices, else sorted.
fn natural_of<'n>(parts: impl IntoIterator<Item = &'n Node>) -> Vec<Var> {
    let parts: Vec<&Node> = parts.into_iter().collect();
    let all = union(parts.iter().copied());
    let widest = parts.iter().find(|part| part.free.len() == all.len() && !matches!(part.kind, NodeKind::Index(_)));
    widest.map_or(all, |part| natural(part))
}

impl Expander<'_> {
    /// The node as a tensor over `axes`, which hold every index that it depends on.
    pub(super) fn lower(&mut self, vars: &[Index], node: &Node, axes: &[Var]) -> Outcome<ValueId> {
        match &node.kind {
            NodeKind::Static(value) => {
                let dtype = static_type(value);
                return self.as_tensor(value, dtype, &shape_over(vars, axes), node.span);
            }
            NodeKind::Index(affine) => return self.lower_index(vars, affine, axes, node.span),
            NodeKind::Read { tensor, subscripts, guard } => {
                return self.lower_read(vars, *tensor, subscripts, guard.as_deref(), axes, node.span);
            }
            _ => {}
        }
        if !same_set(&node.free, axes) {
            let order = natural(node);
            let value = self.lower(vars, node, &order)?;
            return Ok(self.align(vars, value, &order, axes, node.span));
        }
        match &node.kind {
            NodeKind::Prefix(op, operand) => {
                let operand = self.lower(vars, operand, axes)?;
                match self.prefix(*op, &Meaning::Tensor(operand), node.span)? {
                    Meaning::Tensor(id) => Ok(id),
                    _ => unreachable!("an operator on a tensor gives a tensor"),
                }
            }
            NodeKind::Infix(op, a, b) => {
                if let (BinaryOp::Pow, NodeKind::Static(exponent)) = (op, &b.kind)
                    && let Some(exponent) = as_number(exponent)
                {
                    let base = self.lower(vars, a, axes)?;
                    return self.power(base, exponent, node.span);
                }
                let (a, b) = self.lower_pair(vars, a, b, axes)?;
                self.elementwise(*op, a, b, node.span)
            }
            NodeKind::Select(condition, then, otherwise) => {
                let mask = match &condition.kind {
                    NodeKind::Static(value) => {
                        let mask = self.mask(value, condition.span)?;
                        self.repeated(mask, &shape_over(vars, axes), condition.span)
                    }
                    _ => {
                        let value = self.lower(vars, condition, axes)?;
                        self.mask(&Meaning::Tensor(value), condition.span)?
                    }
                };
                let (a, b) = self.lower_pair(vars, then, otherwise, axes)?;
                Ok(self.select(mask, a, b, node.span))
            }
            NodeKind::Reduce(reduction, reduced, body) => {
                self.lower_reduction(vars, *reduction, reduced, body, axes, node.span)
            }
            NodeKind::Call { callee, arguments } => self.lower_call(vars, callee, arguments, axes, node.span),
            NodeKind::Uniform => Ok(self.draw(&shape_over(vars, axes), node.span)),
            NodeKind::Static(_) | NodeKind::Index(_) | NodeKind::Read { .. } => unreachable!("handled above"),
        }
    }

    /// Two operands; a number takes the type of the other where it can.
    fn lower_pair(&mut self, vars: &[Index], a: &Node, b: &Node, axes: &[Var]) -> Outcome<(ValueId, ValueId)> {
        let shape = shape_over(vars, axes);
        match (&a.kind, &b.kind) {
            (NodeKind::Static(value), _) => {
                let right = self.lower(vars, b, axes)?;
                let dtype = number_type(value, self.graph.value(right).dtype);
                Ok((self.as_tensor(value, dtype, &shape, a.span)?, right))
            }
            (_, NodeKind::Static(value)) => {
                let left = self.lower(vars, a, axes)?;
                let dtype = number_type(value, self.graph.value(left).dtype);
                Ok((left, self.as_tensor(value, dtype, &shape, b.span)?))
            }
            _ => Ok((self.lower(vars, a, axes)?, self.lower(vars, b, axes)?)),
        }
    }

    /// The same elements with the dims of `from` at their places in `to`, repeated over the others.
    pub(super) fn align(&mut self, vars: &[Index], value: ValueId, from: &[Var], to: &[Var], span: Span) -> ValueId {
        if from == to {
            return value;
        }
        let domain = shape_over(vars, to);
        let read = |var: &Var| {
            let axis = to.iter().position(|axis| axis == var).expect("the target holds every index of the source");
            Affine::index(axis)
        };
        let operand = from.iter().map(read).collect();
        let output = (0..to.len()).map(Affine::index).collect();
        let contract = Contract { domain: domain.clone(), operands: vec![operand], output };
        self.graph.contract(contract, &[value], &domain, span)
    }

    /// An affine function of indices as an I32 tensor.
    fn lower_index(&mut self, vars: &[Index], affine: &AffineIndex, axes: &[Var], span: Span) -> Outcome<ValueId> {
        let shape = shape_over(vars, axes);
        let mut sum: Option<ValueId> = None;
        for (var, coefficient) in &affine.terms {
            let axis = axes.iter().position(|axis| axis == var).expect("the domain holds every index");
            let mut term = self.graph.index(axis, &shape, span);
            if *coefficient != 1 {
                let factor = self.graph.constant(*coefficient as f64, &shape, DType::I32, span);
                term = self.graph.binary(Binary::Mul, term, factor, span);
            }
            sum = Some(match sum {
                Some(sum) => self.graph.binary(Binary::Add, sum, term, span),
                None => term,
            });
        }
        let offset = Meaning::Size(affine.offset.clone());
        match sum {
            Some(sum) if affine.offset.as_const() == Some(0) => Ok(sum),
            Some(sum) => {
                let offset = self.as_tensor(&offset, DType::I32, &shape, span)?;
                Ok(self.graph.binary(Binary::Add, sum, offset, span))
            }
            None => self.as_tensor(&offset, DType::I32, &shape, span),
        }
    }

    fn lower_read(
        &mut self,
        vars: &[Index],
        tensor: ValueId,
        subscripts: &[Subscript],
        guard: Option<&Node>,
        axes: &[Var],
        span: Span,
    ) -> Outcome<ValueId> {
        let affine: Option<Vec<&AffineIndex>> = subscripts
            .iter()
            .map(|subscript| match subscript {
                Subscript::Affine(affine, _) => Some(affine),
                Subscript::Value(_) => None,
            })
            .collect();
        if guard.is_none() {
            self.check_reads(vars, tensor, subscripts)?;
        }
        let shape = shape_over(vars, axes);
        let inside = match affine {
            Some(affine) => {
                let plain: Vec<Option<Var>> = affine.iter().map(|affine| affine.plain()).collect();
                let identical =
                    plain.len() == axes.len() && plain.iter().zip(axes).all(|(var, axis)| *var == Some(*axis));
                if identical && self.graph.shape(tensor) == shape {
                    return Ok(tensor);
                }
                let operand = affine.into_iter().map(|affine| affine_over(affine, axes)).collect();
                let output = (0..axes.len()).map(Affine::index).collect();
                let contract = Contract { domain: shape.clone(), operands: vec![operand], output };
                self.graph.contract(contract, &[tensor], &shape, span)
            }
            None => self.lower_gather(vars, tensor, subscripts, (axes, guard.is_some()), span)?,
        };
        let Some(guard) = guard else { return Ok(inside) };
        if matches!(&guard.kind, NodeKind::Static(value) if as_number(value) == Some(0.0)) {
            return Ok(inside);
        }
        let Some(mask) = self.in_range(vars, tensor, subscripts, axes, span)? else { return Ok(inside) };
        let otherwise = match &guard.kind {
            NodeKind::Static(value) => {
                let dtype = number_type(value, self.graph.value(inside).dtype);
                self.as_tensor(value, dtype, &shape, guard.span)?
            }
            _ => self.lower(vars, guard, axes)?,
        };
        Ok(self.select(mask, inside, otherwise, span))
    }

    fn lower_gather(
        &mut self,
        vars: &[Index],
        tensor: ValueId,
        subscripts: &[Subscript],
        (axes, guarded): (&[Var], bool),
        span: Span,
    ) -> Outcome<ValueId> {
        let mut arguments = vec![tensor];
        let (mut index, mut values) = (Vec::new(), Vec::new());
        for (axis, subscript) in subscripts.iter().enumerate() {
            index.push(match subscript {
                Subscript::Affine(affine, _) => IndirectIndex::Affine(affine_over(affine, axes)),
                Subscript::Value(node) => {
                    let order = natural(node);
                    let value = self.lower(vars, node, &order)?;
                    if self.graph.value(value).dtype != DType::I32 {
                        let message = format!(
                            "an index is an integer, found floats of shape {}",
                            shape_text(self.graph.shape(value))
                        );
                        return self.refuse("type-mismatch", node.span, message);
                    }
                    arguments.push(value);
                    values.push((value, axis, node.span));
                    let plain = |var: &Var| AffineIndex { terms: vec![(*var, 1)], offset: Dim::constant(0) };
                    let access = order.iter().map(|var| affine_over(&plain(var), axes)).collect();
                    IndirectIndex::Tensor { arg: arguments.len() - 1, access }
                }
            });
        }
        let indirect = Indirect { domain: shape_over(vars, axes), index };
        let gathered = self.graph.gather(indirect, &arguments, span);
        if !guarded {
            for (value, axis, place) in values {
                let extent = self.graph.shape(tensor)[axis].clone();
                self.demand_index(value, &extent, gathered, place)?;
            }
        }
        Ok(gathered)
    }

    /// The least and the largest value of an affine index.
    fn bounds(vars: &[Index], affine: &AffineIndex) -> (Dim, Dim) {
        let (mut low, mut high) = (affine.offset.clone(), affine.offset.clone());
        for (var, coefficient) in &affine.terms {
            let reach = Dim::constant(*coefficient) * (extent(vars, *var) - Dim::constant(1));
            if *coefficient < 0 {
                low = low + reach;
            } else {
                high = high + reach;
            }
        }
        (low, high)
    }

    /// Reports affine reads that are not provably in range.
    pub(super) fn check_reads(&mut self, vars: &[Index], tensor: ValueId, subscripts: &[Subscript]) -> Outcome<()> {
        let dims = self.graph.shape(tensor).to_vec();
        for (subscript, dim) in subscripts.iter().zip(&dims) {
            let Subscript::Affine(affine, span) = subscript else { continue };
            if affine.plain().is_none() {
                self.check_range(vars, affine, dim, *span, Some("guard the read: `x[…] else 0`"))?;
            }
        }
        Ok(())
    }

    /// Reports an affine index that is not provably in the range of a dim.
    pub(super) fn check_range(
        &mut self,
        vars: &[Index],
        affine: &AffineIndex,
        dim: &Dim,
        span: Span,
        hint: Option<&str>,
    ) -> Outcome<()> {
        let (low, high) = Self::bounds(vars, affine);
        let last = dim - Dim::constant(1);
        let below = self.facts.prove_ge(&low, &Dim::constant(0));
        let above = self.facts.prove_ge(&last, &high);
        for (verdict, reach, end) in [(below, &low, "starts"), (above, &high, "ends")] {
            if verdict.is_proved() {
                continue;
            }
            let message = match &verdict {
                Verdict::Undecided => format!("cannot prove that this index stays within 0..{dim}"),
                Verdict::Refuted(_) | Verdict::Proved => format!("this index leaves the range 0..{dim}"),
            };
            let mut diagnostic = Diagnostic::error("index-out-of-range", span, message).at(format!("{end} at {reach}"));
            if let Some(hint) = hint {
                diagnostic = diagnostic.hint(hint);
            }
            if let Some(example) = verdict.counterexample() {
                diagnostic = diagnostic.hint(format!("it fails at {example}"));
            }
            return self.fail(diagnostic);
        }
        Ok(())
    }

    /// Where all subscripts are in range; none where that is everywhere.
    fn in_range(
        &mut self,
        vars: &[Index],
        tensor: ValueId,
        subscripts: &[Subscript],
        axes: &[Var],
        span: Span,
    ) -> Outcome<Option<ValueId>> {
        let dims = self.graph.shape(tensor).to_vec();
        let shape = shape_over(vars, axes);
        let mut mask: Option<ValueId> = None;
        for (subscript, dim) in subscripts.iter().zip(&dims) {
            let (index, needs_low, needs_high) = match subscript {
                Subscript::Affine(affine, _) if affine.plain().is_some() => continue,
                Subscript::Affine(affine, place) => {
                    let (low, high) = Self::bounds(vars, affine);
                    let needs_low = !self.facts.prove_ge(&low, &Dim::constant(0)).is_proved();
                    let needs_high = !self.facts.prove(Compare::Gt, dim, &high).is_proved();
                    (self.lower_index(vars, affine, axes, *place)?, needs_low, needs_high)
                }
                Subscript::Value(node) => (self.lower(vars, node, axes)?, true, true),
            };
            let zero = Meaning::Size(Dim::constant(0));
            let bounds = [(needs_low, Compare::Ge, zero), (needs_high, Compare::Lt, Meaning::Size(dim.clone()))];
            for (needed, compare, bound) in bounds {
                if !needed {
                    continue;
                }
                let bound = self.as_tensor(&bound, DType::I32, &shape, span)?;
                let test = self.graph.compare(compare, index, bound, span);
                mask = Some(match mask {
                    Some(mask) => self.graph.binary(Binary::And, mask, test, span),
                    None => test,
                });
            }
        }
        Ok(mask)
    }

    fn lower_call(
        &mut self,
        vars: &[Index],
        callee: &Rc<Stage>,
        arguments: &[(Option<ast::Ident>, Node)],
        axes: &[Var],
        span: Span,
    ) -> Outcome<ValueId> {
        let mut given = Vec::new();
        for (name, node) in arguments {
            let value = match &node.kind {
                NodeKind::Static(value) => value.clone(),
                _ if node.free.is_empty() => Meaning::Tensor(self.lower(vars, node, &[])?),
                _ => Meaning::Tensor(self.lower(vars, node, axes)?),
            };
            given.push(Given { name: name.clone(), value, span: node.span });
        }
        let shape = shape_over(vars, axes);
        match self.apply(callee, given, span)? {
            Meaning::Tensor(id) if self.graph.shape(id) == shape => Ok(id),
            Meaning::Tensor(id) if self.graph.shape(id).is_empty() => Ok(self.repeated(id, &shape, span)),
            value @ (Meaning::Number(_) | Meaning::Size(_) | Meaning::Scalar(_) | Meaning::Flag(_)) => {
                self.as_tensor(&value, static_type(&value), &shape, span)
            }
            other => {
                let message = format!(
                    "in an equation a function is applied to each element: expected {}, found {}",
                    shape_text(&shape),
                    self.describe(&other)
                );
                self.refuse("shape-mismatch", span, message)
            }
        }
    }
}

/// The type of a static value that nothing else decides.
fn static_type(value: &Meaning) -> DType {
    match value {
        Meaning::Size(_) => DType::I32,
        Meaning::Flag(_) => DType::Bool,
        _ => DType::F32,
    }
}
