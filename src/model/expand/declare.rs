//! Declarations: `input`, `param`, `state`.
//!
//! Input: declaration statements and a scope. Output: inputs, parameters and states of the graph; bound size names.
//! Invariant: a declared shape is bound or proved against what flows in; nothing is broadcast to fit it.

use super::shape::{is_any, show};
use super::stage::join;
use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::{DType, Init, Input, Param, Scalar, State, StateKind, ValueId, Variable};
use crate::model::expander::{Expander, Given, Inputs, Meaning, Outcome, Scope};
use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind, Ident, StateEntry, TensorType};

impl Expander<'_> {
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
            let open =
                members.iter().filter(|member| member.as_name().is_some_and(|name| !scope.names.contains_key(name)));
            if open.count() > 1 {
                let message = "nothing says how these sizes divide the dim";
                let diagnostic = Diagnostic::error("unknown-range", expr.span, message);
                return self
                    .fail(diagnostic.hint("all but one must be numbers, arguments, or sizes that are bound before"));
            }
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
            if let Some(ty) = &entry.ty {
                self.divide(scope, &entry.name, &ty.dims, value)?;
            }
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
