//! Arguments of a call, matched with the parameters of what is called.
//!
//! Input: a definition and what a call gives. Output: a value for each parameter by name.
//! Invariant: no argument is dropped: one that fits no parameter is an error, and so is a parameter without a value.

use std::collections::HashMap;

use crate::diagnostics::Diagnostic;
use crate::model::expander::{Expander, Given, Meaning, Outcome, Scope};
use crate::model::project::Definition;
use crate::source::Span;
use crate::syntax::ast::Ident;

impl Expander<'_> {
    /// Arguments by parameter name, with defaults filled in.
    pub(crate) fn bind_arguments(
        &mut self,
        definition: &Definition,
        given: Vec<Given>,
        span: Span,
    ) -> Outcome<HashMap<String, Meaning>> {
        let parameters = &definition.ast.parameters;
        let callee = &definition.ast.name;
        let mut slots: Vec<Option<Given>> = parameters.iter().map(|_| None).collect();
        let mut position = 0;
        for argument in given {
            let index = match &argument.name {
                None => {
                    position += 1;
                    position - 1
                }
                Some(name) => match parameters.iter().position(|parameter| parameter.name.name == name.name) {
                    Some(index) => index,
                    None => return self.unknown_argument(definition, name),
                },
            };
            if index >= parameters.len() {
                let count = parameters.len();
                let plural = if count == 1 { "argument" } else { "arguments" };
                let mut diagnostic = Diagnostic::error(
                    "too-many-arguments",
                    argument.span,
                    format!("`{}` takes {count} {plural}", callee.name),
                );
                if matches!(argument.value, Meaning::Tensor(_)) {
                    diagnostic = diagnostic.hint("tensors flow into a layer by `->`");
                }
                return self.fail(diagnostic.label(callee.span, "defined here"));
            }
            if slots[index].is_some() {
                let message = format!("`{}` is given twice", parameters[index].name.name);
                return self.refuse("duplicate-argument", argument.span, message);
            }
            slots[index] = Some(argument);
        }
        let mut scope = Scope::new(definition.file, String::new());
        scope.pure = Some(callee.name.clone());
        for (parameter, slot) in parameters.iter().zip(slots) {
            let meaning = match (slot, &parameter.default) {
                (Some(given), _) => given.value,
                (None, Some(default)) => self.expression(&mut scope, default)?,
                (None, None) => {
                    let message = format!("`{}` needs `{}`", callee.name, parameter.name.name);
                    let diagnostic = Diagnostic::error("missing-argument", span, message);
                    return self.fail(diagnostic.label(parameter.name.span, "declared here"));
                }
            };
            scope.bind(&parameter.name, meaning);
        }
        Ok(scope.names)
    }

    fn unknown_argument<T>(&mut self, definition: &Definition, name: &Ident) -> Outcome<T> {
        let callee = &definition.ast.name.name;
        let known: Vec<&str> = definition.ast.parameters.iter().map(|parameter| parameter.name.name.as_str()).collect();
        let message = format!("`{callee}` has no argument `{}`", name.name);
        let diagnostic = Diagnostic::error("unknown-argument", name.span, message);
        let diagnostic = match crate::diagnostics::suggest::nearest(&name.name, known.iter().copied()) {
            Some(other) => diagnostic.hint(format!("did you mean `{other}`?")).fix(name.span, other),
            None if known.is_empty() => diagnostic.hint("it takes none"),
            None => diagnostic.hint(format!("it takes `{}`", known.join("`, `"))),
        };
        self.fail(diagnostic)
    }
}
