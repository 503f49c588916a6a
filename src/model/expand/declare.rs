//! Declarations: `input`, `param`, `state`, and the shapes they are written with.
//!
//! Input: declaration statements and a scope. Output: inputs, parameters and states of the graph; bound size names.
//! Invariant: a declared shape is bound or proved against what flows in; nothing is broadcast to fit it.

use super::stage::join;
use crate::diagnostics::Diagnostic;
use crate::dim::{Compare, Dim, Verdict};
use crate::graph::{DType, Init, Input, Param, Scalar, State, StateKind, ValueId, Variable};
use crate::model::expander::{Expander, Given, Inputs, Meaning, Outcome, Scope};
use crate::model::expression::has_entries;
use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind, Ident, StateEntry, TensorType};

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
    fn check_batch_free(&mut self, shape: &[Dim], span: Span) -> Outcome<()> {
        let Some(name) = shape.iter().flat_map(Dim::vars).find(|name| self.batch.contains(name)) else { return Ok(()) };
        let message = format!("a weight or state of shape {} changes with the batch size `{name}`", show(shape));
        self.fail(Diagnostic::error("batch-sized-weight", span, message).hint("only the other dims may be used here"))
    }

    /// `input a, b: type`.
    pub(crate) fn input(&mut self, scope: &mut Scope, names: &[Ident], ty: &TensorType) -> Outcome<()> {
        for name in names {
            let value = match &mut scope.inputs {
                Inputs::Flow(flow) => {
                    let named = flow.iter().position(|given| given.name.as_ref().is_some_and(|n| n.name == name.name));
                    let positional = flow.iter().position(|given| given.name.is_none());
                    let Some(given) = named.or(positional).and_then(|index| flow.remove(index)) else {
                        return self.fail(
                            Diagnostic::error(
                                "missing-input",
                                name.span,
                                format!("nothing flows into `{}`", name.name),
                            )
                            .hint("a layer with several inputs is called with all of them: `layer(a, b)`"),
                        );
                    };
                    let value = self.expect_tensor(&given)?;
                    self.bind_type(scope, ty, value, given.span)?;
                    value
                }
                Inputs::Free(_) => self.free_input(scope, name, ty)?,
            };
            if scope.names.contains_key(&name.name) {
                return self.fail(duplicate(name, scope));
            }
            scope.bind(name, Meaning::Tensor(value));
            self.divide(scope, name, &ty.dims, value)?;
            self.spread_first(scope, [ty])?;
        }
        Ok(())
    }

    /// An input of the graph: unbound names become symbolic sizes, or the numbers they are bound to.
    pub(crate) fn free_input(&mut self, scope: &mut Scope, name: &Ident, ty: &TensorType) -> Outcome<ValueId> {
        if is_any(ty) {
            return self.fail(
                Diagnostic::error("missing-type", name.span, "a model's input needs a shape")
                    .hint(format!("write `input {}: [N, …]`", name.name)),
            );
        }
        for (axis, expr) in ty.dims.iter().enumerate() {
            let members = if let ExprKind::Group(members) = &expr.kind { members.as_slice() } else { &[] };
            for expr in members.iter().chain([expr]) {
                if let ExprKind::Each(inner) = &expr.kind
                    && inner.as_name().is_some_and(|name| !scope.names.contains_key(name))
                {
                    let message = "a model's input has a known number of dims, and this stands for any number";
                    return self.fail(Diagnostic::error("unknown-length", expr.span, message).hint("write its dims"));
                }
                let ExprKind::Name(size) = &expr.kind else { continue };
                if scope.names.contains_key(size) {
                    continue;
                }
                let Inputs::Free(bound) = &scope.inputs else { continue };
                let dim = bound.get(size).map_or_else(|| Dim::var(size), |value| Dim::constant(*value));
                if axis == 0 {
                    self.batch.insert(size.clone());
                }
                scope.bind(&Ident { name: size.clone(), span: expr.span }, Meaning::Size(dim));
                if members.is_empty() {
                    scope.axes.insert(size.clone(), axis);
                }
            }
        }
        let shape = self.dims(scope, &ty.dims)?;
        self.check_elements(&shape, ty.span)?;
        let dtype = self.element(ty)?;
        Ok(self.graph.input(Input { name: name.name.clone(), shape, dtype, span: name.span }))
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
                ExprKind::Group(members) => self.bind_group(scope, members, &found[0], (declared, site, expr.span), value)?,
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
                (Verdict::Undecided, _) => ("undecided", format!("cannot prove that {known} divides {dim}, as `{text}` asks")),
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

    /// The tensor of an argument that must be one.
    pub(crate) fn expect_tensor(&mut self, given: &Given) -> Outcome<ValueId> {
        match &given.value {
            Meaning::Tensor(value) => Ok(*value),
            other => self.misfit("not-a-tensor", given.span, "a tensor is needed here", other),
        }
    }

    /// A value as a tensor of the given shape and type: numbers and scalars are repeated.
    pub(crate) fn filled(&mut self, meaning: &Meaning, shape: &[Dim], dtype: DType, span: Span) -> Outcome<ValueId> {
        let value = match meaning {
            Meaning::Tensor(value) => *value,
            Meaning::Number(number) => return Ok(self.graph.constant(*number, shape, dtype, span)),
            Meaning::Size(dim) => return Ok(self.graph.size(dim.clone(), shape, dtype, span)),
            Meaning::Flag(flag) => return Ok(self.graph.constant(f64::from(u8::from(*flag)), shape, dtype, span)),
            Meaning::Scalar(expr) => {
                let name = format!("scalar{}", self.graph.scalars.len());
                self.graph.scalar(Scalar { name, expr: expr.clone() }, span)
            }
            Meaning::Text(_) | Meaning::List(_) | Meaning::Tuple(_) | Meaning::Stage(_) => {
                return self.misfit("not-a-tensor", span, "a tensor is needed here", meaning);
            }
        };
        let found = self.graph.value(value).dtype;
        if found != dtype && (found == DType::Bool || dtype == DType::Bool) {
            let (wanted, found) = (dtype.name(), found.name());
            return self.refuse("type-mismatch", span, format!("this needs {wanted} elements, not {found}"));
        }
        let value = self.graph.cast(value, dtype, span);
        if self.graph.shape(value).is_empty() && !shape.is_empty() {
            return Ok(self.graph.broadcast(value, shape, &[], span));
        }
        if self.graph.shape(value).len() != shape.len() {
            let message = format!("this needs the shape {} and has {}", show(shape), show(self.graph.shape(value)));
            return self.refuse("shape-mismatch", span, message);
        }
        self.prove_shape(shape, span, value, span)?;
        Ok(self.conform(value, shape, span))
    }

    /// A value whose dims were proved equal to `shape`, under exactly these dims. With bound sizes it is the value
    /// itself; with symbolic ones two forms of one size can differ.
    pub(crate) fn conform(&mut self, value: ValueId, shape: &[Dim], span: Span) -> ValueId {
        if self.graph.shape(value) == shape { value } else { self.graph.reshape(value, shape, span) }
    }

    /// `param a, b: [C, D] ~ init`.
    pub(crate) fn param(
        &mut self,
        scope: &mut Scope,
        names: &[Ident],
        ty: &TensorType,
        init: Option<&Expr>,
    ) -> Outcome<()> {
        if let (Some(function), Some(first)) = (&scope.pure, names.first()) {
            return self.fail(
                Diagnostic::error("weights-in-function", first.span, format!("`{function}` cannot own weights"))
                    .hint("only a `layer` or a `model` owns weights"),
            );
        }
        if self.element(ty)? != DType::F32 {
            return self.refuse("type-mismatch", ty.span, "parameters hold f32 elements");
        }
        let shape = self.dims(scope, &ty.dims)?;
        self.check_elements(&shape, ty.span)?;
        self.check_batch_free(&shape, ty.span)?;
        let Some(init) = init else {
            return self.fail(
                Diagnostic::error("missing-init", ty.span, "a parameter needs an initialisation")
                    .hint("add `~ zeros` or another"),
            );
        };
        let init = self.init(scope, init)?;
        for name in names {
            self.claim(scope, name)?;
            let path = join(&scope.path, &name.name);
            let value = match self.params.get(&path) {
                Some(value) => {
                    let value = *value;
                    if self.graph.shape(value).len() != shape.len() {
                        let message = format!("shared weights `{path}` would need {} dims as well", shape.len());
                        return self.refuse("shape-mismatch", name.span, message);
                    }
                    self.prove_shape(&shape, ty.span, value, name.span)?;
                    value
                }
                None => {
                    let param = Param { name: path.clone(), shape: shape.clone(), init: init.clone(), span: name.span };
                    self.graph.param(param)
                }
            };
            self.params.insert(path, value);
            scope.bind(name, Meaning::Tensor(value));
            self.divide(scope, name, &ty.dims, value)?;
        }
        Ok(())
    }

    /// `state m = 0, v: [C] = 1`.
    pub(crate) fn state(&mut self, scope: &mut Scope, entries: &[StateEntry]) -> Outcome<()> {
        for entry in entries {
            let Some(kind) = scope.state_kind.clone() else {
                return self.fail(
                    Diagnostic::error("state-in-function", entry.name.span, "a function cannot keep a state")
                        .hint("a `layer`, an `optimizer` or a `metric` can"),
                );
            };
            let (shape, dtype) = match &entry.ty {
                Some(ty) => (self.dims(scope, &ty.dims)?, self.element(ty)?),
                None => (scope.state_shape.clone(), DType::F32),
            };
            self.check_elements(&shape, entry.name.span)?;
            self.check_batch_free(&shape, entry.name.span)?;
            let start = self.expression(scope, &entry.value)?;
            let Some(init) = start.as_number() else {
                return self.refuse("not-static", entry.value.span, "a state starts as a number");
            };
            self.claim(scope, &entry.name)?;
            let path = join(&scope.path, &entry.name.name);
            let (id, value) = match self.states.get(&path) {
                Some(known) => *known,
                None => {
                    let span = entry.name.span;
                    let value = self.graph.state(State { name: path.clone(), shape, dtype, init, kind, span });
                    (crate::graph::StateId(self.graph.states.len() as u32 - 1), value)
                }
            };
            self.states.insert(path, (id, value));
            scope.targets.insert(entry.name.name.clone(), Variable::State(id));
            scope.bind(&entry.name, Meaning::Tensor(value));
        }
        Ok(())
    }

    /// Reserves a name for a weight of this body.
    fn claim(&mut self, scope: &mut Scope, name: &Ident) -> Outcome<()> {
        if let Some(first) = scope.children.get(&name.name) {
            let message = format!("`{}` is already a weight or a stage of this body", name.name);
            return self.fail(Diagnostic::error("duplicate-name", name.span, message).label(*first, "first use"));
        }
        // A weight may take the name of the argument that asks for it: `if bias { param bias: … }`.
        if matches!(scope.names.get(&name.name), Some(Meaning::Tensor(_) | Meaning::Stage(_) | Meaning::Tuple(_))) {
            return self.fail(duplicate(name, scope));
        }
        scope.children.insert(name.name.clone(), name.span);
        Ok(())
    }

    /// `normal(0, 0.02)`, `zeros`, a number.
    fn init(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<Init> {
        if !matches!(expr.kind, ExprKind::Name(_) | ExprKind::Call { .. }) {
            let start = self.expression(scope, expr)?;
            let value = self.init_number(&start, expr.span)?;
            return Ok(Init::Constant(value));
        }
        let (callee, arguments) = expr.as_call();
        let name = callee.as_name().unwrap_or_default();
        let Some((parameters, build)) = initialiser(name) else {
            let diagnostic = Diagnostic::error("unknown-name", expr.span, format!("`{name}` is not an initialisation"));
            let known = INITIALISERS.iter().map(|entry| entry.0);
            return self.fail(match crate::diagnostics::suggest::nearest(name, known) {
                Some(other) => diagnostic.hint(format!("did you mean `{other}`?")),
                None => diagnostic.hint(format!(
                    "known are {}",
                    INITIALISERS.iter().map(|entry| format!("`{}`", entry.0)).collect::<Vec<_>>().join(", ")
                )),
            });
        };
        let mut values: Vec<Option<f64>> = parameters.iter().map(|(_, default)| *default).collect();
        let mut given = vec![false; parameters.len()];
        for (position, argument) in arguments.iter().enumerate() {
            let index = match &argument.name {
                None => position,
                Some(key) => match parameters.iter().position(|(name, _)| *name == key.name) {
                    Some(index) => index,
                    None => {
                        let message = format!("`{name}` has no argument `{}`", key.name);
                        return self.refuse("unknown-argument", key.span, message);
                    }
                },
            };
            if index >= parameters.len() || given[index] {
                let message = format!("`{name}` takes {} arguments, each once", parameters.len());
                return self.refuse("too-many-arguments", argument.value.span, message);
            }
            let value = self.expression(scope, &argument.value)?;
            values[index] = Some(self.init_number(&value, argument.value.span)?);
            given[index] = true;
        }
        let mut numbers = Vec::with_capacity(values.len());
        for (value, (parameter, _)) in values.into_iter().zip(parameters) {
            let Some(value) = value else {
                return self.refuse("missing-argument", expr.span, format!("`{name}` needs `{parameter}`"));
            };
            numbers.push(value);
        }
        Ok(build(&numbers))
    }

    /// A number of an initialisation. Where it depends on a size that is still free, it is NaN:
    /// a graph with free sizes is checked and never run.
    fn init_number(&mut self, meaning: &Meaning, span: Span) -> Outcome<f64> {
        if let Some(value) = meaning.as_number() {
            return Ok(value);
        }
        let is_free = match meaning {
            Meaning::Size(_) => true,
            Meaning::Tensor(value) => self.depends_on_free_sizes_only(*value),
            _ => false,
        };
        if is_free {
            return Ok(f64::NAN);
        }
        self.misfit("not-static", span, "an initialisation needs numbers", meaning)
    }

    /// True for arithmetic on constants and sizes of which at least one is free.
    fn depends_on_free_sizes_only(&self, value: ValueId) -> bool {
        use crate::graph::Op;
        let mut open = vec![value];
        let mut free = false;
        while let Some(id) = open.pop() {
            let node = self.graph.value(id);
            match &node.op {
                Op::Const(_) | Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast | Op::Compare(_) => {}
                Op::Size(dim) => free |= dim.as_const().is_none(),
                Op::Input(_)
                | Op::Param(_)
                | Op::State(_)
                | Op::Scalar(_)
                | Op::Index { .. }
                | Op::Random { .. }
                | Op::Detach
                | Op::Reshape
                | Op::Contract(_)
                | Op::ReduceMax { .. }
                | Op::ArgMax { .. }
                | Op::Gather(_)
                | Op::Scatter(_) => return false,
            }
            open.extend(&node.args);
        }
        free
    }
}

fn duplicate(name: &Ident, scope: &Scope) -> Diagnostic {
    let diagnostic = Diagnostic::error("duplicate-name", name.span, format!("`{}` is already bound", name.name));
    match scope.spans.get(&name.name) {
        Some(first) => diagnostic.label(*first, "first binding"),
        None => diagnostic,
    }
}

type Build = fn(&[f64]) -> Init;
type Parameters = &'static [(&'static str, Option<f64>)];

const GAIN: Parameters = &[("gain", Some(1.0))];
const RELU_GAIN: Parameters = &[("gain", Some(std::f64::consts::SQRT_2))];

/// Name, parameters with defaults, meaning.
const INITIALISERS: &[(&str, Parameters, Build)] = &[
    ("zeros", &[], |_| Init::Constant(0.0)),
    ("ones", &[], |_| Init::Constant(1.0)),
    ("constant", &[("value", None)], |v| Init::Constant(v[0])),
    ("uniform", &[("low", None), ("high", None)], |v| Init::Uniform { low: v[0], high: v[1] }),
    ("normal", &[("mean", Some(0.0)), ("std", Some(1.0))], |v| Init::Normal { mean: v[0], std: v[1] }),
    ("truncated_normal", &[("mean", Some(0.0)), ("std", Some(1.0))], |v| Init::TruncatedNormal {
        mean: v[0],
        std: v[1],
    }),
    ("xavier", GAIN, |v| Init::Xavier { gain: v[0], normal: false }),
    ("xavier_uniform", GAIN, |v| Init::Xavier { gain: v[0], normal: false }),
    ("xavier_normal", GAIN, |v| Init::Xavier { gain: v[0], normal: true }),
    ("kaiming", RELU_GAIN, |v| Init::Kaiming { gain: v[0], normal: false }),
    ("kaiming_uniform", RELU_GAIN, |v| Init::Kaiming { gain: v[0], normal: false }),
    ("kaiming_normal", RELU_GAIN, |v| Init::Kaiming { gain: v[0], normal: true }),
    ("orthogonal", GAIN, |v| Init::Orthogonal { gain: v[0] }),
];

fn initialiser(name: &str) -> Option<(Parameters, Build)> {
    INITIALISERS.iter().find(|entry| entry.0 == name).map(|entry| (entry.1, entry.2))
}

impl Scope {
    /// The kind of state that a layer's body creates.
    pub(crate) fn with_buffers(mut self) -> Self {
        self.state_kind = Some(StateKind::Buffer);
        self
    }
}
