//! The names that a definition's text reads.
//!
//! Input: a definition. Output: names. Invariant: a name that any expansion of the definition looks up is among them.

use std::collections::HashSet;

use crate::syntax::ast::{Definition, Expr, Place, Statement, StatementKind, TensorType};

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
pub(crate) fn sizes_read(definition: &Definition) -> HashSet<&str> {
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
            StatementKind::Let { value, .. }
            | StatementKind::Bind { value, .. }
            | StatementKind::Unpack { value, .. } => {
                read_expr(value, read);
            }
            StatementKind::Update { name, places, value } => {
                read_places(places, read);
                read.insert(&name.name);
                read_expr(value, read);
            }
            StatementKind::Require { condition, .. } => read_expr(condition, read),
            StatementKind::Equation { places, value, shape, .. } => {
                read_places(places, read);
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

fn read_places<'d>(places: &'d [Place], read: &mut HashSet<&'d str>) {
    for place in places {
        if let Place::Affine(expr) = place {
            read_expr(expr, read);
        }
    }
}

fn read_expr<'d>(expr: &'d Expr, read: &mut HashSet<&'d str>) {
    read.extend(expr.as_name());
    expr.parts().into_iter().for_each(|part| read_expr(part, read));
}
