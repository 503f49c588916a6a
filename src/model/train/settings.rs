//! The settings of a `train` item, checked and with defaults filled in.
//!
//! Input: a project, a file and settings of the command line. Output: [`Resolved`].
//! Invariant: every key of the item was read or reported.

use std::collections::BTreeMap;

use super::Resolved;
use super::forward::forward;
use super::item::{self, TrainItem, model_name};
use super::literal::{data, figure_name, items, number, whole};
use super::metric::metric_specs;
use super::optimizer::apply_optimizer;
use crate::diagnostics::Diagnostic;
use crate::graph::{Graph, Precision};
use crate::model::expander::{Mode, with_room};
use crate::model::project::Project;
use crate::settings::{Best, Direction, Interval, Keep, Length, MetricSpec, NotFinite, SplitName, Training};
use crate::source::FileId;
use crate::syntax::ast::{Expr, ExprKind, Suffix};
use crate::syntax::on_one_line;

const DEFAULT_BATCH: u64 = 32;

/// Steps in a row that are skipped, and times that a run goes back, where the item gives no number.
const DEFAULT_SKIPS: u64 = 10;
const DEFAULT_RETURNS: u64 = 3;

/// The lines that say what a step computes.
const COMPUTED: [&str; 7] = ["loss", "optimizer", "schedule", "batch", "clip", "metrics", "precision"];

/// Reads the `train` item of `file` (of several: the one that the setting `train.item` names) and its data item.
/// `overrides` are settings such as `("train.batch", "64")`; see [`super::item`] for their keys.
///
/// # Errors
/// All that is wrong with the two items by themselves, and with the model, loss and metrics where those are needed to
/// know how metrics are computed.
pub fn training(project: &Project, file: FileId, overrides: &[(String, String)]) -> Result<Resolved, Vec<Diagnostic>> {
    let item = item::find(project, file, overrides)?;
    let mut problems = Vec::new();
    let mut spec = data(&item.data.1, item.data.1.name.span, &mut problems);
    match overrides.iter().rev().find(|(key, _)| key == "data.folder") {
        Some((_, folder)) => spec.root = folder.into(),
        None => (spec.root, spec.folder) = (project.root().to_owned(), project.folder(item.data.0)),
    }
    let settings = Training {
        model: model_name(&item.model).to_owned(),
        data: spec,
        batch: line(&item, "batch", &mut problems, |expr| whole(expr, 1)).unwrap_or(DEFAULT_BATCH) as usize,
        drop_last: line(&item, "drop_last", &mut problems, flag).unwrap_or(false),
        length: line(&item, "length", &mut problems, length).unwrap_or(Length::Epochs(0.0)),
        seed: line(&item, "seed", &mut problems, |expr| whole(expr, 0)).unwrap_or(0),
        clip: line(&item, "clip", &mut problems, clip),
        metrics: Vec::new(),
        keep: line(&item, "keep", &mut problems, keep).unwrap_or(Keep { best: None, last: 1 }),
        save: line(&item, "save", &mut problems, save).unwrap_or_else(|| vec![Interval::Epochs(1.0)]),
        not_finite: line(&item, "not_finite", &mut problems, not_finite).unwrap_or_default(),
        precision: line(&item, "precision", &mut problems, precision).unwrap_or_default(),
        span: item.span,
        overrides: overrides.to_vec(),
        lines: computed(project, &item),
    };
    for (key, example) in [("loss", "cross_entropy(label)"), ("optimizer", "adam(lr = 1e-3)"), ("length", "10 epochs")]
    {
        if item.get(key).is_none() {
            let message = format!("the `train` item says no `{key}`");
            let hint = format!("write `{key} = {example}`");
            problems.push(Diagnostic::error("missing-key", item.model.span, message).hint(hint));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut training = Resolved { project: project.clone(), item, settings };
    match with_room(|| metric_specs(&training)) {
        Ok(metrics) => training.settings.metrics = metrics,
        Err(found) => {
            // Loss and optimizer are independent of the metrics, so their mistakes are told at once.
            let (batch, fields) = (training.settings.batch, training.settings.data.declared());
            let forward = forward(&training, batch, Mode::Eval, &fields).err();
            let optimizer = apply_optimizer(&training, &mut Graph::default(), &[]).err();
            problems = found;
            for problem in forward.into_iter().chain(optimizer).flatten() {
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
            without_echo(&training, &mut problems);
            return Err(problems);
        }
    }
    if let Some(best) = &mut training.settings.keep.best {
        best.direction = direction(&training.settings.metrics, best).map_err(|problem| vec![problem])?;
    }
    Ok(training)
}

/// Which values of the kept figure are better: its metric says it; a loss is to be low.
fn direction(metrics: &[MetricSpec], best: &Best) -> Result<Direction, Diagnostic> {
    let (figure, place) = (best.figure.as_str(), best.span);
    if figure == "loss" {
        return Ok(Direction::Lower);
    }
    let Some(metric) = metrics.iter().find(|metric| metric.name == figure) else {
        let message = format!("the `train` item computes no metric `{figure}`");
        let diagnostic = Diagnostic::error("unknown-name", place, message);
        let mut known: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        known.push("loss");
        return Err(item::suggest(diagnostic, figure, place, &known));
    };
    if !metric.is_single() {
        let message = format!("`{figure}` is many numbers, none of which is the best");
        return Err(Diagnostic::error("bad-metric", place, message));
    }
    metric.direction.ok_or_else(|| {
        let message = format!("nothing says whether a high or a low `{figure}` is better");
        let name = figure.split('(').next().unwrap_or(figure);
        Diagnostic::error("undecided", place, message)
            .hint(format!("write `metric {name}(…): higher is better`, or `lower`, where the metric is defined"))
    })
}

/// What the loss refuses, metrics refuse too: where a library's loss does not fit what the model gives, the library's
/// metrics are left unsaid.
fn without_echo(training: &Resolved, problems: &mut Vec<Diagnostic>) {
    let refused = |problem: &Diagnostic, key: &str| {
        let (place, line) = (problem.span(), training.item.get(key).map(|line| line.span));
        line.is_some_and(|line| line.file == place.file && (line.start..=line.end).contains(&place.start))
            && problem.labels.get(1).is_some_and(|label| training.project.is_library(label.span.file))
    };
    if problems.iter().any(|problem| refused(problem, "loss")) {
        problems.retain(|problem| !refused(problem, "metrics"));
    }
}

fn line<T>(
    item: &TrainItem,
    key: &str,
    problems: &mut Vec<Diagnostic>,
    read: impl FnOnce(&Expr) -> Result<T, Diagnostic>,
) -> Option<T> {
    match read(item.get(key)?) {
        Ok(value) => Some(value),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

/// `10 epochs`, `0.5 epochs`, `2000 steps`.
fn length(expr: &Expr) -> Result<Length, Diagnostic> {
    match &expr.kind {
        ExprKind::Number { value, suffix: Some(Suffix::Epochs), .. } if *value > 0.0 => Ok(Length::Epochs(*value)),
        ExprKind::Number { value, suffix: Some(Suffix::Steps), .. } if *value >= 1.0 && value.fract() == 0.0 => {
            Ok(Length::Steps(*value as u64))
        }
        _ => Err(Diagnostic::error("bad-value", expr.span, "a duration is needed here")
            .hint("write `10 epochs` or `2000 steps`")),
    }
}

/// `true` or `false`.
fn flag(expr: &Expr) -> Result<bool, Diagnostic> {
    match &expr.kind {
        ExprKind::Bool(value) => Ok(*value),
        _ => Err(Diagnostic::error("bad-value", expr.span, "this is neither `true` nor `false`")),
    }
}

/// The lines that say what a step computes, and the model, as they are written.
fn computed(project: &Project, item: &TrainItem) -> BTreeMap<String, String> {
    let text = |expr: &Expr| {
        let text = project.sources.get(expr.span.file).map_or("", |file| file.text.as_str());
        let range = expr.span.start as usize..expr.span.end as usize;
        on_one_line(text.get(range).unwrap_or_default())
    };
    let lines = COMPUTED.iter().filter_map(|key| Some(((*key).to_string(), text(item.get(key)?))));
    lines.chain([("model".to_string(), text(&item.model))]).collect()
}

/// `stop`, `skip`, `skip(20)`, `roll_back`, `roll_back(5)`.
fn not_finite(expr: &Expr) -> Result<NotFinite, Diagnostic> {
    let (callee, arguments) = expr.as_call();
    let limit = |default| match arguments {
        [] => Ok(default),
        [limit] if limit.name.is_none() => whole(&limit.value, 1),
        [..] => Err(Diagnostic::error("bad-value", expr.span, "one number is the limit here")
            .hint("write `skip(10)` or `roll_back(3)`")),
    };
    match model_name(callee) {
        "stop" if arguments.is_empty() => Ok(NotFinite::Stop),
        "skip" => Ok(NotFinite::Skip { limit: limit(DEFAULT_SKIPS)? }),
        "roll_back" => Ok(NotFinite::RollBack { limit: limit(DEFAULT_RETURNS)? }),
        _ => {
            let message = "this is nothing to do with a step that is not finite";
            Err(Diagnostic::error("bad-value", expr.span, message).hint("write `stop`, `skip(10)` or `roll_back(3)`"))
        }
    }
}

fn clip(expr: &Expr) -> Result<f64, Diagnostic> {
    let value = number(expr)?;
    if value > 0.0 {
        return Ok(value);
    }
    Err(Diagnostic::error("bad-value", expr.span, format!("the norm to clip to is above 0, not {value}")))
}

/// `strict` or `fast`.
fn precision(expr: &Expr) -> Result<Precision, Diagnostic> {
    match &expr.kind {
        ExprKind::Name(name) if name == "strict" => Ok(Precision::Strict),
        ExprKind::Name(name) if name == "fast" => Ok(Precision::Fast),
        ExprKind::Name(name) if name == "tf32" => Ok(Precision::Tf32),
        ExprKind::Name(name) if name == "bf16" => Ok(Precision::Bf16),
        _ => Err(Diagnostic::error("bad-value", expr.span, "this names no precision")
            .hint("write `strict`, `fast`, `tf32` or `bf16`")),
    }
}

/// `best(valid.accuracy), last(3)`.
fn keep(expr: &Expr) -> Result<Keep, Diagnostic> {
    let mut keep = Keep { best: None, last: 1 };
    for part in items(expr) {
        let (callee, arguments) = part.as_call();
        match (model_name(callee), arguments) {
            ("best", [figure]) => keep.best = Some(best(&figure.value)?),
            ("last", []) => {}
            ("last", [count]) => keep.last = whole(&count.value, 1)? as usize,
            _ => {
                let diagnostic = Diagnostic::error("bad-value", part.span, "this names no checkpoint to keep");
                return Err(diagnostic.hint("write `best(valid.accuracy)`, `last` or `last(3)`"));
            }
        }
    }
    Ok(keep)
}

/// `500 steps`, `2 epochs`, `10 minutes`, or several of them.
fn save(expr: &Expr) -> Result<Vec<Interval>, Diagnostic> {
    let interval = |part: &Expr| match &part.kind {
        ExprKind::Number { value, suffix: Some(Suffix::Minutes), .. } if *value > 0.0 => Ok(Interval::Minutes(*value)),
        _ => match length(part) {
            Ok(Length::Epochs(epochs)) => Ok(Interval::Epochs(epochs)),
            Ok(Length::Steps(steps)) => Ok(Interval::Steps(steps)),
            Err(_) => Err(Diagnostic::error("bad-value", part.span, "this is no time between two saves")
                .hint("write `500 steps`, `2 epochs`, `10 minutes`, or several of them")),
        },
    };
    items(expr).iter().map(interval).collect()
}

/// `valid.accuracy`, or `accuracy`, which is the same; its direction is known once the metrics are.
fn best(expr: &Expr) -> Result<Best, Diagnostic> {
    let name = figure_name(expr)?;
    let (split, figure) = match name.split_once('.') {
        Some((split, figure)) if !split.contains('(') => (split, figure),
        Some(_) | None => (SplitName::Valid.as_str(), name.as_str()),
    };
    let Some(split) = SplitName::parse(split) else {
        let diagnostic = Diagnostic::error("unknown-name", expr.span, format!("there is no split `{split}`"));
        return Err(item::suggest(diagnostic, split, expr.span, &["train", "valid", "test"]));
    };
    Ok(Best { split, figure: figure.to_owned(), direction: Direction::Lower, span: expr.span })
}
