//! Expressions outside equations. This part is being written; until then every expression is an error.

use super::expander::{Expander, Given, Meaning, Outcome, Scope};
use crate::diagnostics::Diagnostic;
use crate::source::Span;
use crate::syntax::ast;

/// Built-in functions.
pub(crate) const BUILTINS: &[&str] = &[];

/// Built-in constants.
pub(crate) fn constant(name: &str) -> Option<Meaning> {
    let _ = name;
    None
}

impl Expander<'_> {
    /// The meaning of an expression.
    pub(crate) fn expression(&mut self, _scope: &mut Scope, expr: &ast::Expr) -> Outcome<Meaning> {
        self.fail(Diagnostic::error("not-yet", expr.span, "expressions are not supported yet"))
    }

    /// A built-in function on values.
    pub(crate) fn builtin(&mut self, _name: &'static str, _given: Vec<Given>, span: Span) -> Outcome<Meaning> {
        self.fail(Diagnostic::error("not-yet", span, "built-ins are not supported yet"))
    }
}
