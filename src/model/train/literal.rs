//! Constants of `data` and `train` items: numbers, texts, names, lists, calls, pipelines.
//!
//! Input: syntax trees. Output: [`Literal`]s, [`DataSpec`]s, and diagnostics. Arithmetic on numbers is done here in
//! f64 (`1 / 255` is exact division); `deg` becomes radians and `%` hundredths.
//! Invariant: a value that is returned came without a diagnostic.

use crate::diagnostics::Diagnostic;
use crate::graph::scalar;
use crate::model::expression::suffix_factor;
use crate::settings::{DataEntry, DataSpec, FieldSpec, Literal, LiteralKind};
use crate::source::Span;
use crate::syntax::ast::{self, BinaryOp, Expr, ExprKind, StatementKind, UnaryOp};

/// The constant that an expression is.
pub(super) fn literal(expr: &Expr) -> Result<Literal, Diagnostic> {
    let kind = match &expr.kind {
        ExprKind::Number { .. } => LiteralKind::Number(number(expr)?),
        ExprKind::Unary(UnaryOp::Neg, _) | ExprKind::Binary(..) => LiteralKind::Number(number(expr)?),
        ExprKind::Text(text) => LiteralKind::Text(text.clone()),
        ExprKind::Bool(flag) => LiteralKind::Bool(*flag),
        ExprKind::Name(name) => LiteralKind::Name(name.clone()),
        ExprKind::List(items) => LiteralKind::List(items.iter().map(literal).collect::<Result<_, _>>()?),
        ExprKind::Call { callee, arguments } => {
            let ExprKind::Name(name) = &callee.kind else { return Err(not_constant(callee)) };
            let argument = |argument: &ast::Argument| {
                let name = argument.name.as_ref().map(|name| name.name.clone());
                literal(&argument.value).map(|value| (name, value))
            };
            let arguments = arguments.iter().map(argument).collect::<Result<_, _>>()?;
            LiteralKind::Call { name: name.clone(), arguments }
        }
        ExprKind::Pipeline { head, stages } => {
            let stages = head.iter().map(AsRef::as_ref).chain(stages.iter().map(|stage| &stage.value));
            LiteralKind::Pipeline(stages.map(literal).collect::<Result<_, _>>()?)
        }
        _ => return Err(not_constant(expr)),
    };
    Ok(Literal { span: expr.span, kind })
}

/// The number that an expression over numbers is.
pub(super) fn number(expr: &Expr) -> Result<f64, Diagnostic> {
    match &expr.kind {
        ExprKind::Number { value, suffix, .. } => match suffix.map(suffix_factor) {
            None => Ok(*value),
            Some(Some(factor)) => Ok(value * factor),
            Some(None) => {
                Err(Diagnostic::error("bad-value", expr.span, "a number is needed here, not a duration of training"))
            }
        },
        ExprKind::Unary(UnaryOp::Neg, operand) => Ok(-number(operand)?),
        ExprKind::Name(name) if name == "pi" => Ok(std::f64::consts::PI),
        ExprKind::Binary(op, a, b) => {
            let function = match op {
                BinaryOp::Add => crate::graph::Binary::Add,
                BinaryOp::Sub => crate::graph::Binary::Sub,
                BinaryOp::Mul => crate::graph::Binary::Mul,
                BinaryOp::Div => crate::graph::Binary::Div,
                BinaryOp::Rem => crate::graph::Binary::Rem,
                BinaryOp::Pow => crate::graph::Binary::Pow,
                BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => {
                    return Err(not_constant(expr));
                }
                BinaryOp::And | BinaryOp::Or => return Err(not_constant(expr)),
            };
            Ok(scalar::binary(function, number(a)?, number(b)?))
        }
        _ => Err(not_constant(expr)),
    }
}

/// A whole number of at least `least`; plain digits are read without rounding.
pub(super) fn whole(expr: &Expr, least: u64) -> Result<u64, Diagnostic> {
    if let ExprKind::Number { text, suffix: None, .. } = &expr.kind
        && let Ok(value) = text.replace('_', "").parse::<u64>()
        && value >= least
    {
        return Ok(value);
    }
    let value = number(expr)?;
    if value.fract() == 0.0 && value >= least as f64 && value < 9e15 {
        return Ok(value as u64);
    }
    let written = match &expr.kind {
        ExprKind::Number { text, .. } => text.clone(),
        _ => value.to_string(),
    };
    let message = match value >= 9e15 {
        true => format!("{written} is more than the largest whole number here, {}", u64::MAX),
        false => format!("a whole number of at least {least} is needed here, not {written}"),
    };
    Err(Diagnostic::error("bad-value", expr.span, message))
}

fn not_constant(expr: &Expr) -> Diagnostic {
    Diagnostic::error("not-constant", expr.span, "this is not a constant")
        .hint("numbers, texts, names, lists, calls and pipelines of these stand here")
}

/// A `data` item as plain values; where its paths start is the caller's to say.
pub(super) fn data(item: &ast::Data, span: Span, problems: &mut Vec<Diagnostic>) -> DataSpec {
    let mut spec = DataSpec {
        name: item.name.name.clone(),
        fields: Vec::new(),
        entries: Vec::new(),
        root: Default::default(),
        folder: Default::default(),
        packed: None,
        span,
    };
    for statement in &item.body {
        match &statement.kind {
            StatementKind::Bind { target, value } => {
                let key: Vec<String> = target.iter().map(|ident| ident.name.clone()).collect();
                match literal(value) {
                    Ok(value) => spec.entries.push(DataEntry { key, value, span: statement.span }),
                    Err(diagnostic) => problems.push(diagnostic),
                }
            }
            StatementKind::Field { name, ty, value } => match field(name, ty, value.as_ref()) {
                Ok(field) => spec.fields.push(field),
                Err(diagnostic) => problems.push(diagnostic),
            },
            _ => problems.push(
                Diagnostic::error("misplaced-statement", statement.span, "this does not belong into a `data` item")
                    .hint("fields (`image: u8[3, 32, 32]`) and keys (`source = …`) do"),
            ),
        }
    }
    spec
}

fn field(name: &ast::Ident, ty: &ast::TensorType, value: Option<&Expr>) -> Result<FieldSpec, Diagnostic> {
    let sizes = ty.dims.iter().map(|dim| whole(dim, 1).map(|size| size as usize)).collect::<Result<_, _>>()?;
    Ok(FieldSpec {
        name: name.name.clone(),
        element: ty.element.as_ref().map_or("f32", |element| element.name.as_str()).to_owned(),
        sizes,
        value: value.map(literal).transpose()?,
        span: name.span.to(ty.span),
    })
}

/// A name, or a call with constant arguments, as text: `top(5)`, `recall(macro)`, `valid.accuracy`.
pub(super) fn figure_name(expr: &Expr) -> Result<String, Diagnostic> {
    match &expr.kind {
        ExprKind::Name(name) => Ok(name.clone()),
        ExprKind::Bool(flag) => Ok(flag.to_string()),
        ExprKind::Text(text) => Ok(format!("{text:?}")),
        ExprKind::Field { base, name } => Ok(format!("{}.{}", figure_name(base)?, name.name)),
        ExprKind::Call { callee, arguments } => {
            let argument = |argument: &ast::Argument| {
                let value = figure_name(&argument.value)?;
                Ok(match &argument.name {
                    Some(name) => format!("{} = {value}", name.name),
                    None => value,
                })
            };
            let arguments: Result<Vec<String>, Diagnostic> = arguments.iter().map(argument).collect();
            Ok(format!("{}({})", figure_name(callee)?, arguments?.join(", ")))
        }
        ExprKind::Number { text, .. } => Ok(text.clone()),
        _ => number(expr).map(|value| value.to_string()),
    }
}

/// The parts of a line with commas.
pub(super) fn items(expr: &Expr) -> &[Expr] {
    match &expr.kind {
        ExprKind::List(items) => items,
        _ => std::slice::from_ref(expr),
    }
}
