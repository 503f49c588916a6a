//! Written shapes: what their dims are, and what they bind and prove of a tensor.
//!
//! Input: the dims of a type or of a shape that is flowed through, and a scope. Output: sizes; bound names.
//! Rules: an unbound name binds a dim, one unbound `N..` all that the others leave, one unbound name of a group what the others leave
//! of a dim, which they must divide. Invariant: everything else is proved equal; nothing is broadcast to fit.

use crate::diagnostics::Diagnostic;
use crate::dim::{Compare, Dim, Verdict};
use crate::graph::{DType, ValueId};
use crate::model::expander::{Expander, Meaning, Outcome, Scope};
use crate::model::expression::has_entries;
use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind, Ident, TensorType};

/// The largest constant element count of one tensor.
pub(crate) const MAX_ELEMENTS: i64 = 1 << 40;

/// `[N, 3, H]`.
pub(crate) fn show(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// True for `input x` without a type: any shape fits.
pub(crate) fn is_any(ty: &TensorType) -> bool {
    ty.element.is_none() && ty.dims.is_empty()
}

/// True for a size name that a shape may bind.
fn is_open(scope: &Scope, name: &str) -> bool {
    !scope.names.contains_key(name) && !scope.poisoned.contains(name) && name != "training"
}

impl Expander<'_> {
    pub(crate) fn element(&mut self, ty: &TensorType) -> Outcome<DType> {
        let Some(element) = &ty.element else { return Ok(DType::F32) };
        match element.name.as_str() {
            "f32" => Ok(DType::F32),
            "i32" => Ok(DType::I32),
            "bool" => Ok(DType::Bool),
            other => self.fail(
                Diagnostic::error(
                    "unknown-type",
                    element.span,
                    format!("`{other}` is not an element type of a tensor"),
                )
                .hint("tensors hold `f32`, `i32` or `bool`"),
            ),
        }
    }

    /// A written shape whose names are all bound; every dim is positive where that can be known.
    pub(crate) fn dims(&mut self, scope: &mut Scope, dims: &[Expr]) -> Outcome<Vec<Dim>> {
        let mut shape = Vec::with_capacity(dims.len());
        for expr in dims {
            if has_entries(expr) {
                for entry in self.entries(scope, expr)? {
                    shape.push(self.positive(scope, expr, entry)?);
                }
            } else if let ExprKind::Group(members) = &expr.kind {
                shape.push(Dim::product(&self.dims(scope, members)?));
            } else {
                shape.push(self.dim(scope, expr)?);
            }
        }
        Ok(shape)
    }

    /// Notes what the dims of a tensor of this shape are made of.
    pub(crate) fn divide(&mut self, scope: &mut Scope, name: &Ident, dims: &[Expr], value: ValueId) -> Outcome<()> {
        let mut factors = Vec::new();
        for expr in dims {
            match &expr.kind {
                ExprKind::Group(members) => factors.push(Some(self.dims(scope, members)?)),
                _ if has_entries(expr) => factors.extend(vec![None; self.entries(scope, expr)?.len()]),
                _ => factors.push(None),
            }
        }
        if factors.len() == self.graph.shape(value).len() {
            scope.divide(&name.name, factors);
        }
        Ok(())
    }

    /// Spreads parameters `K..` over the first pack of these types.
    pub(crate) fn spread_first<'t>(
        &mut self,
        scope: &mut Scope,
        types: impl IntoIterator<Item = &'t TensorType>,
    ) -> Outcome<()> {
        let packs = types.into_iter().flat_map(|ty| &ty.dims).filter_map(|expr| match &expr.kind {
            ExprKind::Each(inner) => Some((inner.as_name()?, expr.span)),
            _ => None,
        });
        let Some((name, span)) = packs.into_iter().next() else { return Ok(()) };
        let Some(Meaning::List(items)) = scope.names.get(name) else { return Ok(()) };
        let length = items.len();
        self.spread(scope, length, (name, span))
    }

    /// One size.
    pub(crate) fn dim(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<Dim> {
        let meaning = self.expression(scope, expr)?;
        self.positive(scope, expr, meaning)
    }

    fn positive(&mut self, scope: &mut Scope, expr: &Expr, meaning: Meaning) -> Outcome<Dim> {
        let Some(dim) = meaning.as_dim() else {
            return self.misfit("not-a-size", expr.span, "a size is needed here", &meaning);
        };
        if dim.is_overflow() {
            return self.refuse("too-large", expr.span, "this size is too large, or divides by zero");
        }
        match self.facts.prove(Compare::Ge, &dim, &Dim::constant(1)) {
            Verdict::Proved => Ok(dim),
            verdict @ (Verdict::Refuted(_) | Verdict::Undecided) => {
                let values = self.values_text(scope, expr);
                let problem = match (verdict.counterexample(), dim.as_const()) {
                    (_, Some(value)) => format!("a size must be at least 1, and this is {value}"),
                    (Some(example), None) => format!("a size must be at least 1, and `{dim}` is not at {example}"),
                    (None, None) => format!("cannot prove that the size `{dim}` is at least 1"),
                };
                let diagnostic = Diagnostic::error("bad-size", expr.span, problem).at(values);
                self.fail(if dim.as_const().is_some() {
                    diagnostic
                } else {
                    diagnostic.hint(format!("add `require {dim} >= 1` to the model"))
                })
            }
        }
    }

    /// Refuses tensors that no machine holds.
    pub(crate) fn check_elements(&mut self, shape: &[Dim], span: Span) -> Outcome<()> {
        let count = Dim::product(shape);
        if count.is_overflow() || count.as_const().is_some_and(|count| count > MAX_ELEMENTS) {
            return self.refuse("too-large", span, format!("a tensor of shape {} is too large", show(shape)));
        }
        Ok(())
    }

    /// Refuses weights and states whose size changes with the batch.
    pub(super) fn check_batch_free(&mut self, shape: &[Dim], span: Span) -> Outcome<()> {
        let Some(name) = shape.iter().flat_map(Dim::vars).find(|name| self.batch.contains(name)) else { return Ok(()) };
        let message = format!("a weight or state of shape {} changes with the batch size `{name}`", show(shape));
        self.fail(Diagnostic::error("batch-sized-weight", span, message).hint("only the other dims may be used here"))
    }

    /// Binds the unbound names of a declared type to a value's dims and proves the other dims equal.
    /// `site` is where the value meets the type.
    pub(crate) fn bind_type(&mut self, scope: &mut Scope, ty: &TensorType, value: ValueId, site: Span) -> Outcome<()> {
        if is_any(ty) {
            return Ok(());
        }
        let dtype = self.element(ty)?;
        let found = self.graph.value(value).dtype;
        if found != dtype {
            let (wanted, found) = (dtype.name(), found.name());
            return self.fail(
                Diagnostic::error("type-mismatch", site, format!("this needs {wanted} elements, not {found}"))
                    .label(ty.span, "declared here"),
            );
        }
        self.bind_dims(scope, &ty.dims, ty.span, value, site)
    }

    /// [`Self::bind_type`] for the dims alone; `declared` is where they are written.
    pub(crate) fn bind_dims(
        &mut self,
        scope: &mut Scope,
        dims: &[Expr],
        declared: Span,
        value: ValueId,
        site: Span,
    ) -> Outcome<()> {
        let actual = self.graph.shape(value).to_vec();
        let mut lengths = Vec::with_capacity(dims.len());
        for expr in dims {
            lengths.push(match &expr.kind {
                ExprKind::Each(inner) if inner.as_name().is_some_and(|name| is_open(scope, name)) => None,
                _ if has_entries(expr) => Some(self.entries(scope, expr)?.len()),
                _ => Some(1),
            });
        }
        let known: usize = lengths.iter().flatten().sum();
        let mut open = dims.iter().zip(&lengths).filter(|(_, length)| length.is_none()).map(|(expr, _)| expr.span);
        let pack = open.next();
        if let Some(second) = open.next() {
            let message = "two packs of a shape are of unknown length, and one of them must be known";
            let diagnostic = Diagnostic::error("unknown-length", second, message);
            return self.fail(diagnostic.label(pack.unwrap_or(second), "the other one"));
        }
        if actual.len() < known || pack.is_none() && actual.len() != known {
            let least = if pack.is_some() { "at least " } else { "" };
            let message = format!("this needs {least}{known} dims and gets {}", actual.len());
            let diagnostic = self.mismatch("shape-mismatch", site, message, declared, value);
            return self.fail(diagnostic);
        }
        let mut axis = 0;
        for (expr, length) in dims.iter().zip(&lengths) {
            let length = length.unwrap_or(actual.len() - known);
            let found = &actual[axis..axis + length];
            match &expr.kind {
                ExprKind::Name(name) => {
                    if is_open(scope, name) {
                        scope.bind(&Ident { name: name.clone(), span: expr.span }, Meaning::Size(found[0].clone()));
                    }
                    scope.axes.entry(name.clone()).or_insert(axis);
                }
                ExprKind::Each(inner) if let Some(name) = inner.as_name().filter(|name| is_open(scope, name)) => {
                    let sizes = found.iter().cloned().map(Meaning::Size).collect();
                    scope.bind(&Ident { name: name.to_owned(), span: expr.span }, Meaning::List(sizes));
                }
                ExprKind::Group(members) => {
                    self.bind_group(scope, members, &found[0], (declared, site, expr.span), value)?
                }
                _ => {}
            }
            axis += length;
        }
        let wanted = self.dims(scope, dims)?;
        self.prove_shape(&wanted, declared, value, site)
    }

    /// Binds the one open name of `(groups D)` to what the others leave of a dim, which they must divide.
    fn bind_group(
        &mut self,
        scope: &mut Scope,
        members: &[Expr],
        dim: &Dim,
        (declared, site, span): (Span, Span, Span),
        value: ValueId,
    ) -> Outcome<()> {
        let is_unbound = |expr: &&Expr| expr.as_name().is_some_and(|name| is_open(scope, name));
        let open: Vec<&Expr> = members.iter().filter(is_unbound).collect();
        let [one] = open.as_slice() else {
            if open.is_empty() {
                return Ok(());
            }
            let names: Vec<String> = open.iter().filter_map(|expr| Some(format!("`{}`", expr.as_name()?))).collect();
            let message = format!("nothing says how {} divide {dim}", names.join(" and "));
            return self.fail(Diagnostic::error("unknown-range", span, message).hint("all but one must be known"));
        };
        let known: Vec<Expr> = members.iter().filter(|member| !is_unbound(member)).cloned().collect();
        let known = Dim::product(&self.dims(scope, &known)?);
        let quotient = dim.floor_div(&known);
        let verdict = self.facts.prove_eq(&(&known * &quotient), dim);
        if !verdict.is_proved() {
            let text = self.source_text(span).to_owned();
            let (code, message) = match (&verdict, verdict.counterexample()) {
                (Verdict::Undecided, _) => {
                    ("undecided", format!("cannot prove that {known} divides {dim}, as `{text}` asks"))
                }
                (_, Some(example)) => {
                    ("shape-mismatch", format!("{known} must divide {dim}, as `{text}` asks: fails at {example}"))
                }
                (_, None) => ("shape-mismatch", format!("{known} must divide {dim}, as `{text}` asks")),
            };
            let diagnostic = self.mismatch(code, site, message, declared, value);
            return self.fail(if dim.as_const().is_some() {
                diagnostic
            } else {
                diagnostic.hint(format!("add `require {dim} % {known} == 0` to the model"))
            });
        }
        let name = one.as_name().unwrap_or_default().to_owned();
        scope.bind(&Ident { name, span: one.span }, Meaning::Size(quotient));
        Ok(())
    }

    /// Proves that a value has the wanted shape.
    pub(crate) fn prove_shape(&mut self, wanted: &[Dim], declared: Span, value: ValueId, site: Span) -> Outcome<()> {
        let actual = self.graph.shape(value).to_vec();
        for (axis, (wanted_dim, dim)) in wanted.iter().zip(&actual).enumerate() {
            let verdict = self.facts.prove_eq(wanted_dim, dim);
            if verdict.is_proved() {
                continue;
            }
            let expected = format!("dim {axis} must be {wanted_dim} and is {dim}");
            let (code, message) = match (&verdict, verdict.counterexample()) {
                (Verdict::Undecided, _) => ("undecided", format!("cannot prove that `{dim}` is `{wanted_dim}`")),
                (_, Some(example)) => ("shape-mismatch", format!("{expected}: fails at {example}")),
                (_, None) => ("shape-mismatch", expected),
            };
            let mut diagnostic =
                self.mismatch(code, site, message, declared, value).at(format!("needs {}", show(wanted)));
            if verdict == Verdict::Undecided {
                diagnostic = diagnostic.hint(format!("add `require {dim} == {wanted_dim}` to the model"));
            }
            return self.fail(diagnostic);
        }
        Ok(())
    }

    /// A shape error with the place where the value was born.
    pub(crate) fn mismatch(
        &self,
        code: &'static str,
        site: Span,
        message: String,
        declared: Span,
        value: ValueId,
    ) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(code, site, message);
        if declared != site {
            diagnostic = diagnostic.label(declared, "declared here");
        }
        let born = self.birth(value);
        if born != site {
            diagnostic = diagnostic.label(born, format!("gives {}", show(self.graph.shape(value))));
        }
        diagnostic
    }

    /// Where a value comes from: the stage that gives it; for a value from inside of a library's stage, the use of
    /// that stage; else its equation.
    pub(crate) fn birth(&self, value: ValueId) -> Span {
        let own = self.graph.value(value).span;
        let uses = || self.layers.iter().rev().filter(|call| !self.project.is_library(call.span.file));
        let stage = uses().find(|call| call.output == value).or_else(|| {
            let around = uses().filter(|call| call.values.contains(&value.0));
            around.min_by_key(|call| call.values.len()).filter(|_| self.project.is_library(own.file))
        });
        stage.map_or(own, |call| call.span)
    }

    /// A value whose dims were proved equal to `shape`, under exactly these dims. With bound sizes it is the value
    /// itself; with symbolic ones two forms of one size can differ.
    pub(crate) fn conform(&mut self, value: ValueId, shape: &[Dim], span: Span) -> ValueId {
        if self.graph.shape(value) == shape { value } else { self.graph.reshape(value, shape, span) }
    }
}
