//! The `train` item in force: the one of the file with the command line's settings applied.
//!
//! Input: a project, a file, which item, and `KEY=VALUE` settings. Output: a [`TrainItem`].
//! Keys: `train.KEY` (or `KEY` alone) sets a line of the item; `model.ARG`, `optimizer.ARG`, `loss.ARG` and
//! `schedule.ARG` set an argument of its call; `data.KEY` sets a line of the data item; `data.folder` is the folder that the
//! data item's paths start at and stay below; `train.item` chooses the item by its model's name. Invariant: every place in
//! a setting's value is that of its text on the command line, or of the item's head where the project does not know that text.

use crate::diagnostics::{Diagnostic, suggest::nearest};
use crate::model::project::Project;
use crate::settings::TRAIN_KEYS as KEYS;
use crate::source::{FileId, Span};
use crate::syntax::ast::{self, Expr, ExprKind, Ident, ItemKind, StatementKind};

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct TrainItem {
    /// The file that holds the item; its names are seen.
    pub file: FileId,
    /// The model, with arguments.
    pub model: Expr,
    /// The file and the text of the data item.
    pub data: (FileId, ast::Data),
    /// The whole item.
    pub span: Span,
    entries: Vec<(Ident, Expr)>,
}

impl TrainItem {
    /// The value of a line.
    pub fn get(&self, key: &str) -> Option<&Expr> {
        self.entries.iter().find(|(name, _)| name.name == key).map(|(_, value)| value)
    }

    /// Where the data item declares a field.
    pub fn field_place(&self, name: &str) -> Option<Span> {
        self.data.1.body.iter().find_map(|statement| match &statement.kind {
            StatementKind::Field { name: field, .. } if field.name == name => Some(field.span),
            _ => None,
        })
    }
}

/// The item of `file` in force.
///
/// # Errors
/// No such item or several, unknown or repeated keys, settings that do not parse or fit nothing.
pub(super) fn find(
    project: &Project,
    file: FileId,
    overrides: &[(String, String)],
) -> Result<TrainItem, Vec<Diagnostic>> {
    let (train, span) = choose(project, file, overrides)?;
    let mut problems = Vec::new();
    let Some((home, data)) = project.find_data(file, &train.data.name) else {
        let message = format!("there is no data item `{}`", train.data.name);
        let diagnostic = Diagnostic::error("unknown-name", train.data.span, message);
        let names: Vec<&str> =
            project.visible_names(file).into_iter().filter(|n| project.find_data(file, n).is_some()).collect();
        return Err(vec![suggest(diagnostic, &train.data.name, train.data.span, &names)]);
    };
    let mut item =
        TrainItem { file, model: train.model.clone(), data: (home, data.clone()), span, entries: Vec::new() };
    for statement in &train.body {
        let StatementKind::Bind { target, value } = &statement.kind else {
            let message = "this does not belong into a `train` item";
            problems.push(Diagnostic::error("misplaced-statement", statement.span, message));
            continue;
        };
        let name = dotted(target);
        let first = item.entries.iter().find(|(known, _)| known.name == name.name);
        if let Some((first, _)) = first {
            let message = format!("`{}` is given twice", name.name);
            problems.push(Diagnostic::error("duplicate-name", name.span, message).label(first.span, "first here"));
        } else if KEYS.contains(&name.name.as_str()) {
            item.entries.push((name, value.clone()));
        } else {
            let diagnostic =
                Diagnostic::error("unknown-key", name.span, format!("a `train` item has no key `{}`", name.name));
            problems.push(suggest(diagnostic, &name.name, name.span, &KEYS));
        }
    }
    let settings = overrides.iter().filter(|(key, _)| key != "train.item" && key != "data.folder");
    for (key, text) in settings {
        let place = project.setting_place(key, text).unwrap_or(train.model.span);
        if let Err(words) = apply(project, &mut item, key, text, place) {
            problems.push(Diagnostic::error("bad-setting", place, format!("the setting `{key}={text}`: {words}")));
        }
    }
    if problems.is_empty() { Ok(item) } else { Err(problems) }
}

fn choose<'p>(
    project: &'p Project,
    file: FileId,
    overrides: &[(String, String)],
) -> Result<(&'p ast::Train, Span), Vec<Diagnostic>> {
    let wanted = overrides.iter().rev().find(|(key, _)| key == "train.item").map(|(_, value)| value.as_str());
    let items: Vec<(&ast::Train, Span)> = project
        .tree(file)
        .items
        .iter()
        .filter_map(|item| match &item.kind {
            ItemKind::Train(train) => Some((train, item.span)),
            ItemKind::Use(_) | ItemKind::Definition(_) | ItemKind::Data(_) | ItemKind::Assert(_) => None,
        })
        .collect();
    let named: Vec<_> =
        items.iter().filter(|(train, _)| wanted.is_none_or(|name| model_name(&train.model) == name)).collect();
    match named.as_slice() {
        [one] => Ok(**one),
        [] if items.is_empty() => {
            let place = Span::new(file, 0, 0);
            let diagnostic = Diagnostic::error("no-training", place, "the file has no `train` item");
            Err(vec![diagnostic.hint("write `train Model on data { … }`")])
        }
        [] => {
            let message = format!("no `train` item is for the model `{}`", wanted.unwrap_or_default());
            Err(vec![Diagnostic::error("no-training", items[0].1, message)])
        }
        [first, second, ..] => {
            let diagnostic = Diagnostic::error("several-trainings", second.1, "the file has several `train` items");
            Err(vec![diagnostic.label(first.1, "the first").hint("choose one by its model: `--set train.item=MODEL`")])
        }
    }
}

/// The name of a model, with or without arguments.
pub(crate) fn model_name(model: &Expr) -> &str {
    match &model.kind {
        ExprKind::Name(name) => name,
        ExprKind::Call { callee, .. } => model_name(callee),
        _ => "",
    }
}

fn dotted(target: &[Ident]) -> Ident {
    let name = target.iter().map(|ident| ident.name.as_str()).collect::<Vec<_>>().join(".");
    let span = target.iter().map(|ident| ident.span).reduce(Span::to);
    Ident { name, span: span.expect("a bound name has a part") }
}

/// Adds the nearest known name as a way out.
pub(super) fn suggest(diagnostic: Diagnostic, name: &str, span: Span, known: &[&str]) -> Diagnostic {
    match nearest(name, known.iter().copied()) {
        Some(other) => diagnostic.hint(format!("did you mean `{other}`?")).fix(span, other),
        None if known.is_empty() => diagnostic,
        None => diagnostic.hint(format!("there are `{}`", known.join("`, `"))),
    }
}

fn apply(project: &Project, item: &mut TrainItem, key: &str, text: &str, place: Span) -> Result<(), String> {
    let mut value = crate::syntax::parse_expression(place.file, text)
        .map_err(|found| found.first().map_or_else(|| "cannot be read".into(), |first| first.message.clone()))?;
    relocate(&mut value, place);
    let ident = |name: &str| Ident { name: name.to_owned(), span: place };
    match key.split_once('.') {
        None if KEYS.contains(&key) => set(item, ident(key), value),
        Some(("train", key)) if KEYS.contains(&key) => set(item, ident(key), value),
        Some(("model", argument)) => {
            let position = position(project, item.file, &item.model, argument);
            set_argument(&mut item.model, ident(argument), value, position);
        }
        Some((call @ ("optimizer" | "loss" | "schedule"), argument)) => {
            let Some((_, line)) = item.entries.iter_mut().find(|(name, _)| name.name == call) else {
                return Err(format!("the `train` item has no `{call}`"));
            };
            if !matches!(line.kind, ExprKind::Name(_) | ExprKind::Call { .. }) {
                return Err(format!("`{call}` is not one call"));
            }
            // What flows into a loss comes before the arguments as written, so their positions say nothing.
            let position = (call != "loss").then(|| position(project, item.file, line, argument)).flatten();
            set_argument(line, ident(argument), value, position);
        }
        Some(("data", path)) => {
            let target: Vec<Ident> = path.split('.').map(ident).collect();
            let same = |found: &[Ident]| found.iter().map(|part| &part.name).eq(target.iter().map(|part| &part.name));
            item.data
                .1
                .body
                .retain(|statement| !matches!(&statement.kind, StatementKind::Bind { target, .. } if same(target)));
            let kind = StatementKind::Bind { target, value };
            item.data.1.body.push(ast::Statement { span: place, kind });
        }
        None | Some(_) => {
            let mut known: Vec<String> = KEYS.iter().map(|key| format!("train.{key}")).collect();
            known.extend(["model.", "optimizer.", "loss.", "schedule.", "data."].map(|prefix| format!("{prefix}NAME")));
            return Err(match nearest(key, known.iter().map(String::as_str)) {
                Some(other) => format!("there is no such key; did you mean `{other}`?"),
                None => format!("there is no such key; there are `{}`", known.join("`, `")),
            });
        }
    }
    Ok(())
}

fn set(item: &mut TrainItem, name: Ident, value: Expr) {
    item.entries.retain(|(known, _)| known.name != name.name);
    item.entries.push((name, value));
}

/// The position of a parameter in the definition that a call names.
fn position(project: &Project, file: FileId, call: &Expr, argument: &str) -> Option<usize> {
    let definition = project.find(file, model_name(call))?;
    definition.ast.parameters.iter().position(|parameter| parameter.name.name == argument)
}

/// Sets a named argument of a call, in place of the one by position; a bare name becomes a call.
fn set_argument(call: &mut Expr, name: Ident, value: Expr, position: Option<usize>) {
    if let ExprKind::Name(_) = call.kind {
        let callee = Box::new(call.clone());
        call.kind = ExprKind::Call { callee, arguments: Vec::new() };
    }
    if let ExprKind::Call { arguments, .. } = &mut call.kind {
        let mut unnamed = 0;
        let given_by_position = arguments.iter_mut().find(|argument| {
            unnamed += usize::from(argument.name.is_none());
            argument.name.is_none() && position == Some(unnamed - 1)
        });
        if let Some(argument) = given_by_position {
            argument.value = value;
            return;
        }
        arguments.retain(|argument| argument.name.as_ref().is_none_or(|known| known.name != name.name));
        arguments.push(ast::Argument { name: Some(name), label: None, value });
    }
}

/// Gives every part of an expression the same place.
fn relocate(expr: &mut Expr, place: Span) {
    expr.span = place;
    match &mut expr.kind {
        ExprKind::Number { .. } | ExprKind::Text(_) | ExprKind::Bool(_) | ExprKind::Name(_) => {}
        ExprKind::List(items) => items.iter_mut().for_each(|item| relocate(item, place)),
        ExprKind::Call { callee, arguments } => {
            relocate(callee, place);
            for argument in arguments {
                argument.name.iter_mut().chain(&mut argument.label).for_each(|name| name.span = place);
                relocate(&mut argument.value, place);
            }
        }
        ExprKind::Index { base, indices } => {
            relocate(base, place);
            indices.iter_mut().for_each(|index| relocate(index, place));
        }
        ExprKind::Field { base, name } => {
            relocate(base, place);
            name.span = place;
        }
        ExprKind::Unary(_, operand) | ExprKind::Each(operand) => relocate(operand, place),
        ExprKind::Group(members) => members.iter_mut().for_each(|member| relocate(member, place)),
        ExprKind::Binary(_, a, b) => [a, b].into_iter().for_each(|side| relocate(side, place)),
        ExprKind::Reduce { op, indices, body } => {
            op.span = place;
            indices.iter_mut().for_each(|index| index.name.span = place);
            relocate(body, place);
        }
        ExprKind::Conditional { then, condition, otherwise } => {
            [then, condition, otherwise].into_iter().for_each(|part| relocate(part, place));
        }
        ExprKind::Guard { read, otherwise } => [read, otherwise].into_iter().for_each(|part| relocate(part, place)),
        ExprKind::Pipeline { head, stages } => {
            head.iter_mut().for_each(|head| relocate(head, place));
            relocate_stages(stages, place);
        }
        ExprKind::Residual(stages) => relocate_stages(stages, place),
        ExprKind::Repeat { count, body } => [count, body].into_iter().for_each(|part| relocate(part, place)),
    }
}

fn relocate_stages(stages: &mut [ast::Stage], place: Span) {
    for stage in stages {
        stage.label.iter_mut().for_each(|label| label.span = place);
        relocate(&mut stage.value, place);
    }
}
