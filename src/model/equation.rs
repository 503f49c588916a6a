//! Equations. This part is being written; until then every equation is an error.

use super::expander::{Expander, Outcome, Scope};
use crate::diagnostics::Diagnostic;
use crate::graph::ValueId;
use crate::syntax::ast;

impl Expander<'_> {
    /// The tensor that an equation defines.
    pub(crate) fn equation(
        &mut self,
        _scope: &mut Scope,
        name: &ast::Ident,
        _indices: &[ast::Ident],
        _value: &ast::Expr,
        _shape: Option<&ast::TensorType>,
    ) -> Outcome<ValueId> {
        self.fail(Diagnostic::error("not-yet", name.span, "equations are not supported yet"))
    }
}
