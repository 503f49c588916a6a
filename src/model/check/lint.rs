//! Lints on the text of one definition.
//!
//! Input: a definition. Output: warnings. Invariant: a lint never reports an error, and needs no expansion.

use crate::diagnostics::Diagnostic;
use crate::model::expand::{names_read, sizes_read};
use crate::syntax::ast::{Definition, DefinitionKind, ExprKind, Ident, Statement, StatementKind, TensorType};

/// Names that are bound and never read; an input whose sizes are read counts as read. A leading `_` says that this is meant.
pub(crate) fn unused(definition: &Definition) -> Vec<Diagnostic> {
    let read = names_read(definition);
    let sizes = sizes_read(definition);
    let takes_sizes = |ty: &TensorType| {
        ty.dims.iter().any(|dim| matches!(&dim.kind, ExprKind::Name(name) if sizes.contains(name.as_str())))
    };
    let mut bound: Vec<(&Ident, &str)> = Vec::new();
    if !matches!(definition.kind, DefinitionKind::Loss | DefinitionKind::Metric) {
        let plain = definition.parameters.iter().filter(|parameter| !parameter.ty.as_ref().is_some_and(takes_sizes));
        bound.extend(plain.map(|parameter| (&parameter.name, "argument")));
    }
    collect_bound(&definition.body, &mut bound);
    for statement in &definition.body {
        if let StatementKind::Input { names, ty } = &statement.kind
            && takes_sizes(ty)
        {
            bound.retain(|(name, _)| !names.iter().any(|input| input.span == name.span));
        }
    }
    bound
        .into_iter()
        .filter(|(name, _)| !read.contains(name.name.as_str()) && !name.name.starts_with('_'))
        .map(|(name, what)| {
            Diagnostic::warning("unused-name", name.span, format!("the {what} `{}` is never used", name.name))
        })
        .collect()
}

/// An optimizer that changes no parameter.
pub(crate) fn idle_optimizer(definition: &Definition) -> Option<Diagnostic> {
    let updates = |kind: &StatementKind| matches!(kind, StatementKind::Update { name, .. } if name.name == "param");
    if definition.kind != DefinitionKind::Optimizer
        || definition.body.iter().any(|statement| statement.contains(&updates))
    {
        return None;
    }
    let message = format!("the optimizer `{}` never changes `param`", definition.name.name);
    let diagnostic = Diagnostic::warning("idle-optimizer", definition.name.span, message);
    Some(diagnostic.hint("write `param <- param - …`"))
}

fn collect_bound<'d>(body: &'d [Statement], bound: &mut Vec<(&'d Ident, &'static str)>) {
    for statement in body {
        match &statement.kind {
            StatementKind::Input { names, .. } => bound.extend(names.iter().map(|name| (name, "input"))),
            StatementKind::Param { names, .. } => bound.extend(names.iter().map(|name| (name, "parameter"))),
            StatementKind::State(entries) => bound.extend(entries.iter().map(|entry| (&entry.name, "state"))),
            StatementKind::Let { name, .. } | StatementKind::Equation { name, .. } => bound.push((name, "name")),
            StatementKind::Unpack { names, .. } => bound.extend(names.iter().map(|name| (name, "name"))),
            StatementKind::Bind { target, .. } => {
                if let [name] = target.as_slice() {
                    bound.push((name, "name"));
                }
            }
            StatementKind::If { then, otherwise, .. } => {
                collect_bound(then, bound);
                collect_bound(otherwise, bound);
            }
            _ => {}
        }
    }
}
