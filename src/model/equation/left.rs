//! Left sides: `y[n.., (g o), 2*i + u]`, from places to indices, and from a value over indices to one over dims.
//!
//! Input: places with their declared dims; a value with a dim for each index. Output: the indices, opened in order; the tensor.
//! Rules: a group's indices make one dim; at affine places what several points reach is their sum, and what none reaches is 0.
//! Invariant: the ranges of a group are proved to make up the declared dim, and affine places to lie inside of it.

use super::lowering::{affine_over, extent, shape_over};
use super::node::{AffineIndex, Index, Indices, Known, Var};
use super::places::bound_by;
use super::read::unequal;
use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::{Affine, Contract, DType, Op, ValueId};
use crate::model::expander::{Expander, Factors, Outcome, Scope};
use crate::model::expression::has_entries;
use crate::source::Span;
use crate::syntax::ast::{self, Expr};

/// A dim, or the dims of a whole pack, of a left side.
pub(super) struct LeftDim {
    pub vars: Vec<Var>,
    /// How many dims they make.
    pub dims: usize,
    /// Written as `(g o)`.
    pub group: bool,
    /// Written as `2*i + u`; `vars` are then those that it binds.
    pub affine: Option<Expr>,
}

/// True for an output with a dim for each of some indices.
fn is_plain(output: &[Affine]) -> bool {
    output.iter().all(|affine| affine.as_index().is_some())
}

impl LeftDim {
    /// The ranges that a group's dim is made of.
    pub fn factors(&self, vars: &[Index]) -> Vec<Factors> {
        let ranges = |var: &Var| match &vars[*var] {
            Index { dims: Some(dims), .. } => dims.clone(),
            _ => vec![extent(vars, *var).clone()],
        };
        let factors = self.group.then(|| self.vars.iter().flat_map(ranges).collect());
        vec![factors; self.dims]
    }
}

impl Expander<'_> {
    /// The indices on the left, opened in order.
    pub(super) fn left_side(
        &mut self,
        table: &mut Indices,
        scope: &Scope,
        places: &[ast::Place],
    ) -> Outcome<Vec<LeftDim>> {
        let mut left = Vec::new();
        for (place, bounds) in places.iter().zip(bound_by(self.project, scope, places)) {
            let mut opened = Vec::new();
            for bound in &bounds {
                let name = &bound.name;
                if let Some(first) = table.find(&name.name) {
                    let message = format!("the index `{}` stands twice on the left", name.name);
                    let first = first.binder;
                    let diagnostic = Diagnostic::error("duplicate-index", name.span, message);
                    return self.fail(diagnostic.label(first, "first here"));
                }
                let each = bound.each || matches!(place, ast::Place::Group { each: true, .. });
                opened.push(table.open(&ast::Bound { name: name.clone(), each }));
            }
            match place {
                ast::Place::Index(_) => left.extend(opened.concat().into_iter().map(|var| {
                    let dims = table.vars[var].dims.as_ref().map_or(1, Vec::len);
                    LeftDim { vars: vec![var], dims, group: false, affine: None }
                })),
                ast::Place::Affine(expr) => {
                    let dims = if has_entries(expr) { self.length_of(table, scope, expr)? } else { 1 };
                    left.push(LeftDim { vars: opened.concat(), dims, group: false, affine: Some(expr.clone()) });
                }
                ast::Place::Group { each: false, .. } => {
                    left.push(LeftDim { vars: opened.concat(), dims: 1, group: true, affine: None });
                }
                ast::Place::Group { each: true, span, .. } => {
                    let lengths: Vec<usize> = opened.iter().map(Vec::len).collect();
                    if let Some(other) = lengths.iter().find(|length| **length != lengths[0]) {
                        let message = format!("the packs of this group have {} and {other} entries", lengths[0]);
                        return self.refuse("bad-pack", *span, message);
                    }
                    for entry in 0..opened.first().map_or(0, Vec::len) {
                        let vars = opened.iter().filter_map(|vars| vars.get(entry).copied()).collect();
                        left.push(LeftDim { vars, dims: 1, group: true, affine: None });
                    }
                }
            }
        }
        for dim in &mut left {
            if let [var] = dim.vars[..]
                && dim.affine.is_none()
                && let Some(whole) = table.visible.iter().find(|seen| seen.whole && seen.vars == [var])
            {
                dim.dims = table.plan.lengths[&whole.binder];
            }
        }
        Ok(left)
    }

    /// A value over all indices of the left side, at the places that it says: what several points reach is their sum, and what none
    /// reaches is 0.
    pub(super) fn placed(
        &mut self,
        table: &mut Indices,
        scope: &mut Scope,
        (left, known): (&[LeftDim], &[Known]),
        axes: &[Var],
        (value, is_new): (ValueId, bool),
        span: Span,
    ) -> Outcome<ValueId> {
        let (mut output, mut shape) = (Vec::new(), Vec::new());
        let mut place = 0;
        for dim in left {
            let first = place;
            place += dim.dims;
            let Some(expr) = &dim.affine else {
                for var in dim.vars.iter().filter(|var| axes.contains(var)) {
                    output.push(AffineIndex { terms: vec![(*var, 1)], offset: Dim::constant(0) });
                    shape.push(extent(&table.vars, *var).clone());
                }
                continue;
            };
            for entry in 0..dim.dims {
                let Some(Some((size, _))) = known.get(first + entry) else {
                    let message = "the place of a sum on the left needs the output's shape";
                    let diagnostic = Diagnostic::error("unbound-index", expr.span, message);
                    return self.fail(diagnostic.hint("declare it behind the equation: `… : [N, O]`"));
                };
                table.entry = has_entries(expr).then_some(entry);
                let node = self.elaborate(table, scope, expr);
                table.entry = None;
                let Some(affine) = node?.as_affine() else {
                    let message = "a place on the left is a sum of indices times numbers";
                    return self.refuse("bad-place", expr.span, message);
                };
                self.check_range(&table.vars, &affine, size, expr.span, None)?;
                output.push(affine);
                shape.push(size.clone());
            }
        }
        // Truth values are counted, as `sum` does.
        let (value, is_new) = match self.graph.value(value).dtype {
            DType::Bool => (self.graph.cast(value, DType::F32, span), false),
            DType::F32 | DType::I32 => (value, is_new),
        };
        // The contraction that gives the value writes there itself.
        let made = self.graph.value(value);
        let (contract, arguments) = match &made.op {
            Op::Contract(inner) if is_new && is_plain(&inner.output) => (inner.clone(), made.args.clone()),
            _ => {
                let plain: Vec<Affine> = (0..axes.len()).map(Affine::index).collect();
                let domain = shape_over(&table.vars, axes);
                (Contract { domain, operands: vec![plain.clone()], output: plain }, vec![value])
            }
        };
        let at = |affine: &AffineIndex| {
            let mut moved = affine_over(affine, axes);
            for term in &mut moved.terms {
                term.0 = contract.output[term.0].as_index().expect("it is plain");
            }
            moved.terms.sort_unstable();
            moved
        };
        let output = output.iter().map(at).collect();
        let contract = Contract { output, ..contract };
        Ok(self.graph.contract(contract, &arguments, &shape, span))
    }

    /// A value over indices as one over dims: groups are joined, whole packs taken apart.
    pub(super) fn joined(
        &mut self,
        table: &Indices,
        left: &[LeftDim],
        known: &[Known],
        value: ValueId,
        span: Span,
    ) -> Outcome<ValueId> {
        let mut shape = Vec::new();
        for dim in left {
            let vars: Vec<&Index> = dim.vars.iter().map(|var| &table.vars[*var]).collect();
            if dim.affine.is_some() {
                let place = shape.len();
                shape.extend(known[place..place + dim.dims].iter().flatten().map(|(dim, _)| dim.clone()));
                continue;
            }
            match vars.as_slice() {
                [Index { dims: Some(dims), .. }] if !dim.group => {
                    for one in dims {
                        if let Some(Some((declared, place))) = known.get(shape.len()) {
                            self.agree_on_dim(one, declared, *place, vars[0].span)?;
                        }
                        shape.push(one.clone());
                    }
                }
                _ => {
                    let joined = Dim::product(dim.vars.iter().map(|var| extent(&table.vars, *var)));
                    if let Some(Some((declared, place))) = known.get(shape.len()).filter(|_| dim.group) {
                        self.agree_on_dim(&joined, declared, *place, vars[0].span)?;
                    }
                    shape.push(joined);
                }
            }
        }
        Ok(self.conform(value, &shape, span))
    }

    /// Proves that the indices of a dim run over it together.
    pub(super) fn agree_on_dim(&mut self, joined: &Dim, dim: &Dim, declared: Span, span: Span) -> Outcome<()> {
        let verdict = self.facts.prove_eq(joined, dim);
        if verdict.is_proved() {
            return Ok(());
        }
        let message = format!("these indices run over {joined} together, and the dim has {dim} places");
        let mut diagnostic = Diagnostic::error("shape-mismatch", span, message);
        if declared != span {
            diagnostic = diagnostic.label(declared, format!("{dim} places"));
        }
        self.fail(unequal(diagnostic, &verdict, joined, dim))
    }
}
