//! Lints on the text of one definition.
//!
//! Input: a definition. Output: warnings. Invariant: a lint never reports an error, and needs no expansion.

use std::collections::HashSet;

use crate::diagnostics::Diagnostic;
use crate::syntax::ast::{
    Definition, DefinitionKind, Expr, ExprKind, Ident, Stage, Statement, StatementKind, TensorType,
};

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
    fn updates(body: &[Statement]) -> bool {
        body.iter().any(|statement| match &statement.kind {
            StatementKind::Update { name, .. } => name.name == "param",
            StatementKind::If { then, otherwise, .. } => updates(then) || updates(otherwise),
            StatementKind::Input { .. }
            | StatementKind::Param { .. }
            | StatementKind::State(_)
            | StatementKind::Let { .. }
            | StatementKind::Require { .. }
            | StatementKind::Bind { .. }
            | StatementKind::Equation { .. }
            | StatementKind::Return { .. }
            | StatementKind::Expression { .. }
            | StatementKind::Field { .. } => false,
        })
    }
    if definition.kind != DefinitionKind::Optimizer || updates(&definition.body) {
        return None;
    }
    let message = format!("the optimizer `{}` never changes `param`", definition.name.name);
    let diagnostic = Diagnostic::warning("idle-optimizer", definition.name.span, message);
    Some(diagnostic.hint("write `param <- param - …`"))
}

/// Every name that a definition's text reads.
pub(crate) fn names_read(definition: &Definition) -> HashSet<&str> {
    let mut read = HashSet::new();
    for parameter in &definition.parameters {
        parameter.ty.iter().for_each(|ty| read_type(ty, &mut read));
        parameter.default.iter().for_each(|default| read_expr(default, &mut read));
    }
    read_statements(&definition.body, &mut read);
    read
}

/// The names that a definition reads beside the types of what flows in, which bind sizes.
fn sizes_read(definition: &Definition) -> HashSet<&str> {
    let mut read = HashSet::new();
    definition
        .parameters
        .iter()
        .filter_map(|parameter| parameter.default.as_ref())
        .for_each(|default| read_expr(default, &mut read));
    for statement in &definition.body {
        if !matches!(statement.kind, StatementKind::Input { .. }) {
            read_statements(std::slice::from_ref(statement), &mut read);
        }
    }
    read
}

fn collect_bound<'d>(body: &'d [Statement], bound: &mut Vec<(&'d Ident, &'static str)>) {
    for statement in body {
        match &statement.kind {
            StatementKind::Input { names, .. } => bound.extend(names.iter().map(|name| (name, "input"))),
            StatementKind::Param { names, .. } => bound.extend(names.iter().map(|name| (name, "parameter"))),
            StatementKind::State(entries) => bound.extend(entries.iter().map(|entry| (&entry.name, "state"))),
            StatementKind::Let { name, .. } | StatementKind::Equation { name, .. } => bound.push((name, "name")),
            StatementKind::Bind { target, .. } => {
                if let [name] = target.as_slice() {
                    bound.push((name, "name"));
                }
            }
            StatementKind::If { then, otherwise, .. } => {
                collect_bound(then, bound);
                collect_bound(otherwise, bound);
            }
            StatementKind::Require { .. }
            | StatementKind::Update { .. }
            | StatementKind::Return { .. }
            | StatementKind::Expression { .. }
            | StatementKind::Field { .. } => {}
        }
    }
}

fn read_type<'d>(ty: &'d TensorType, read: &mut HashSet<&'d str>) {
    ty.dims.iter().for_each(|dim| read_expr(dim, read));
}

fn read_statements<'d>(body: &'d [Statement], read: &mut HashSet<&'d str>) {
    for statement in body {
        match &statement.kind {
            StatementKind::Input { ty, .. } => read_type(ty, read),
            StatementKind::Param { ty, init, .. } => {
                read_type(ty, read);
                init.iter().for_each(|init| read_expr(init, read));
            }
            StatementKind::State(entries) => {
                for entry in entries {
                    entry.ty.iter().for_each(|ty| read_type(ty, read));
                    read_expr(&entry.value, read);
                }
            }
            StatementKind::Let { value, .. } | StatementKind::Bind { value, .. } => read_expr(value, read),
            StatementKind::Update { name, value, .. } => {
                read.insert(&name.name);
                read_expr(value, read);
            }
            StatementKind::Require { condition, .. } => read_expr(condition, read),
            StatementKind::Equation { value, shape, .. } => {
                read_expr(value, read);
                shape.iter().for_each(|ty| read_type(ty, read));
            }
            StatementKind::Return { values, shape } => {
                values.iter().for_each(|value| read_expr(value, read));
                shape.iter().for_each(|ty| read_type(ty, read));
            }
            StatementKind::If { condition, then, otherwise } => {
                read_expr(condition, read);
                read_statements(then, read);
                read_statements(otherwise, read);
            }
            StatementKind::Expression { value, .. } => read_expr(value, read),
            StatementKind::Field { ty, value, .. } => {
                read_type(ty, read);
                value.iter().for_each(|value| read_expr(value, read));
            }
        }
    }
}

fn read_stages<'d>(stages: &'d [Stage], read: &mut HashSet<&'d str>) {
    stages.iter().for_each(|stage| read_expr(&stage.value, read));
}

fn read_expr<'d>(expr: &'d Expr, read: &mut HashSet<&'d str>) {
    match &expr.kind {
        ExprKind::Name(name) => {
            read.insert(name);
        }
        ExprKind::Number { .. } | ExprKind::Text(_) | ExprKind::Bool(_) => {}
        ExprKind::List(items) => items.iter().for_each(|item| read_expr(item, read)),
        ExprKind::Call { callee, arguments } => {
            read_expr(callee, read);
            arguments.iter().for_each(|argument| read_expr(&argument.value, read));
        }
        ExprKind::Index { base, indices } => {
            read_expr(base, read);
            indices.iter().for_each(|index| read_expr(index, read));
        }
        ExprKind::Field { base, .. } => read_expr(base, read),
        ExprKind::Unary(_, inner) | ExprKind::Reduce { body: inner, .. } => read_expr(inner, read),
        ExprKind::Binary(_, left, right) | ExprKind::Guard { read: left, otherwise: right } => {
            read_expr(left, read);
            read_expr(right, read);
        }
        ExprKind::Conditional { then, condition, otherwise } => {
            for part in [then, condition, otherwise] {
                read_expr(part, read);
            }
        }
        ExprKind::Pipeline { head, stages } => {
            head.iter().for_each(|head| read_expr(head, read));
            read_stages(stages, read);
        }
        ExprKind::Residual(stages) => read_stages(stages, read),
        ExprKind::Repeat { count, body } => {
            read_expr(count, read);
            read_expr(body, read);
        }
    }
}
