//! The state of one expansion, shared by the rooms and files that each implement a part of it:
//! `expression` (values without indices), `equation` (values with indices), `statement` (bodies),
//! `stage` (layers, pipelines, names of parameters).
//!
//! Who answers what (all are methods of [`Expander`]; all take the scope by `&mut`, since waypoints bind names):
//!
//! | file | method | for |
//! |---|---|---|
//! | `expression` | `expression(&mut Scope, &ast::Expr) -> Outcome<Meaning>` | any expression outside an equation |
//! | `expression` | `builtin(&'static str, Vec<Given>, Span) -> Outcome<Meaning>` | a built-in function on values |
//! | `expression` | `BUILTINS: &[&str]`, `constant(&str) -> Option<Meaning>` (`pi`, `inf`) | names of last resort |
//! | `equation` | `equation(&mut Scope, &Ident, &[Ident], &Expr, Option<&TensorType>) -> Outcome<ValueId>` | `y[n] = …` |
//! | `stage` | `call(&mut Scope, &Expr, &[Argument], Span) -> Outcome<Meaning>` | `ExprKind::Call` outside an equation |
//! | `stage` | `pipeline(&mut Scope, &Expr) -> Outcome<Meaning>` | `ExprKind::{Pipeline, Residual, Repeat}` |
//! | `stage` | `field(&mut Scope, &Expr, &Ident, Span) -> Outcome<Meaning>` | `ExprKind::Field` |
//! | `apply` | `apply(&Rc<Stage>, Vec<Given>, Span) -> Outcome<Meaning>` | a stage or function on values |
//! | `statement` | `resolve(&Scope, &str, Span) -> Outcome<Meaning>` | a name: local, item, `training`, built-in |
//! | `shape` | `bind_type(&mut Scope, &TensorType, ValueId, Span) -> Outcome<()>` | names bind, other dims are proved |
//! | `shape` | `dims(&mut Scope, &[Expr]) -> Outcome<Vec<Dim>>` | a written shape whose names are all bound |
//! | `condition` | `truth(&mut Scope, &Expr) -> Outcome<Option<bool>>` | a static condition; `None`: holds for some sizes, or undecided |
//!
//! Inside an equation, a call of a `fn` is `apply` on tensors over the current indices.
//!
//! Input: a project and the model to expand. Output: a growing [`Graph`] and diagnostics.
//! Invariant: [`Reported`] is returned only after an error was pushed to `diagnostics`.

pub(crate) mod demand;
mod stack;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::diagnostics::Diagnostic;
use crate::dim::{Compare, Dim, Facts};
use crate::graph::{Graph, ScalarExpr, StateId, StateKind, ValueId, Variable};
use crate::model::project::{Definition, Project};
use crate::source::{FileId, Span};
use crate::syntax::ast;
use demand::Demand;
pub(crate) use stack::{has_room, with_room};

/// Whether `training` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Dropout drops, batch statistics are used and updated.
    Train,
    /// Inference.
    Eval,
}

/// One use of a layer or a function stage.
#[derive(Clone, Debug)]
pub struct LayerCall {
    /// The dotted path (`layer1.0.conv1`); empty for the model itself.
    pub path: String,
    /// The layer's name (`Conv`).
    pub layer: String,
    /// Nesting depth, 0 for stages of the model.
    pub depth: usize,
    /// What it gives.
    pub output: ValueId,
    /// The values created inside, as a range of the arena.
    pub values: std::ops::Range<u32>,
    /// Where it is used.
    pub span: Span,
}

/// A definition that is being expanded.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub name: String,
    /// Its static arguments.
    pub arguments: Vec<(String, String)>,
}

/// The ranges that a dim is made of, the fastest last, where a shape or a left side has said so.
pub(crate) type Factors = Option<Vec<Dim>>;

/// A comparison of two sizes.
pub(crate) type Comparison = (Compare, Dim, Dim);

/// An error that is already in the list of diagnostics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported;

/// A result whose error has been reported.
pub(crate) type Outcome<T> = Result<T, Reported>;

/// What an expression stands for.
#[derive(Clone, Debug)]
pub(crate) enum Meaning {
    /// A tensor of the graph.
    Tensor(ValueId),
    /// A static integer, symbolic or not.
    Size(Dim),
    /// A static real number.
    Number(f64),
    /// A number that the host computes before each step.
    Scalar(ScalarExpr),
    /// A static truth value.
    Flag(bool),
    Text(String),
    /// A list, or a shape.
    List(Vec<Meaning>),
    /// Several results of a stage.
    Tuple(Vec<(String, ValueId)>),
    /// Something that tensors flow through, or that can be called: a layer, a function, a built-in.
    Stage(Rc<Stage>),
}

/// A stage as a value. Every use of the same `Rc` shares its weights.
#[derive(Debug)]
pub(crate) enum Stage {
    /// A `fn` (or a `loss`, `metric`) of a file.
    Function(Definition),
    /// A built-in of `expression` (`exp`, `range`, …).
    Builtin(&'static str),
    /// A layer's bare name: each use as a stage makes an instance of its own.
    Template(Definition),
    /// A layer with its arguments, owned under a path; expanded at each use.
    Layer(LayerInstance),
    /// `mean_over(H, W)`: a reduction over the axes at which sizes were bound.
    Over {
        /// `mean`, `sum` or `max`.
        reduction: &'static str,
        /// The axes, sorted.
        axes: Vec<usize>,
        /// Where it is written.
        span: Span,
    },
    /// `chain(…)`, `repeat(n) …`, `{ … }`, `residual { … }` with their members, in order.
    Sequence {
        /// The dotted path of its members; its parent's where it has no name of its own.
        path: String,
        /// Named members.
        members: Vec<(String, Rc<Stage>)>,
        /// Adds what flowed in to what comes out.
        residual: bool,
        /// Where it is written.
        span: Span,
    },
    /// A function or built-in with arguments already given; what flows in comes first (`max_pool(2)`).
    Partial {
        /// What is called.
        callee: Rc<Stage>,
        arguments: Vec<Given>,
        /// Where it is written.
        span: Span,
    },
    /// A checked shape.
    Waypoint {
        /// `Err` is a name that was not bound where the stage was made: any size fits it.
        dims: Vec<Result<Dim, String>>,
        /// Where it is written.
        span: Span,
    },
}

/// An argument that has been evaluated.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// `stride =`.
    pub name: Option<ast::Ident>,
    pub value: Meaning,
    /// Where it is written.
    pub span: Span,
}

/// A layer with its arguments. Its weights are found by their dotted names, so a second use shares them.
#[derive(Debug)]
pub(crate) struct LayerInstance {
    pub definition: Definition,
    /// The dotted path of its weights.
    pub path: String,
    /// Its arguments by parameter name, defaults filled in.
    pub arguments: HashMap<String, Meaning>,
    /// Where it is written.
    pub span: Span,
}

/// The names visible in a body.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// Items of this file, its imports and the library are visible.
    pub file: FileId,
    /// The dotted path for weights created here.
    pub path: String,
    /// Local names.
    pub names: HashMap<String, Meaning>,
    /// Where local names were bound.
    pub spans: HashMap<String, Span>,
    /// Names whose binding failed; reading one is [`Reported`] without another diagnostic.
    pub poisoned: HashSet<String>,
    /// The child paths given out so far.
    pub children: HashMap<String, Span>,
    /// The axis at which a size was first bound (`H` in `[N, C, H, W]` is 2), for `mean_over(H, W)`.
    pub axes: HashMap<String, usize>,
    /// `Some` while inside a `fn`, `loss` or `metric`: its name. Weights cannot be created there.
    pub pure: Option<String>,
    /// What `input` statements take.
    pub inputs: Inputs,
    /// What `<-` may overwrite.
    pub targets: HashMap<String, Variable>,
    /// What `state` statements create; `None` where they are not allowed.
    pub state_kind: Option<StateKind>,
    /// The shape of a state without a type: a scalar, or in an optimizer the parameter's shape.
    pub state_shape: Vec<Dim>,
    /// The shapes that `return y : [N, O]` declares for equations of the same body.
    pub declared: HashMap<String, ast::TensorType>,
    /// The names of the returned values, once a `return` has run.
    pub returned: Vec<Option<String>>,
    /// Of tensors by name, the ranges that shapes and left sides with groups have made their dims of.
    pub factors: HashMap<String, Vec<Factors>>,
    /// Parameters `K..` that have not been given as many entries yet as an input's pack has.
    pub packs: Vec<String>,
    /// The entry of packs that is being evaluated.
    pub entry: Option<usize>,
}

/// What `input` statements of a body take.
#[derive(Clone, Debug)]
pub(crate) enum Inputs {
    /// What flows in, not yet taken.
    Flow(std::collections::VecDeque<Given>),
    /// The body of a model that is expanded alone: inputs of the graph, sized by these names where they occur,
    /// else symbolic.
    Free(std::collections::BTreeMap<String, i64>),
}

impl Scope {
    /// An empty scope that sees the items of `file`.
    pub(crate) fn new(file: FileId, path: String) -> Self {
        Scope {
            file,
            path,
            names: HashMap::new(),
            spans: HashMap::new(),
            poisoned: HashSet::new(),
            children: HashMap::new(),
            axes: HashMap::new(),
            pure: None,
            inputs: Inputs::Flow(Default::default()),
            targets: HashMap::new(),
            state_kind: None,
            state_shape: Vec::new(),
            declared: HashMap::new(),
            returned: Vec::new(),
            factors: HashMap::new(),
            packs: Vec::new(),
            entry: None,
        }
    }

    /// Binds a name, in place of an earlier binding.
    pub(crate) fn bind(&mut self, name: &ast::Ident, meaning: Meaning) {
        self.poisoned.remove(&name.name);
        self.factors.remove(&name.name);
        self.spans.insert(name.name.clone(), name.span);
        self.names.insert(name.name.clone(), meaning);
    }

    /// Notes what a tensor's dims are made of, until its name is bound again.
    pub(crate) fn divide(&mut self, name: &str, factors: Vec<Factors>) {
        if factors.iter().any(Option::is_some) {
            self.factors.insert(name.to_owned(), factors);
        }
    }

    /// Binds the parameters of a definition that have arguments.
    pub(crate) fn bind_parameters(&mut self, definition: &Definition, arguments: &HashMap<String, Meaning>) {
        for parameter in &definition.ast.parameters {
            if let Some(meaning) = arguments.get(&parameter.name.name) {
                self.bind(&parameter.name, meaning.clone());
            }
            if parameter.each {
                self.packs.push(parameter.name.name.clone());
            }
        }
    }
}

/// One expansion.
pub(crate) struct Expander<'p> {
    /// The files.
    pub project: &'p Project,
    /// What is built.
    pub graph: Graph,
    /// What `require` lines and declarations let us assume about sizes.
    pub facts: Facts,
    /// The `require` lines that were assumed, with the comparisons of each.
    pub preconditions: Vec<(Span, Vec<Comparison>)>,
    /// Whether `training` holds.
    pub mode: Mode,
    /// Findings so far.
    pub diagnostics: Vec<Diagnostic>,
    /// Stages so far.
    pub layers: Vec<LayerCall>,
    /// Definitions being expanded, outermost first; guards against recursion and deep nesting.
    pub active: Vec<Active>,
    /// The next stream of random numbers.
    pub next_stream: u32,
    /// Trained tensors by dotted name.
    pub params: HashMap<String, ValueId>,
    /// States by dotted name, with the newest value: the state itself, or what `<-` has given it.
    pub states: HashMap<String, (StateId, ValueId)>,
    /// The names that the model's inputs give to their first dim: the batch, on which no weight may depend.
    pub batch: HashSet<String>,
    /// What reads at the values of inputs ask of them.
    pub demands: Vec<Demand>,
    /// Results of `softmax`: each row of them sums to 1 already.
    pub probabilities: HashSet<ValueId>,
    /// Stages made and applied so far; bounds the work that a small file can ask for.
    pub work: u32,
}

impl<'p> Expander<'p> {
    /// An expansion into an empty graph.
    pub(crate) fn new(project: &'p Project, mode: Mode) -> Self {
        Expander {
            project,
            graph: Graph::default(),
            facts: Facts::new(),
            preconditions: Vec::new(),
            mode,
            diagnostics: Vec::new(),
            layers: Vec::new(),
            active: Vec::new(),
            next_stream: 0,
            params: HashMap::new(),
            states: HashMap::new(),
            batch: HashSet::new(),
            demands: Vec::new(),
            probabilities: HashSet::new(),
            work: 0,
        }
    }

    /// Reports an error.
    pub(crate) fn fail<T>(&mut self, diagnostic: Diagnostic) -> Outcome<T> {
        self.diagnostics.push(diagnostic);
        Err(Reported)
    }

    /// Reports an error that its message says in full.
    pub(crate) fn refuse<T>(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Outcome<T> {
        self.fail(Diagnostic::error(code, span, message))
    }

    /// Reports that something else is needed than what was found.
    pub(crate) fn misfit<T>(&mut self, code: &'static str, span: Span, needed: &str, found: &Meaning) -> Outcome<T> {
        let what = self.describe(found);
        self.fail(Diagnostic::error(code, span, needed).at(format!("this is {what}")))
    }
}
