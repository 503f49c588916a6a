//! A `data` item in model text as the plain values that `runtime::data` takes.

use std::path::Path;

use ansatz::model::{DataEntry, DataSpec, FieldSpec, Literal, LiteralKind};
use ansatz::source::{FileId, Span};
use ansatz::syntax::ast::{BinaryOp, Data, Expr, ExprKind, ItemKind, StatementKind, Suffix, UnaryOp};
use ansatz::syntax::parse;

/// The item `data d { body }`; relative paths start at `folder`.
pub fn spec(folder: &Path, body: &str) -> DataSpec {
    let (tree, diagnostics) = parse(FileId(0), &format!("data d {{\n{body}\n}}\n"));
    assert!(diagnostics.is_empty(), "{diagnostics:?}\n{body}");
    let [item] = tree.items.as_slice() else { panic!("one item") };
    let ItemKind::Data(data) = &item.kind else { panic!("a data item") };
    lower(data, item.span, folder)
}

/// The data item of a model file.
pub fn spec_of_file(path: &Path) -> DataSpec {
    let text = std::fs::read_to_string(path).expect("the model file is there");
    let (tree, diagnostics) = parse(FileId(0), &text);
    assert!(diagnostics.is_empty(), "{}: {diagnostics:?}", path.display());
    let item = tree.items.iter().find_map(|item| match &item.kind {
        ItemKind::Data(data) => Some((data, item.span)),
        _ => None,
    });
    let (data, span) = item.expect("the model file has a data item");
    lower(data, span, path.parent().expect("a model file lies in a folder"))
}

fn lower(data: &Data, span: Span, folder: &Path) -> DataSpec {
    let mut spec =
        DataSpec { name: data.name.name.clone(), fields: vec![], entries: vec![], folder: folder.to_path_buf(), span };
    for statement in &data.body {
        match &statement.kind {
            StatementKind::Field { name, ty, value } => spec.fields.push(FieldSpec {
                name: name.name.clone(),
                element: ty.element.as_ref().map_or("f32".to_string(), |element| element.name.clone()),
                sizes: ty.dims.iter().map(|dim| number(dim) as usize).collect(),
                value: value.as_ref().map(literal),
                span: statement.span,
            }),
            StatementKind::Bind { target, value } => spec.entries.push(DataEntry {
                key: target.iter().map(|name| name.name.clone()).collect(),
                value: literal(value),
                span: statement.span,
            }),
            other => panic!("not a line of a data item: {other:?}"),
        }
    }
    spec
}

fn number(expression: &Expr) -> f64 {
    match literal(expression).kind {
        LiteralKind::Number(value) => value,
        other => panic!("not a number: {other:?}"),
    }
}

fn literal(expression: &Expr) -> Literal {
    let kind = match &expression.kind {
        ExprKind::Number { value, suffix, .. } => LiteralKind::Number(match suffix {
            None => *value,
            Some(Suffix::Deg) => value.to_radians(),
            Some(other) => panic!("no suffix of data: {other:?}"),
        }),
        ExprKind::Text(text) => LiteralKind::Text(text.clone()),
        ExprKind::Bool(value) => LiteralKind::Bool(*value),
        ExprKind::Name(name) => LiteralKind::Name(name.clone()),
        ExprKind::List(items) => LiteralKind::List(items.iter().map(literal).collect()),
        ExprKind::Unary(UnaryOp::Neg, value) => LiteralKind::Number(-number(value)),
        ExprKind::Binary(BinaryOp::Div, left, right) => LiteralKind::Number(number(left) / number(right)),
        ExprKind::Call { callee, arguments } => {
            let ExprKind::Name(name) = &callee.kind else { panic!("a named call") };
            let argument = |argument: &ansatz::syntax::ast::Argument| {
                (argument.name.as_ref().map(|name| name.name.clone()), literal(&argument.value))
            };
            LiteralKind::Call { name: name.clone(), arguments: arguments.iter().map(argument).collect() }
        }
        ExprKind::Pipeline { head, stages } => {
            let stages = stages.iter().map(|stage| literal(&stage.value));
            LiteralKind::Pipeline(head.iter().map(|head| literal(head)).chain(stages).collect())
        }
        other => panic!("no literal: {other:?}"),
    };
    Literal { span: expression.span, kind }
}
