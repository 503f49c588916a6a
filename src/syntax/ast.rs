//! The abstract syntax tree: what the grammar can say, with a span on every node.
//!
//! Input: built by `parse`. Output: read by `print` (the formatter) and `model` (names, shapes, expansion).
//! Invariant: the tree holds only what was written; names are not resolved and defaults are not filled in.

use crate::settings::Direction;
use crate::source::Span;

/// A name with its place.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Ident {
    /// The name.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

/// One parsed file.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct File {
    /// `##` lines at the head of the file.
    pub docs: Vec<String>,
    /// The items that parsed; an item with a broken statement keeps its other statements.
    pub items: Vec<Item>,
}

/// A top-level item with its `##` documentation.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Item {
    /// `##` lines above the item.
    pub docs: Vec<String>,
    /// The whole item.
    pub span: Span,
    /// What it is.
    pub kind: ItemKind,
}

/// The kinds of items.
#[derive(Clone, Debug, serde::Serialize)]
pub enum ItemKind {
    /// `use A, B from "file.ansatz"`.
    Use(Use),
    /// `fn`, `layer`, `model`, `loss`, `optimizer`, `schedule`, `metric`: a name, parameters and a body.
    Definition(Definition),
    /// `data name { … }`.
    Data(Data),
    /// `train Model on data { … }`.
    Train(Train),
    /// `assert Model { … }`.
    Assert(Assert),
}

/// `use A, B from "file.ansatz"`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Use {
    /// The imported names.
    pub names: Vec<Ident>,
    /// The path as written.
    pub path: String,
    /// Where the path stands.
    pub path_span: Span,
}

/// What a [`Definition`] defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum DefinitionKind {
    /// A pure function.
    Fn,
    /// A stage that may own weights.
    Layer,
    /// A layer that can be trained and checked on its own.
    Model,
    /// A function of outputs and data to a scalar to minimise.
    Loss,
    /// An update rule for one parameter.
    Optimizer,
    /// A factor on the learning rate over time.
    Schedule,
    /// A figure of merit.
    Metric,
}

/// `layer Name(A, B = 2, x: [N, C]) { … }` or `fn name(x) = expression`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Definition {
    /// Which keyword.
    pub kind: DefinitionKind,
    /// The defined name.
    pub name: Ident,
    /// The parameters in parentheses.
    pub parameters: Vec<Parameter>,
    /// `predicts softmax`, of a loss: the function that turns the model's output into what is predicted.
    pub predicts: Option<Ident>,
    /// `: lower is better`, of a metric.
    pub better: Option<Better>,
    /// The statements. `= expression` is one [`StatementKind::Return`], with `short` set.
    pub body: Vec<Statement>,
    /// Written as `= expression`.
    pub short: bool,
}

/// `: lower is better` or `: higher is better`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Better {
    /// Which figures are better.
    pub direction: Direction,
    /// The whole clause.
    pub span: Span,
}

/// One parameter of a definition.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Parameter {
    /// Its name.
    pub name: Ident,
    /// `K..`: an entry for each dim, or one number that stands for all.
    pub each: bool,
    /// `: [N, C]` or `: i32[N]`.
    pub ty: Option<TensorType>,
    /// `= default`.
    pub default: Option<Expr>,
}

/// `[N, 3, H, W]`, `i32[N]`, `u8[3, 32, 32]`, `class[10]`, `text`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TensorType {
    /// The element type as written (`i32`, `u8`, `class`, …); `f32` when absent.
    pub element: Option<Ident>,
    /// The dims; empty for a scalar.
    pub dims: Vec<Expr>,
    /// The whole type.
    pub span: Span,
}

/// A statement of a body.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Statement {
    /// The whole statement.
    pub span: Span,
    /// What it is.
    pub kind: StatementKind,
}

impl Statement {
    /// Whether it, or a statement in its branches, is of a kind.
    pub fn contains(&self, wanted: &dyn Fn(&StatementKind) -> bool) -> bool {
        let is_inside = |branch: &[Statement]| branch.iter().any(|statement| statement.contains(wanted));
        wanted(&self.kind)
            || matches!(&self.kind, StatementKind::If { then, otherwise, .. } if is_inside(then) || is_inside(otherwise))
    }
}

/// The kinds of statements.
#[derive(Clone, Debug, serde::Serialize)]
pub enum StatementKind {
    /// `input x: [N, C]`, `input tokens: i32[N, T]`; `input x` in a layer fits any shape (no element, no dims).
    Input {
        /// The names, one or more.
        names: Vec<Ident>,
        /// Their common type.
        ty: TensorType,
    },
    /// `param wq, wk: [C, D] ~ normal(0, 0.02)`.
    Param {
        /// The names, one or more.
        names: Vec<Ident>,
        /// Their common type.
        ty: TensorType,
        /// The initialiser; required by the language, absent only in recovery.
        init: Option<Expr>,
    },
    /// `state m = 0, v: [C] = 1`.
    State(Vec<StateEntry>),
    /// `let D = C / heads`: a static value.
    Let {
        /// The bound name.
        name: Ident,
        /// Its value.
        value: Expr,
    },
    /// `require H >= 32, "message"`.
    Require {
        /// The condition.
        condition: Expr,
        /// What to say when it fails.
        message: Option<String>,
    },
    /// `y = expression`: a value, or a bound stage (`wte = Embedding(V, C)`), or a key of a `data`/`train` block.
    Bind {
        /// The bound name, or a dotted path in blocks (`prepare.image = …`).
        target: Vec<Ident>,
        /// Its value.
        value: Expr,
    },
    /// `a, b = split(x, 2)`: several results, each under a name.
    Unpack {
        /// The bound names, two or more.
        names: Vec<Ident>,
        /// What gives as many results.
        value: Expr,
    },
    /// `y[n, o] = sum[k] x[n, k] * w[o, k]`, optionally with the output's shape (`… : [N, O]`).
    Equation {
        /// The defined tensor.
        name: Ident,
        /// The places on the left.
        places: Vec<Place>,
        /// The right side.
        value: Expr,
        /// The declared shape of the output.
        shape: Option<TensorType>,
    },
    /// `m <- expression` or `seen[c] <- expression`.
    Update {
        /// The state, or `param`.
        name: Ident,
        /// Places on the left, if any.
        places: Vec<Place>,
        /// The new value.
        value: Expr,
    },
    /// `return expression`, `return y : [N, O]`, `return a, b`.
    Return {
        /// The returned values.
        values: Vec<Expr>,
        /// The declared shape of the output, which also gives ranges to affine equations that define it.
        shape: Option<TensorType>,
    },
    /// `if condition { … } else { … }` over statements; the condition is static.
    If {
        /// The condition.
        condition: Expr,
        /// Statements when true.
        then: Vec<Statement>,
        /// Statements when false; empty without `else`.
        otherwise: Vec<Statement>,
    },
    /// A line of an `assert` or `data` block that is an expression or a field (`params < 2 M, "why"`).
    Expression {
        /// The expression.
        value: Expr,
        /// The words after a comma.
        message: Option<String>,
    },
    /// `image: u8[3, 32, 32]` in a `data` block.
    Field {
        /// The field.
        name: Ident,
        /// Its type.
        ty: TensorType,
        /// Where it comes from (`image: f32[1, 8, 8] = columns(0, 63)`).
        value: Option<Expr>,
    },
}

/// An index where it is bound: `n`, or `n..` for as many as its tensors have.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Bound {
    /// The name.
    pub name: Ident,
    /// Followed by `..`.
    pub each: bool,
}

/// A dim on the left of an equation.
#[derive(Clone, Debug, serde::Serialize)]
pub enum Place {
    /// `n` or `n..`.
    Index(Bound),
    /// `(g o)`: several indices that make one dim; `(i u)..`: such a dim for each entry.
    Group {
        /// The indices, the fastest last.
        members: Vec<Bound>,
        /// Followed by `..`.
        each: bool,
        /// Where it stands.
        span: Span,
    },
    /// `2*i + u`: several points may reach a place, which has their sum.
    Affine(Expr),
}

/// One name of a `state` statement.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StateEntry {
    /// Its name.
    pub name: Ident,
    /// Its type; in an optimizer a state has the shape of the parameter.
    pub ty: Option<TensorType>,
    /// Its value at the start.
    pub value: Expr,
}

/// `data name { … }`: `Bind`, `Field` and `Expression` statements.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Data {
    /// Its name.
    pub name: Ident,
    /// Its lines.
    pub body: Vec<Statement>,
}

/// `train Model(args) on data { … }`: `Bind` statements.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Train {
    /// The model, with arguments if any: a `Name` or a `Call`.
    pub model: Expr,
    /// The data.
    pub data: Ident,
    /// Its lines.
    pub body: Vec<Statement>,
}

/// `assert Model { … }`: `Expression` statements.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Assert {
    /// The model, with arguments if any: a `Name` or a `Call`.
    pub model: Expr,
    /// Its lines.
    pub body: Vec<Statement>,
}

/// An expression.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Expr {
    /// The whole expression.
    pub span: Span,
    /// What it is.
    pub kind: ExprKind,
}

/// The kinds of expressions, loosest binding last in the grammar:
/// pipeline < conditional < `else` guard < or < and < not < comparison < sum < product < unary < power < postfix < atom.
#[derive(Clone, Debug, serde::Serialize)]
pub enum ExprKind {
    /// `12`, `1e-3`, `628_260`, `512 MiB`, `10 epochs`, `-10 deg` (the sign is a [`ExprKind::Unary`]).
    Number {
        /// The value before the suffix.
        value: f64,
        /// The suffix.
        suffix: Option<Suffix>,
        /// The digits as written.
        text: String,
    },
    /// `"text"`.
    Text(String),
    /// `true`, `false`.
    Bool(bool),
    /// A name.
    Name(String),
    /// `[N, 3, H, W]` as an atom: a shape waypoint or a list.
    List(Vec<Expr>),
    /// `n..`, `(i u)..`, `windows(A, K)..`: an entry for each of several.
    Each(Box<Expr>),
    /// `(heads D)`: a dim made of several, the fastest last. Members are names, numbers and names with `..`.
    Group(Vec<Expr>),
    /// `f(x, k = 2)`.
    Call {
        /// What is called.
        callee: Box<Expr>,
        /// The arguments.
        arguments: Vec<Argument>,
    },
    /// `x[n, S*i + u - P]`.
    Index {
        /// The tensor.
        base: Box<Expr>,
        /// One expression per dim.
        indices: Vec<Expr>,
    },
    /// `wte.weight`, `valid.accuracy`.
    Field {
        /// The owner.
        base: Box<Expr>,
        /// The member.
        name: Ident,
    },
    /// `-x`, `not x`.
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`, `a <= b`, `a and b`.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `sum[k] product`: extends over the product that follows.
    Reduce {
        /// `sum`, `mean`, `max`, `min`, `prod`, `argmax`, `argmin`, `softmax`, `log_softmax`, `logsumexp`.
        op: Ident,
        /// The indices it names.
        indices: Vec<Bound>,
        /// The reduced product.
        body: Box<Expr>,
    },
    /// `a if condition else b`.
    Conditional {
        /// The value when true.
        then: Box<Expr>,
        /// The condition.
        condition: Box<Expr>,
        /// The value when false.
        otherwise: Box<Expr>,
    },
    /// `x[…] else 0`: a guarded read.
    Guard {
        /// An [`ExprKind::Index`].
        read: Box<Expr>,
        /// The value out of range.
        otherwise: Box<Expr>,
    },
    /// `head -> stage -> label: stage`; inside `residual { }`, `chain( )` and blocks the head may be absent.
    Pipeline {
        /// What flows in; none for `{ LayerNorm -> Linear(C) }` and for schedules or preparations.
        head: Option<Box<Expr>>,
        /// Where it flows.
        stages: Vec<Stage>,
    },
    /// `residual { stages }`.
    Residual(Vec<Stage>),
    /// `repeat(n) stage`.
    Repeat {
        /// How many.
        count: Box<Expr>,
        /// The repeated stage; `{ stages }` is a pipeline without a head.
        body: Box<Expr>,
    },
}

impl Expr {
    /// The expressions right inside of it, in the order in which they are written.
    pub fn parts(&self) -> Vec<&Expr> {
        fn values(stages: &[Stage]) -> Vec<&Expr> {
            stages.iter().map(|stage| &stage.value).collect()
        }
        match &self.kind {
            ExprKind::Number { .. } | ExprKind::Text(_) | ExprKind::Bool(_) | ExprKind::Name(_) => Vec::new(),
            ExprKind::List(items) | ExprKind::Group(items) => items.iter().collect(),
            ExprKind::Call { callee, arguments } => {
                std::iter::once(&**callee).chain(arguments.iter().map(|argument| &argument.value)).collect()
            }
            ExprKind::Index { base, indices } => std::iter::once(&**base).chain(indices).collect(),
            ExprKind::Field { base: inner, .. } | ExprKind::Unary(_, inner) | ExprKind::Each(inner) => vec![inner],
            ExprKind::Reduce { body, .. } => vec![body],
            ExprKind::Binary(_, a, b) | ExprKind::Guard { read: a, otherwise: b } => vec![a, b],
            ExprKind::Conditional { then, condition, otherwise } => vec![then, condition, otherwise],
            ExprKind::Pipeline { head, stages } => head.iter().map(|head| &**head).chain(values(stages)).collect(),
            ExprKind::Residual(stages) => values(stages),
            ExprKind::Repeat { count, body } => vec![count, body],
        }
    }

    /// What it calls and the arguments; all but a call counts as a call of itself without arguments.
    pub fn as_call(&self) -> (&Expr, &[Argument]) {
        if let ExprKind::Call { callee, arguments } = &self.kind { (callee, arguments) } else { (self, &[]) }
    }

    /// The name that it is.
    pub fn as_name(&self) -> Option<&str> {
        if let ExprKind::Name(name) = &self.kind { Some(name) } else { None }
    }
}

/// One stage of a pipeline.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stage {
    /// `conv1:`.
    pub label: Option<Ident>,
    /// A name, a call, a shape waypoint (`List`), `residual`, `repeat`, a `Conditional` in parentheses, …
    pub value: Expr,
}

/// One argument of a call.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Argument {
    /// `stride =`.
    pub name: Option<Ident>,
    /// A label in `chain(conv1: Conv(3, 1), BatchNorm)`.
    pub label: Option<Ident>,
    /// The value.
    pub value: Expr,
}

/// A number's suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub enum Suffix {
    /// 1e3, 1e6, 1e9, 1e12.
    Kilo,
    Mega,
    Giga,
    Tera,
    /// Bytes and their powers.
    B,
    KB,
    MB,
    GB,
    KiB,
    MiB,
    GiB,
    /// Durations of training.
    Steps,
    Epochs,
    Minutes,
    /// Degrees of arc.
    Deg,
    /// Hundredths (`5 %`).
    Percent,
}

/// Prefix operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub enum UnaryOp {
    Neg,
    Not,
}

/// Infix operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    /// Exact division of tensors; floor division of static sizes.
    Div,
    /// Remainder of static sizes and integer tensors (`%`).
    Rem,
    Pow,
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
    And,
    Or,
}
