//! The tensor graph: static single assignment in an arena, a source span on every value.
//!
//! Input: built by `model` through [`build`]; rewritten by `grad` and `passes`. Output: read by `schedule`.
//! Invariant (checked by [`mod@verify`]): arguments precede their users; shapes and types follow the rules in [`op`].
//!
//! A graph describes one step: it reads inputs, parameters, states and host scalars, gives named outputs,
//! and lists updates that happen together after every output is known.

pub mod build;
pub mod evaluate;
pub mod nested;
pub mod op;
pub mod philox;
pub mod print;
pub mod scalar;
pub mod verify;

use std::fmt;

pub use crate::dim::Compare;
use crate::dim::Dim;
use crate::source::Span;
pub use evaluate::{Evaluation, Feeds, Tensor, evaluate};
pub use op::{Access, Affine, Binary, Contract, Indirect, IndirectIndex, Op, Unary};
pub use scalar::ClockReading;
pub use verify::verify;

/// The element type of a value. `F32` is evaluated in f64 by the reference evaluator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 32-bit signed integer: labels, tokens, positions.
    I32,
    /// Truth value; one byte in memory.
    Bool,
}

impl DType {
    /// Its name in the language.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::Bool => "bool",
        }
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub u32);
    };
}
identifier!(/** A value of a [`Graph`]. */ ValueId);
identifier!(/** An entry of [`Graph::inputs`]. */ InputId);
identifier!(/** An entry of [`Graph::params`]. */ ParamId);
identifier!(/** An entry of [`Graph::states`]. */ StateId);
identifier!(/** An entry of [`Graph::scalars`]. */ ScalarId);

/// One node.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Value {
    /// What it computes.
    pub op: Op,
    /// From what.
    pub args: Vec<ValueId>,
    /// Its shape; all dims are constants once sizes are bound.
    pub shape: Vec<Dim>,
    /// Its element type.
    pub dtype: DType,
    /// The place in the model file that it stems from.
    pub span: Span,
}

/// A tensor fed from outside.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Input {
    /// The model's input or the data's field of this name.
    pub name: String,
    /// Its shape, batch dim included.
    pub shape: Vec<Dim>,
    /// Its type.
    pub dtype: DType,
    /// Where it is declared.
    pub span: Span,
}

/// A trained tensor.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Param {
    /// The dotted checkpoint name (`layer1.0.conv1.weight`).
    pub name: String,
    /// Its shape.
    pub shape: Vec<Dim>,
    /// How it starts.
    pub init: Init,
    /// Where it is declared.
    pub span: Span,
}

/// How a parameter or state starts. Fans follow PyTorch: for `[out, in, window…]`,
/// fan-in = in · Π window, fan-out = out · Π window; for one dim both are its size.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Init {
    /// Every element alike (zeros, ones, constant).
    Constant(f64),
    /// U(low, high).
    Uniform {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
    /// N(mean, std²).
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// N(mean, std²) redrawn outside mean ± 2 std.
    TruncatedNormal {
        /// Mean.
        mean: f64,
        /// Standard deviation before truncation.
        std: f64,
    },
    /// Glorot and Bengio 2010: variance 2 / (fan-in + fan-out), scaled by gain².
    Xavier {
        /// Gain.
        gain: f64,
        /// Normal instead of uniform.
        normal: bool,
    },
    /// He et al. 2015: variance gain² / fan-in.
    Kaiming {
        /// Gain (√2 for relu).
        gain: f64,
        /// Normal instead of uniform.
        normal: bool,
    },
    /// Saxe et al. 2014: rows (or columns) of a random orthogonal matrix, times gain.
    Orthogonal {
        /// Gain.
        gain: f64,
    },
}

/// What a state belongs to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum StateKind {
    /// A layer's buffer, saved with the weights (`running_mean`).
    Buffer,
    /// An optimizer's memory of one parameter.
    Optimizer(ParamId),
    /// A metric's sum; reset at the start of each epoch.
    Metric,
}

/// A tensor that lives from step to step and is not trained.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// The dotted checkpoint name (`bn1.running_mean`, `conv1.weight.m`, `recall.hit`).
    pub name: String,
    /// Its shape.
    pub shape: Vec<Dim>,
    /// Its type.
    pub dtype: DType,
    /// Its value at the start.
    pub init: f64,
    /// What it belongs to.
    pub kind: StateKind,
    /// Where it is declared.
    pub span: Span,
}

/// A number computed by the host in f64 before each step and handed over as f32
/// (learning rate, bias corrections).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Scalar {
    /// A name for dumps (`lr`, `scalar3`).
    pub name: String,
    /// Its formula.
    pub expr: ScalarExpr,
}

/// Clock readings that a [`ScalarExpr`] may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Clock {
    /// The number of this step, from 1.
    Step,
    /// Steps in the whole training.
    TotalSteps,
    /// Steps in one epoch.
    StepsPerEpoch,
}

/// A formula over the clock, evaluated on the host in f64. Comparisons give 0 or 1.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum ScalarExpr {
    /// A number.
    Const(f64),
    /// A clock reading.
    Clock(Clock),
    /// A function of one number.
    Unary(Unary, #[serde(deserialize_with = "nested::nested")] Box<ScalarExpr>),
    /// A function of two.
    Binary(
        Binary,
        #[serde(deserialize_with = "nested::nested")] Box<ScalarExpr>,
        #[serde(deserialize_with = "nested::nested")] Box<ScalarExpr>,
    ),
    /// A comparison, 1 when true.
    Compare(
        Compare,
        #[serde(deserialize_with = "nested::nested")] Box<ScalarExpr>,
        #[serde(deserialize_with = "nested::nested")] Box<ScalarExpr>,
    ),
    /// `condition != 0 ? then : otherwise`.
    Select(
        #[serde(deserialize_with = "nested::nested")] Box<ScalarExpr>,
        #[serde(deserialize_with = "nested::nested")] Box<ScalarExpr>,
        #[serde(deserialize_with = "nested::nested")] Box<ScalarExpr>,
    ),
}

/// What a result is, told as its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum OutputName {
    /// A result of a model, by its own name: `logits`.
    Named(String),
    /// The loss: `loss`.
    Loss,
    /// A metric without states: `metric:accuracy`.
    Metric(String),
    /// What is read from a result of the model, which the loss says: `predicted:logits`.
    Predicted(String),
    /// The gradient of a parameter: `d_fc.weight`.
    Gradient(String),
    /// The L2 norm of a parameter's gradient: `grad:fc.weight`.
    GradientNorm(String),
    /// A number that is finite if all elements of a value are: `watch:12`.
    Watch(ValueId),
}

impl OutputName {
    /// Whether it is a figure of merit of the step.
    pub fn is_figure(&self) -> bool {
        matches!(self, Self::Loss | Self::Metric(_))
    }
}

impl fmt::Display for OutputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Loss => f.write_str("loss"),
            Self::Metric(name) => write!(f, "metric:{name}"),
            Self::Predicted(name) => write!(f, "predicted:{name}"),
            Self::Gradient(name) => write!(f, "d_{name}"),
            Self::GradientNorm(name) => write!(f, "grad:{name}"),
            Self::Watch(value) => write!(f, "watch:{}", value.0),
        }
    }
}

impl<T: Into<String>> From<T> for OutputName {
    fn from(name: T) -> Self {
        Self::Named(name.into())
    }
}

/// A named result.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Output {
    /// Its name.
    pub name: OutputName,
    /// Its value.
    pub value: ValueId,
}

/// A tensor that lives from step to step: what an [`Update`] overwrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Variable {
    /// A parameter.
    Param(ParamId),
    /// A state.
    State(StateId),
}

/// An overwrite that happens after all reads of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Update {
    /// What is overwritten.
    pub target: Variable,
    /// The new value, of the same shape and type.
    pub value: ValueId,
}

/// One step's computation.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Graph {
    values: Vec<Value>,
    /// Tensors fed from outside.
    pub inputs: Vec<Input>,
    /// Trained tensors, in declaration order.
    pub params: Vec<Param>,
    /// Other tensors that live from step to step.
    pub states: Vec<State>,
    /// Numbers from the host.
    pub scalars: Vec<Scalar>,
    /// Named results.
    pub outputs: Vec<Output>,
    /// Overwrites.
    pub updates: Vec<Update>,
    /// How exactly it is computed.
    pub precision: Precision,
}

/// Which roundings are allowed for speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Precision {
    /// Those of f32 arithmetic: errors as of plain sums.
    #[default]
    Strict,
    /// Ten times as much: minimal filtering with larger tiles.
    Fast,
    /// Products of tensor cores in TF32: factors have 11 bits, sums are f32.
    Tf32,
    /// Products of tensor cores in bfloat16: factors have 8 bits, sums are f32; all else stays f32.
    Bf16,
}

impl Graph {
    /// Appends a value whose shape and type the caller has established; `build` offers checked constructors.
    pub fn push(&mut self, value: Value) -> ValueId {
        debug_assert!(value.args.iter().all(|arg| arg.0 < self.values.len() as u32), "arguments precede users");
        self.values.push(value);
        ValueId(self.values.len() as u32 - 1)
    }

    /// Removes all values, in topological order, for a pass that builds the graph anew; all else stays, and outputs and
    /// updates name the old values until the pass renames them.
    pub fn take_values(&mut self) -> impl ExactSizeIterator<Item = (ValueId, Value)> + use<> {
        std::mem::take(&mut self.values).into_iter().enumerate().map(|(id, value)| (ValueId(id as u32), value))
    }

    /// The node of a value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// All values in topological order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = (ValueId, &Value)> + ExactSizeIterator {
        self.values.iter().enumerate().map(|(index, value)| (ValueId(index as u32), value))
    }

    /// Gives the values from `start` on other places in the model file.
    pub fn relocate(&mut self, start: usize, place: impl Fn(Span) -> Span) {
        self.values[start..].iter_mut().for_each(|value| value.span = place(value.span));
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// What the outputs give and the updates write.
    pub fn roots(&self) -> impl Iterator<Item = ValueId> {
        self.outputs.iter().map(|output| output.value).chain(self.updates.iter().map(|update| update.value))
    }

    /// Which values some of them are computed from, themselves included.
    pub fn alive(&self, roots: impl Iterator<Item = ValueId>) -> Vec<bool> {
        let mut alive = vec![false; self.len()];
        roots.for_each(|root| alive[root.0 as usize] = true);
        for (id, value) in self.values().rev() {
            if alive[id.0 as usize] {
                value.args.iter().for_each(|arg| alive[arg.0 as usize] = true);
            }
        }
        alive
    }

    /// The symbolic shape of a value.
    pub fn shape(&self, id: ValueId) -> &[Dim] {
        &self.value(id).shape
    }

    /// The shape of a value in a graph whose sizes are bound.
    ///
    /// # Panics
    /// Where a dim is still symbolic: a compiler bug.
    pub fn sizes(&self, id: ValueId) -> Vec<usize> {
        crate::dim::bound(self.shape(id))
    }
}
