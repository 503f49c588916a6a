//! The state of one expansion, shared by the files that each implement a part of it:
//! `expression` (values without indices), `equation` (values with indices), `statement` (bodies),
//! `stage` (layers, pipelines, names of parameters).
//!
//! Input: a project and the model to expand. Output: a growing [`Graph`] and diagnostics.
//! Invariant: [`Reported`] is returned only after an error was pushed to `diagnostics`.

use std::collections::HashMap;
use std::rc::Rc;

use super::project::Project;
use super::{LayerCall, Mode};
use crate::diagnostics::Diagnostic;
use crate::dim::{Dim, Facts};
use crate::graph::{Graph, ScalarExpr, ValueId};
use crate::source::{FileId, Span};
use crate::syntax::ast;

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
    /// A text.
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
    /// A layer with its arguments, owned under a path; expanded at each use.
    Layer(LayerInstance),
    /// `chain(…)`, `repeat(n) …`, `{ … }`, `residual { … }` with their members, in order.
    Sequence {
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
        /// The arguments.
        arguments: Vec<(Option<ast::Ident>, Meaning, Span)>,
        /// Where it is written.
        span: Span,
    },
    /// A checked shape.
    Waypoint {
        /// The dims as written; names that are not yet bound bind here.
        dims: Vec<ast::Expr>,
        /// Where it is written.
        span: Span,
    },
}

/// A definition and the file whose names it sees.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    /// The definition.
    pub ast: Rc<ast::Definition>,
    /// Its file.
    pub file: FileId,
}

/// A layer with its arguments, and the weights that its first use creates.
#[derive(Debug)]
pub(crate) struct LayerInstance {
    /// The definition.
    pub definition: Definition,
    /// The dotted path of its weights.
    pub path: String,
    /// Its arguments by parameter name, defaults filled in.
    pub arguments: HashMap<String, Meaning>,
    /// Parameters and states by name once created.
    pub members: std::cell::RefCell<HashMap<String, Meaning>>,
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
}

/// One expansion.
pub(crate) struct Expander<'p> {
    /// The files.
    pub project: &'p Project,
    /// What is built.
    pub graph: Graph,
    /// What `require` lines and declarations let us assume about sizes.
    pub facts: Facts,
    /// Whether `training` holds.
    pub mode: Mode,
    /// Findings so far.
    pub diagnostics: Vec<Diagnostic>,
    /// Stages so far.
    pub layers: Vec<LayerCall>,
    /// Definitions being expanded, outermost first; guards against recursion and deep nesting.
    pub active: Vec<(String, Span)>,
    /// The next stream of random numbers.
    pub next_stream: u32,
}

impl Expander<'_> {
    /// Reports an error.
    pub(crate) fn fail<T>(&mut self, diagnostic: Diagnostic) -> Outcome<T> {
        self.diagnostics.push(diagnostic);
        Err(Reported)
    }
}
