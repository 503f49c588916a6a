//! Packs of static values: `K..` in shapes, lists and arguments.
//!
//! Input: an expression in which names are followed by `..`. Output: its value for each entry.
//! Rules: the lists of one expression are of one length, and a number stands for all of its entries.
//! Invariant: outside of such an expression no value is a pack.

use crate::diagnostics::Diagnostic;
use crate::model::expander::{Expander, Meaning, Outcome, Scope};
use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind};

/// True where an expression names entries of packs that no read or list around them takes.
pub(crate) fn has_entries(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Each(_) => true,
        ExprKind::Index { base, .. } => has_entries(base),
        ExprKind::List(_) | ExprKind::Reduce { .. } | ExprKind::Group(_) => false,
        _ => expr.parts().into_iter().any(has_entries),
    }
}

/// The names followed by `..` in such an expression.
pub(crate) fn entry_names<'e>(expr: &'e Expr, names: &mut Vec<(&'e str, Span)>) {
    match &expr.kind {
        ExprKind::Each(inner) => match &inner.kind {
            ExprKind::Name(name) => names.push((name, inner.span)),
            _ => entry_names(inner, names),
        },
        ExprKind::Index { base, .. } => entry_names(base, names),
        ExprKind::List(_) | ExprKind::Reduce { .. } | ExprKind::Group(_) => {}
        _ => expr.parts().into_iter().for_each(|part| entry_names(part, names)),
    }
}

impl Expander<'_> {
    /// The value of an expression with packs for each entry.
    pub(crate) fn entries(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<Vec<Meaning>> {
        let mut names = Vec::new();
        entry_names(expr, &mut names);
        if names.is_empty()
            && let ExprKind::Each(inner) = &expr.kind
        {
            return match self.expression(scope, inner)? {
                Meaning::List(items) => Ok(items),
                other => self.misfit("bad-pack", inner.span, "`..` follows a list here", &other),
            };
        }
        let mut length: Option<(usize, &str)> = None;
        for (name, span) in &names {
            let Meaning::List(items) = self.resolve(scope, name, *span)? else { continue };
            if let Some((first, other)) = length.filter(|(first, _)| *first != items.len()) {
                let message = format!("`{name}` has {} entries, and `{other}` has {first}", items.len());
                return self.refuse("bad-pack", *span, message);
            }
            length = Some((items.len(), name));
        }
        let Some((length, _)) = length else {
            let (name, span) = names[0];
            let value = self.resolve(scope, name, span)?;
            if value.as_dim().is_none() && !matches!(value, Meaning::Number(_) | Meaning::Flag(_)) {
                return self.misfit(
                    "bad-pack",
                    span,
                    "`..` follows a list, or a number that stands for all entries",
                    &value,
                );
            }
            let message = format!("`{name}` is one number here, and nothing says for how many entries it stands");
            let diagnostic = Diagnostic::error("unknown-length", span, message);
            return self
                .fail(diagnostic.hint("a parameter `K..` has an entry for each dim of the first pack of an input"));
        };
        let around = scope.entry;
        let mut values = Vec::with_capacity(length);
        for entry in 0..length {
            scope.entry = Some(entry);
            let value = self.expression(scope, expr);
            scope.entry = around;
            values.push(value?);
        }
        Ok(values)
    }

    /// `K..` at the entry that is being evaluated.
    pub(super) fn entry_of(&mut self, scope: &mut Scope, inner: &Expr, span: Span) -> Outcome<Meaning> {
        let Some(entry) = scope.entry else {
            let message = "this stands for several values, and here is one";
            let hint = "packs stand in shapes, in lists and arguments, and in the brackets of reads";
            return self.fail(Diagnostic::error("bad-pack", span, message).hint(hint));
        };
        match self.expression(scope, inner)? {
            Meaning::List(items) if inner.as_name().is_some() => match items.get(entry) {
                Some(item) => Ok(item.clone()),
                None => self.refuse("bad-pack", span, format!("the list has {} entries", items.len())),
            },
            value => Ok(value),
        }
    }

    /// Gives parameters `K..` as many entries as the first pack of what flows in has: a number stands for all of them.
    pub(crate) fn spread(&mut self, scope: &mut Scope, length: usize, pack: (&str, Span)) -> Outcome<()> {
        for name in std::mem::take(&mut scope.packs) {
            match scope.names.get(&name) {
                Some(Meaning::List(items)) if items.len() != length => {
                    let count = items.len();
                    let message = format!("`{name}` has {count} entries, and `{}..` stands for {length} dims", pack.0);
                    let hint = "give one number for all of them, or a list with one for each";
                    return self.fail(Diagnostic::error("bad-pack", pack.1, message).hint(hint));
                }
                Some(one @ (Meaning::Size(_) | Meaning::Number(_) | Meaning::Flag(_))) => {
                    let items = vec![one.clone(); length];
                    scope.names.insert(name, Meaning::List(items));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
