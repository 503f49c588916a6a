//! Reductions of equations: products into contractions, softmax into core operations.
//!
//! Input: a reduction's body and the ranges of all indices. Output: graph values.
//! Invariant: a sum over a product of two affine reads is one contraction of the two tensors as they are; numbers and
//! factors that do not depend on a summed index are applied after it; more factors are contracted pair by pair.

use super::lowering::{affine_over, extent, natural, shape_over};
use super::node::{AffineIndex, Index, Node, NodeKind, Reduction, Subscript, Var};
use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::{Affine, Binary, Contract, DType, Op, Unary, ValueId};
use crate::model::expander::{Expander, Meaning, Outcome};
use crate::model::expression::as_number;
use crate::source::Span;
use crate::syntax::ast::{BinaryOp, UnaryOp};

/// How many factors `prod` multiplies one by one.
const MAX_PRODUCT: i64 = 64;

/// A tensor factor of a sum: read at affine indices.
struct Factor {
    value: ValueId,
    access: Vec<AffineIndex>,
}

impl Factor {
    fn over(value: ValueId, axes: &[Var]) -> Self {
        let plain = |var: &Var| AffineIndex { terms: vec![(*var, 1)], offset: Dim::constant(0) };
        Factor { value, access: axes.iter().map(plain).collect() }
    }

    fn depends_on(&self, var: Var) -> bool {
        self.access.iter().any(|affine| affine.terms.iter().any(|term| term.0 == var))
    }
}

/// The indices that the factors read, sorted.
fn indices_of(factors: &[Factor]) -> Vec<Var> {
    let mut all: Vec<Var> =
        factors.iter().flat_map(|f| &f.access).flat_map(|a| a.terms.iter().map(|term| term.0)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A product taken apart: `sign · Π factors`, each possibly inverted.
fn flatten<'n>(
    node: &'n Node,
    inverted: bool,
    is_integer: &dyn Fn(&Node) -> bool,
    out: &mut Vec<(&'n Node, bool)>,
) -> bool {
    match &node.kind {
        NodeKind::Infix(BinaryOp::Mul, a, b) => {
            flatten(a, inverted, is_integer, out) != flatten(b, inverted, is_integer, out)
        }
        NodeKind::Infix(BinaryOp::Div, a, b) if !(is_integer(a) && is_integer(b)) => {
            flatten(a, inverted, is_integer, out) != flatten(b, !inverted, is_integer, out)
        }
        NodeKind::Prefix(UnaryOp::Neg, operand) => !flatten(operand, inverted, is_integer, out),
        _ => {
            out.push((node, inverted));
            false
        }
    }
}

impl Expander<'_> {
    /// A reduction as a tensor over `axes`, which are exactly the indices that it depends on.
    pub(super) fn lower_reduction(
        &mut self,
        vars: &[Index],
        reduction: Reduction,
        reduced: &[Var],
        body: &Node,
        axes: &[Var],
        span: Span,
    ) -> Outcome<ValueId> {
        match reduction {
            Reduction::Sum => self.lower_sum(vars, reduced, body, axes, false, span),
            Reduction::Mean => self.lower_sum(vars, reduced, body, axes, true, span),
            Reduction::Max | Reduction::Min | Reduction::ArgMax | Reduction::ArgMin => {
                self.lower_extreme(vars, reduction, reduced, body, axes, span)
            }
            Reduction::Prod => self.lower_product(vars, reduced, body, axes, span),
            Reduction::Softmax | Reduction::LogSoftmax | Reduction::LogSumExp => {
                self.lower_exponential(vars, reduction, reduced, body, axes, span)
            }
        }
    }

    fn lower_sum(
        &mut self,
        vars: &[Index],
        reduced: &[Var],
        body: &Node,
        axes: &[Var],
        mean: bool,
        span: Span,
    ) -> Outcome<ValueId> {
        let mut parts = Vec::new();
        let negative = flatten(body, false, &|node| self.is_integer(node), &mut parts);
        let mut scale = Meaning::Number(if negative { -1.0 } else { 1.0 });
        let (mut outer, mut factors) = (Vec::new(), Vec::new());
        for (node, inverted) in parts {
            if let NodeKind::Static(value) = &node.kind {
                let op = if inverted { BinaryOp::Div } else { BinaryOp::Mul };
                let real = if let Meaning::Flag(_) = value {
                    Meaning::Number(as_number(value).unwrap_or(0.0))
                } else {
                    value.clone()
                };
                scale = self.infix(op, (&scale, span), (&real, node.span), span)?;
            } else if !node.free.iter().any(|var| reduced.contains(var)) {
                outer.push((node, inverted));
            } else {
                factors.push(self.factor(vars, node, inverted)?);
            }
        }
        for var in reduced {
            let size = Meaning::Size(extent(vars, *var).clone());
            let summed = factors.iter().any(|factor| factor.depends_on(*var));
            if mean && summed {
                scale = self.infix(BinaryOp::Div, (&scale, span), (&size, span), span)?;
            } else if !mean && !summed {
                scale = self.infix(BinaryOp::Mul, (&scale, span), (&size, span), span)?;
            }
        }
        let (mut value, mut have) = self.contracted(vars, reduced, factors, axes, span);
        if as_number(&scale) != Some(1.0) {
            let shape = shape_over(vars, &have);
            let factor = self.as_tensor(&scale, DType::F32, &[], span)?;
            let factor = match scale {
                Meaning::Tensor(_) => self.repeated(factor, &shape, span),
                _ => self.as_tensor(&scale, DType::F32, &shape, span)?,
            };
            value = self.graph.binary(Binary::Mul, value, factor, span);
        }
        for (node, inverted) in outer {
            let op = if inverted { BinaryOp::Div } else { BinaryOp::Mul };
            value = self.align(vars, value, &have, axes, span);
            have = axes.to_vec();
            let factor = self.lower(vars, node, axes)?;
            value = self.elementwise(op, value, factor, span)?;
        }
        Ok(self.align(vars, value, &have, axes, span))
    }

    /// True for values of integer type, whose division rounds.
    fn is_integer(&self, node: &Node) -> bool {
        match &node.kind {
            NodeKind::Static(value) => matches!(value, Meaning::Size(_)),
            NodeKind::Index(_) => true,
            NodeKind::Read { tensor, .. } => self.graph.value(*tensor).dtype == DType::I32,
            NodeKind::Prefix(_, operand) => self.is_integer(operand),
            NodeKind::Infix(BinaryOp::Pow, _, _) => false,
            NodeKind::Infix(_, a, b) => self.is_integer(a) && self.is_integer(b),
            NodeKind::Select(_, a, b) => self.is_integer(a) && self.is_integer(b),
            NodeKind::Reduce(reduction, _, body) => match reduction {
                Reduction::ArgMax | Reduction::ArgMin => true,
                Reduction::Max | Reduction::Min => self.is_integer(body),
                Reduction::Sum | Reduction::Mean | Reduction::Prod => false,
                Reduction::LogSumExp | Reduction::Softmax | Reduction::LogSoftmax => false,
            },
            NodeKind::Call { .. } | NodeKind::Uniform => false,
        }
    }

    /// A factor as a read where it is one, else as a tensor of its own.
    fn factor(&mut self, vars: &[Index], node: &Node, inverted: bool) -> Outcome<Factor> {
        if let (NodeKind::Read { tensor, subscripts, guard }, false) = (&node.kind, inverted)
            && self.graph.value(*tensor).dtype == DType::F32
            && guard
                .as_ref()
                .is_none_or(|guard| matches!(&guard.kind, NodeKind::Static(v) if as_number(v) == Some(0.0)))
        {
            let access: Option<Vec<AffineIndex>> = subscripts
                .iter()
                .map(|subscript| match subscript {
                    Subscript::Affine(affine, _) => Some(affine.clone()),
                    Subscript::Value(_) => None,
                })
                .collect();
            if let Some(access) = access {
                if guard.is_none() {
                    self.check_reads(vars, *tensor, subscripts)?;
                }
                return Ok(Factor { value: *tensor, access });
            }
        }
        let order = natural(node);
        let value = self.lower(vars, node, &order)?;
        let mut value = self.graph.cast(value, DType::F32, node.span);
        if inverted {
            let one = self.graph.constant(1.0, &shape_over(vars, &order), DType::F32, node.span);
            value = self.graph.binary(Binary::Div, one, value, node.span);
        }
        Ok(Factor::over(value, &order))
    }

    /// `Σ_reduced Π factors` and the order of its indices: that of `axes`.
    fn contracted(
        &mut self,
        vars: &[Index],
        reduced: &[Var],
        mut factors: Vec<Factor>,
        axes: &[Var],
        span: Span,
    ) -> (ValueId, Vec<Var>) {
        while factors.len() > 2 {
            let (first, second) = cheapest_pair(&factors, reduced);
            let b = factors.remove(second);
            let a = factors.remove(first);
            let pair = [a, b];
            let needed = |var: &Var| !reduced.contains(var) || factors.iter().any(|factor| factor.depends_on(*var));
            let kept: Vec<Var> = indices_of(&pair).into_iter().filter(needed).collect();
            let value = self.contract_over(vars, &pair, &kept, span);
            factors.insert(0, Factor::over(value, &kept));
        }
        let all = indices_of(&factors);
        let kept: Vec<Var> = axes.iter().copied().filter(|var| all.contains(var)).collect();
        let value = if factors.is_empty() {
            self.graph.constant(1.0, &[], DType::F32, span)
        } else {
            self.contract_over(vars, &factors, &kept, span)
        };
        (value, kept)
    }

    /// One contraction of one or two factors onto `kept`; the other indices are summed.
    fn contract_over(&mut self, vars: &[Index], factors: &[Factor], kept: &[Var], span: Span) -> ValueId {
        let summed = indices_of(factors).into_iter().filter(|var| !kept.contains(var));
        let domain: Vec<Var> = kept.iter().copied().chain(summed).collect();
        let access = |factor: &Factor| factor.access.iter().map(|affine| affine_over(affine, &domain)).collect();
        let contract = Contract {
            domain: shape_over(vars, &domain),
            operands: factors.iter().map(access).collect(),
            output: (0..kept.len()).map(Affine::index).collect(),
        };
        let arguments: Vec<ValueId> = factors.iter().map(|factor| factor.value).collect();
        self.graph.contract(contract, &arguments, &shape_over(vars, kept), span)
    }

    fn lower_extreme(
        &mut self,
        vars: &[Index],
        reduction: Reduction,
        reduced: &[Var],
        body: &Node,
        axes: &[Var],
        span: Span,
    ) -> Outcome<ValueId> {
        let (order, kept, places) = reduction_order(body, reduced);
        let value = self.lower(vars, body, &order)?;
        let mut value = self.number_operand(value, span);
        if matches!(reduction, Reduction::Min | Reduction::ArgMin) {
            value = self.graph.unary(Unary::Neg, value, span);
        }
        value = match reduction {
            Reduction::ArgMax | Reduction::ArgMin => self.graph.arg_max(value, &places, span),
            _ => self.graph.reduce_max(value, &places, span),
        };
        if reduction == Reduction::Min {
            value = self.graph.unary(Unary::Neg, value, span);
        }
        Ok(self.align(vars, value, &kept, axes, span))
    }

    fn lower_exponential(
        &mut self,
        vars: &[Index],
        reduction: Reduction,
        reduced: &[Var],
        body: &Node,
        axes: &[Var],
        span: Span,
    ) -> Outcome<ValueId> {
        let (order, kept, places) = reduction_order(body, reduced);
        let value = self.lower(vars, body, &order)?;
        let value = self.graph.cast(value, DType::F32, span);
        if reduction == Reduction::LogSoftmax && self.copies_probabilities(value) {
            let message = "the logarithm of a softmax is taken of what is a softmax already";
            let hint = "leave out the softmax before the loss, which takes the values that flow into it";
            self.diagnostics.push(Diagnostic::warning("softmax-twice", span, message).hint(hint));
        }
        let maximum = self.graph.reduce_max(value, &places, span);
        let maximum = self.graph.detach(maximum, span);
        let spread = self.align(vars, maximum, &kept, &order, span);
        let shifted = self.graph.binary(Binary::Sub, value, spread, span);
        let exponential = self.graph.unary(Unary::Exp, shifted, span);
        let total = self.graph.sum(exponential, &places, span);
        match reduction {
            Reduction::LogSumExp => {
                let logarithm = self.graph.unary(Unary::Log, total, span);
                let value = self.graph.binary(Binary::Add, maximum, logarithm, span);
                Ok(self.align(vars, value, &kept, axes, span))
            }
            Reduction::LogSoftmax => {
                let logarithm = self.graph.unary(Unary::Log, total, span);
                let spread = self.align(vars, logarithm, &kept, &order, span);
                let value = self.graph.binary(Binary::Sub, shifted, spread, span);
                Ok(self.align(vars, value, &order, axes, span))
            }
            _ => {
                let spread = self.align(vars, total, &kept, &order, span);
                let value = self.graph.binary(Binary::Div, exponential, spread, span);
                let value = self.align(vars, value, &order, axes, span);
                self.probabilities.insert(value);
                Ok(value)
            }
        }
    }

    /// Whether a value holds the elements of a `softmax`, in whatever shape.
    fn copies_probabilities(&self, mut value: ValueId) -> bool {
        loop {
            if self.probabilities.contains(&value) {
                return true;
            }
            let node = self.graph.value(value);
            match (&node.op, node.args.as_slice()) {
                (Op::Reshape | Op::Detach, [one]) => value = *one,
                (Op::Contract(contract), [one]) if contract.domain.len() == contract.output.len() => value = *one,
                (_, _) => return false,
            }
        }
    }

    /// A product over one index of known range, factor by factor.
    fn lower_product(
        &mut self,
        vars: &[Index],
        reduced: &[Var],
        body: &Node,
        axes: &[Var],
        span: Span,
    ) -> Outcome<ValueId> {
        let count = Dim::product(reduced.iter().map(|var| extent(vars, *var)));
        let Some(count @ 1..=MAX_PRODUCT) = count.as_const() else {
            let message = format!("`prod` needs a known range of at most {MAX_PRODUCT}; here it is {count}");
            return self.refuse("undecided", span, message);
        };
        let (order, kept, places) = reduction_order(body, reduced);
        let value = self.lower(vars, body, &order)?;
        let value = self.graph.cast(value, DType::F32, span);
        let sizes: Vec<i64> = places.iter().map(|place| extent(vars, order[*place]).as_const().unwrap_or(1)).collect();
        let shape = shape_over(vars, &kept);
        let mut product: Option<ValueId> = None;
        for position in 0..count {
            let (mut digits, mut point) = (position, vec![0; places.len()]);
            for axis in (0..places.len()).rev() {
                point[axis] = digits % sizes[axis];
                digits /= sizes[axis];
            }
            let read = |(place, var): (usize, &Var)| match places.iter().position(|p| *p == place) {
                Some(axis) => Affine::constant(point[axis]),
                None => Affine::index(kept.iter().position(|k| k == var).expect("an index is reduced or kept")),
            };
            let operand = order.iter().enumerate().map(read).collect();
            let output = (0..kept.len()).map(Affine::index).collect();
            let contract = Contract { domain: shape.clone(), operands: vec![operand], output };
            let slice = self.graph.contract(contract, &[value], &shape, span);
            product = Some(match product {
                Some(product) => self.graph.binary(Binary::Mul, product, slice, span),
                None => slice,
            });
        }
        let value = product.expect("there is at least one factor");
        Ok(self.align(vars, value, &kept, axes, span))
    }
}

/// The order in which the body is computed, the indices that stay, and the places of the reduced ones. Several reduced
/// indices keep the order in which they are written, since `argmax` counts in it.
fn reduction_order(body: &Node, reduced: &[Var]) -> (Vec<Var>, Vec<Var>, Vec<usize>) {
    let mut order = natural(body);
    let present: Vec<Var> = order.iter().copied().filter(|var| reduced.contains(var)).collect();
    if present != reduced {
        order.retain(|var| !reduced.contains(var));
        order.extend(reduced);
    }
    let places: Vec<usize> = (0..order.len()).filter(|place| reduced.contains(&order[*place])).collect();
    let kept = order.iter().copied().filter(|var| !reduced.contains(var)).collect();
    (order, kept, places)
}

/// The two factors whose product has the fewest indices once those that only they have are summed.
fn cheapest_pair(factors: &[Factor], reduced: &[Var]) -> (usize, usize) {
    let mut best = (usize::MAX, 0, 1);
    for first in 0..factors.len() {
        for second in first + 1..factors.len() {
            let mut all: Vec<Var> = Vec::new();
            for (position, factor) in factors.iter().enumerate() {
                if position == first || position == second {
                    all.extend(factor.access.iter().flat_map(|affine| affine.terms.iter().map(|term| term.0)));
                }
            }
            all.sort_unstable();
            all.dedup();
            let elsewhere = |var: &Var| {
                let others =
                    factors.iter().enumerate().filter(|(position, _)| *position != first && *position != second);
                others.into_iter().any(|(_, factor)| factor.depends_on(*var))
            };
            let kept = all.iter().filter(|var| !reduced.contains(var) || elsewhere(var)).count();
            let summed = all.len() - kept;
            let cost = 8 * kept + 8 - summed.min(8);
            if cost < best.0 {
                best = (cost, first, second);
            }
        }
    }
    (best.1, best.2)
}
