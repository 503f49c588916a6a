//! `ansatz check`: every model of a file for all sizes in both modes, its assertions, and lints.
//!
//! Input: a loaded project and a file of it. Output: diagnostics, without duplicates.
//! Invariant: a file without an error among them can be trained as far as shapes, names and budgets go.

mod equal_sizes;
mod lint;
mod standalone;
pub mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::thread;

use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::scalar;
use crate::model::expand::{Expanded, ModelUse, expand, expand_use};
use crate::model::expander::Mode;
use crate::model::expression::{comparison, suffix_factor};
use crate::model::project::Project;
use crate::model::train::{model_name, training};
use crate::source::{FileId, Span, bytes_text};
use crate::syntax::ast::{
    self, Argument, BinaryOp, DefinitionKind, Expr, ExprKind, ItemKind, StatementKind, Suffix, UnaryOp,
};
pub use standalone::modes_agree;
use summary::{macs, params};

/// Bytes that training a model with bound sizes needs.
pub type TrainMemory<'a> = dyn Fn(&Project, &ModelUse<'_>, &BTreeMap<String, i64>) -> Result<u64, String> + 'a;
/// Whether a weights file fits a model; the error says what does not.
pub type Loads<'a> = dyn Fn(&Project, &ModelUse<'_>, &Expanded, &str) -> Result<(), String> + 'a;

/// What later stages contribute to assertions.
#[derive(Default)]
pub struct Hooks<'a> {
    /// For `train_memory(N = 100)`.
    pub train_memory: Option<&'a TrainMemory<'a>>,
    /// For `loads("weights.safetensors")`.
    pub loads: Option<&'a Loads<'a>>,
}

/// Checks all items of a file.
pub fn check(project: &Project, file: FileId, hooks: &Hooks<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut inference = BTreeMap::new();
    if project.tree(file).items.is_empty() {
        let start = Span::new(file, 0, 0);
        let hint = "a model file holds items such as `model Name { … }`";
        found.push(Diagnostic::error("empty-file", start, "the file defines nothing").hint(hint));
    }
    for item in &project.tree(file).items {
        match &item.kind {
            ItemKind::Definition(definition) => {
                found.extend(lint::unused(definition));
                found.extend(lint::idle_optimizer(definition));
                found.extend(standalone::check(project, file, definition));
                let is_closed = definition.parameters.iter().all(|parameter| parameter.default.is_some());
                if definition.kind == DefinitionKind::Model && is_closed {
                    let (findings, expanded) = check_model(project, file, &definition.name.name);
                    found.extend(findings);
                    if let Some(expanded) = expanded {
                        found.extend(equal_sizes::lint(project, file, definition));
                        inference.insert(definition.name.name.as_str(), expanded);
                    }
                }
            }
            ItemKind::Train(train) => found.extend(check_train(project, file, train)),
            ItemKind::Assert(_) | ItemKind::Use(_) | ItemKind::Data(_) => {}
        }
    }
    for item in &project.tree(file).items {
        if let ItemKind::Assert(assert) = &item.kind {
            found.extend(check_assert(project, file, assert, hooks, &inference));
        }
    }
    if found.iter().any(Diagnostic::is_error) {
        // A name may only seem unused because its use is misspelled.
        found.retain(|diagnostic| diagnostic.code != "unused-name");
    }
    without_duplicates(found)
}

/// Diagnostics without repetitions, errors of a file in order of position.
pub fn without_duplicates(found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut kept: Vec<Diagnostic> = Vec::new();
    for diagnostic in found {
        if !kept.contains(&diagnostic) {
            kept.push(diagnostic);
        }
    }
    kept
}

/// One model with symbolic sizes, in both modes at once; the expansion for inference if neither has an error.
fn check_model(project: &Project, file: FileId, model: &str) -> (Vec<Diagnostic>, Option<Expanded>) {
    let in_mode = |mode| expand(project, file, model, &[], mode, &BTreeMap::new());
    let (training, inference) = thread::scope(|scope| {
        let training = thread::Builder::new().spawn_scoped(scope, || in_mode(Mode::Train));
        let inference = in_mode(Mode::Eval);
        let training = match training {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => in_mode(Mode::Train),
        };
        (training, inference)
    });
    match (training, inference) {
        (Ok((trained, mut found)), Ok((expanded, more))) => {
            found.extend(more);
            found.extend(standalone::modes_agree(&trained.graph, &expanded.graph));
            (without_duplicates(found), Some(expanded))
        }
        (training, inference) => {
            let findings = |outcome: Result<(Expanded, Vec<Diagnostic>), Vec<Diagnostic>>| match outcome {
                Ok((_, found)) | Err(found) => found,
            };
            let mut found = findings(training);
            found.extend(findings(inference));
            (without_duplicates(found), None)
        }
    }
}

/// The settings of a `train` item; its whole step is checked by later stages.
fn check_train(project: &Project, file: FileId, train: &ast::Train) -> Vec<Diagnostic> {
    let chosen = [("train.item".to_owned(), model_name(&train.model).to_owned())];
    training(project, file, &chosen).err().unwrap_or_default()
}

/// The promises about one model; `inference` holds the expansions that are already made, by name.
fn check_assert(
    project: &Project,
    file: FileId,
    assert: &ast::Assert,
    hooks: &Hooks<'_>,
    inference: &BTreeMap<&str, Expanded>,
) -> Vec<Diagnostic> {
    let used = ModelUse { file, model: &assert.model };
    let own;
    let known = if let ExprKind::Name(name) = &assert.model.kind { inference.get(name.as_str()) } else { None };
    let expanded = match known {
        Some(expanded) => expanded,
        None => match expand_use(project, &used, Mode::Eval, &BTreeMap::new()) {
            Ok((expanded, _)) => {
                own = expanded;
                &own
            }
            Err(errors) => return errors,
        },
    };
    let judge = Judge { project, used: &used, expanded, hooks };
    let mut found = Vec::new();
    for line in &assert.body {
        match &line.kind {
            StatementKind::Expression { value, message } => match judge.verdict(value) {
                Ok(Ok(())) => {}
                Ok(Err(actual)) => found.push(failure(value.span, message.as_deref(), &actual)),
                Err(problem) => found.push(problem),
            },
            _ => found.push(
                Diagnostic::error("bad-assertion", line.span, "this is not a condition")
                    .hint("an assertion is a line such as `params < 2 M, \"why\"`"),
            ),
        }
    }
    found
}

fn failure(span: Span, message: Option<&str>, actual: &str) -> Diagnostic {
    let message = message.map_or_else(|| "the assertion does not hold".to_owned(), str::to_owned);
    Diagnostic::error("assert-failed", span, message).at(actual)
}

/// Answers assertions about one model.
struct Judge<'a> {
    project: &'a Project,
    used: &'a ModelUse<'a>,
    expanded: &'a Expanded,
    hooks: &'a Hooks<'a>,
}

/// A number of an assertion, with words for what was measured.
struct Measure {
    value: f64,
    shown: Option<String>,
}

impl Judge<'_> {
    /// `Ok(Err(words))` where the condition is false.
    fn verdict(&self, expr: &Expr) -> Result<Result<(), String>, Diagnostic> {
        match &expr.kind {
            ExprKind::Binary(BinaryOp::And, left, right) => match self.verdict(left)? {
                Ok(()) => self.verdict(right),
                Err(actual) => Ok(Err(actual)),
            },
            ExprKind::Binary(BinaryOp::Or, left, right) => match self.verdict(left)? {
                Ok(()) => Ok(Ok(())),
                Err(_) => self.verdict(right),
            },
            ExprKind::Unary(UnaryOp::Not, inner) => Ok(match self.verdict(inner)? {
                Ok(()) => Err("it holds".into()),
                Err(_) => Ok(()),
            }),
            ExprKind::Binary(op, left, right) => {
                let (a, b) = (self.measure(left)?, self.measure(right)?);
                let op = comparison(*op).ok_or_else(|| not_a_condition(expr.span))?;
                let shown: Vec<String> = [a.shown, b.shown].into_iter().flatten().collect();
                Ok(if scalar::compare(op, a.value, b.value) { Ok(()) } else { Err(shown.join(", ")) })
            }
            ExprKind::Call { callee, arguments } if callee.as_name() == Some("loads") => {
                self.loads(expr.span, arguments)
            }
            _ => Err(not_a_condition(expr.span)),
        }
    }

    fn loads(&self, span: Span, arguments: &[Argument]) -> Result<Result<(), String>, Diagnostic> {
        let [Argument { value: Expr { kind: ExprKind::Text(path), .. }, .. }] = arguments else {
            return Err(Diagnostic::error("bad-assertion", span, "`loads` takes the path of a weights file"));
        };
        match self.hooks.loads {
            Some(loads) => Ok(loads(self.project, self.used, self.expanded, path)),
            None => Err(Diagnostic::error("unsupported", span, "`loads` cannot be checked here yet")),
        }
    }

    fn measure(&self, expr: &Expr) -> Result<Measure, Diagnostic> {
        let plain = |value: f64| Ok(Measure { value, shown: None });
        match &expr.kind {
            ExprKind::Number { value, suffix, .. } => match suffix.map_or(Some(1.0), quantity) {
                Some(factor) => plain(value * factor),
                None => Err(Diagnostic::error("bad-assertion", expr.span, "this unit does not fit an assertion")),
            },
            ExprKind::Unary(UnaryOp::Neg, inner) => plain(-self.measure(inner)?.value),
            ExprKind::Binary(op, left, right) => {
                let (a, b) = (self.measure(left)?, self.measure(right)?);
                let value = match op {
                    BinaryOp::Add => a.value + b.value,
                    BinaryOp::Sub => a.value - b.value,
                    BinaryOp::Mul => a.value * b.value,
                    BinaryOp::Div => a.value / b.value,
                    BinaryOp::Rem => a.value.rem_euclid(b.value),
                    BinaryOp::Pow => a.value.powf(b.value),
                    _ => {
                        return Err(Diagnostic::error("bad-assertion", expr.span, "a number is needed here"));
                    }
                };
                let shown: Vec<String> = [a.shown, b.shown].into_iter().flatten().collect();
                Ok(Measure { value, shown: (!shown.is_empty()).then(|| shown.join(", ")) })
            }
            ExprKind::Name(_) | ExprKind::Call { .. } => {
                let (callee, arguments) = expr.as_call();
                let name = callee.as_name().ok_or_else(|| not_a_condition(expr.span))?;
                self.quantity(name, arguments, expr.span)
            }
            _ => Err(Diagnostic::error("bad-assertion", expr.span, "a number is needed here")),
        }
    }

    fn quantity(&self, name: &str, arguments: &[Argument], span: Span) -> Result<Measure, Diagnostic> {
        const KNOWN: &[&str] = &["params", "macs", "flops", "train_memory"];
        if !KNOWN.contains(&name) {
            let diagnostic = Diagnostic::error("unknown-name", span, format!("`{name}` cannot be asserted"));
            return Err(match crate::diagnostics::suggest::nearest(name, KNOWN.iter().copied()) {
                Some(other) => diagnostic.hint(format!("did you mean `{other}`?")),
                None => diagnostic.hint("known are `params`, `macs`, `flops`, `train_memory` and `loads`"),
            });
        }
        let sizes = self.sizes(arguments)?;
        if name == "train_memory" {
            let Some(train_memory) = self.hooks.train_memory else {
                return Err(Diagnostic::error("unsupported", span, "`train_memory` cannot be checked here yet"));
            };
            let bytes = train_memory(self.project, self.used, &sizes)
                .map_err(|problem| Diagnostic::error("bad-assertion", span, problem))?;
            let shown = format!("train_memory is {}", bytes_text(bytes));
            return Ok(Measure { value: bytes as f64, shown: Some(shown) });
        }
        let bound;
        let graph = if sizes.is_empty() {
            &self.expanded.graph
        } else {
            bound =
                expand_use(self.project, self.used, Mode::Eval, &sizes).map_err(|errors| first_error(errors, span))?.0;
            known_sizes(self.expanded, &sizes).map_err(|(unknown, known)| {
                let message = format!("the model's inputs have no size `{unknown}`");
                Diagnostic::error("unknown-argument", span, message).hint(format!("its sizes are {known}"))
            })?;
            &bound.graph
        };
        let dim = match name {
            "params" => params(graph),
            "macs" => macs(graph),
            _ => macs(graph) * Dim::constant(2),
        };
        match dim.as_const() {
            Some(value) => Ok(Measure { value: value as f64, shown: Some(format!("{name} is {}", grouped(value))) }),
            None => Err(unbound(name, &dim, span)),
        }
    }

    /// `N = 1, H = 224`.
    fn sizes(&self, arguments: &[Argument]) -> Result<BTreeMap<String, i64>, Diagnostic> {
        let mut sizes = BTreeMap::new();
        for argument in arguments {
            let Some(name) = &argument.name else {
                let problem = Diagnostic::error("bad-assertion", argument.value.span, "which size is this?");
                return Err(problem.hint("write `N = 1`"));
            };
            let value = self.measure(&argument.value)?.value;
            if value.fract() != 0.0 || !(1.0..9e15).contains(&value) {
                return Err(Diagnostic::error("bad-size", argument.value.span, "a size is a whole number from 1 on"));
            }
            sizes.insert(name.name.clone(), value as i64);
        }
        Ok(sizes)
    }
}

/// Whether the inputs of a model, expanded with free sizes, have all of these sizes; else the first that they have not, and
/// the list of those that they have.
///
/// # Errors
/// As said.
pub fn known_sizes(expanded: &Expanded, sizes: &BTreeMap<String, i64>) -> Result<(), (String, String)> {
    let dims = expanded.graph.inputs.iter().flat_map(|input| &input.shape);
    let known: BTreeSet<String> = dims.flat_map(Dim::vars).collect();
    match sizes.keys().find(|name| !known.contains(*name)) {
        None => Ok(()),
        Some(name) if known.is_empty() => Err((name.clone(), "none".to_string())),
        Some(name) => {
            let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            Err((name.clone(), names.join(", ")))
        }
    }
}

fn first_error(errors: Vec<Diagnostic>, span: Span) -> Diagnostic {
    let first = errors.into_iter().find(Diagnostic::is_error).expect("a failed expansion has an error");
    first.label(span, "with these sizes")
}

fn unbound(name: &str, dim: &Dim, span: Span) -> Diagnostic {
    let sizes: Vec<String> = dim.vars().into_iter().map(|name| format!("{name} = …")).collect();
    Diagnostic::error("undecided", span, format!("`{name}` depends on the model's sizes"))
        .at(format!("it is {dim}"))
        .hint(format!("give them: `{name}({})`", sizes.join(", ")))
}

fn not_a_condition(span: Span) -> Diagnostic {
    Diagnostic::error("bad-assertion", span, "this is not a condition")
        .hint("write a comparison such as `params < 2 M`")
}

/// What a suffix multiplies by, where it counts things or bytes.
fn quantity(suffix: Suffix) -> Option<f64> {
    suffix_factor(suffix).filter(|_| suffix != Suffix::Deg)
}

/// `11_689_512`.
pub fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}
